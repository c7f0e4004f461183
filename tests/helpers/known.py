"""Stand-in networks that are written down in a line, with which numbers of other code were made:
`tests/data/official_dac.npz` and `official_qsm.npz`.

They are what the functions of agents/dac.py (Fang-Lin93/DAC at e254357) and of
score_matching_learner.py (Alescontrela/score_matching_rl at 2e77893) gave for one step, with these
networks, these parameters and draws, and plain gradient steps of .05 in the place of Adam.
"""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from exporl.algos.common import Model
from exporl.nets.critic import Critic
from exporl.nets.mlp import flat_action
from exporl.policies import BaseConfig, make_base
from exporl.types import Batch, Spec

SPEC = Spec((("state", (3,), "float32"),), 2, value_range=(-10.0, 0.0))
NUM_STEPS, STEP_SIZE = 5, 0.05
BASE = make_base(BaseConfig("diffusion", num_steps=NUM_STEPS, width=8, num_blocks=1), SPEC)


class KnownCritic(Critic):
    """tanh([s, a] first) last."""

    @nn.compact
    def __call__(self, features, action):
        normal, flat = nn.initializers.normal(), flat_action(action)
        features = jnp.broadcast_to(features, (*flat.shape[:-1], features.shape[-1]))
        inputs = jnp.concatenate([features, flat], axis=-1)
        first = self.param("first", normal, (inputs.shape[-1], 8))
        last = self.param("last", normal, (8, self.num_qs))
        return jnp.moveaxis(jnp.tanh(inputs @ first) @ last, -1, 0)


def known_noise(params, observation, noisy, time):
    """2 tanh([s, x, t / 5] w)."""
    inputs = jnp.concatenate([observation["state"], noisy[:, 0], time / NUM_STEPS], axis=-1)
    return 2 * jnp.tanh(inputs @ params["w"])[:, None]


def official(name):
    """Everything in a file of official numbers."""
    with np.load(Path(__file__).parent.parent / "data" / f"official_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def batch_of(numbers):
    """The rows that the numbers are for."""
    rows = len(numbers["reward"])
    batch = Batch(
        observation={"state": numbers["observation"]},
        action=numbers["action"][:, None],
        reward=numbers["reward"],
        discount=np.float32(0.9) * numbers["mask"],
        next_observation={"state": numbers["next_observation"]},
        valid=np.ones((rows, 1), np.float32),
        prior=np.ones(rows, np.float32),
        success=np.ones(rows, np.float32),
    )
    return jax.tree.map(jnp.asarray, batch)


def with_known_networks(agent, longest_gradient=np.inf):
    """DAC or QSM with the stand-ins and plain gradient steps."""
    steps = optax.chain(optax.clip_by_global_norm(longest_gradient), optax.sgd(STEP_SIZE))
    critic = KnownCritic((), agent.config.num_qs)
    regression = dataclasses.replace(agent.regression, predict_noise=known_noise, optimizer=steps)
    trainer = dataclasses.replace(agent.critic_trainer, critic=critic, optimizer=steps)
    return dataclasses.replace(agent, regression=regression, critic=critic, critic_trainer=trainer)


def critic_params(numbers, last, num):
    """Parameters of the first few critics."""
    return {"params": {"first": numbers["first"], "last": numbers[last][:, :num]}}


def known_models(agent, numbers):
    """policy, critic and target critics before the step."""
    num = agent.config.num_qs
    return {
        "policy": Model.create({"w": numbers["predict_w"]}, agent.regression.optimizer),
        "critic": Model.create(critic_params(numbers, "last", num), agent.critic_trainer.optimizer),
        "target_critic": critic_params(numbers, "last_target", num),
    }
