"""Stand-ins for QAM's networks, with which the numbers of `tests/data/official_qam.npz` were made.

They are what the functions of agents/qam.py (ColinQiyangLi/qam at f93efd2) gave for one step, with
these networks, these parameters and draws, chunks of two actions, and plain gradient steps of .05
in the place of Adam and of clipped gradients.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from exporl.algos.common import Model
from exporl.algos.qam import Qam
from exporl.nets.gaussian import Normal, TanhGaussian
from exporl.nets.mlp import flat_action
from exporl.ops.generative import euler_sample
from exporl.policies import BaseConfig, make_base
from exporl.types import Batch, Spec
from helpers.known import STEP_SIZE, KnownCritic

SPEC = Spec((("state", (3,), "float32"),), 2, chunk_length=2, value_range=(-10.0, 0.0))
NUM_STEPS = 4


def known_velocity(params, observation, noisy, time):
    """2 tanh([s, x, t] w)."""
    inputs = jnp.concatenate([observation["state"], flat_action(noisy), time], axis=-1)
    return (2 * jnp.tanh(inputs @ params["w"])).reshape(noisy.shape)


def known_decode(params, observation, noise):
    """Euler steps along the velocity, from noise [b, n, h, a]."""

    def velocity(x, time):
        state = jnp.broadcast_to(observation["state"], (*x.shape[:2], 3))
        return known_velocity(params, {"state": state}, x, jnp.full((*x.shape[:2], 1), time[0]))

    return euler_sample(velocity, jnp.arange(NUM_STEPS)[:, None] / NUM_STEPS, noise)


BASE = make_base(BaseConfig("flow", num_steps=NUM_STEPS, width=8, num_blocks=1), SPEC)._replace(
    predict=known_velocity, decode=known_decode
)


class KnownEdit(TanhGaussian):
    """Mean and log deviation linear in [s, a]."""

    @nn.compact
    def __call__(self, features, action=None, deterministic=True):
        flat, normal = flat_action(action), nn.initializers.normal()
        features = jnp.broadcast_to(features, (*flat.shape[:-1], features.shape[-1]))
        inputs = jnp.concatenate([features, flat], axis=-1)
        mean = inputs @ self.param("mean", normal, (inputs.shape[-1], flat.shape[-1]))
        log_std = inputs @ self.param("log_std", normal, (inputs.shape[-1], flat.shape[-1]))
        return Normal(mean.reshape(action.shape), log_std.reshape(action.shape))


def known_qam(config, numbers):
    """The functions with stand-ins and plain gradient steps, and the state before the step."""
    agent, steps = Qam.create(config, SPEC, BASE, "float32"), optax.sgd(STEP_SIZE)
    critic, network = KnownCritic((), config.num_qs), KnownEdit((), 2, 2)
    trainer = dataclasses.replace(agent.critic_trainer, critic=critic, optimizer=steps)
    agent = dataclasses.replace(
        agent,
        policy=dataclasses.replace(agent.policy, optimizer=steps),
        critic=critic,
        ranking_critic=critic,
        critic_trainer=trainer,
        edit=dataclasses.replace(
            agent.edit,
            network=network,
            critic=critic,
            optimizer=steps,
            temperature_optimizer=steps,
        ),
    )

    def critics(last):
        return {"params": {"first": numbers["first"], "last": numbers[last]}}

    edit = {"params": {"mean": numbers["edit_mean"], "log_std": numbers["edit_log_std"]}}
    state = jax.jit(agent.init)(jax.random.key(0)).replace(
        slow_base={"w": numbers["slow"]},
        policy=Model.create({"w": numbers["fast"]}, steps),
        edit=Model.create(edit, steps),
        critic=Model.create(critics("last"), steps),
        target_critic=critics("last_target"),
        log_temperature=Model.create(jnp.asarray(numbers["log_temperature"]), steps),
    )
    return agent, jax.tree.map(jnp.asarray, state)


def batch_of_chunks(numbers):
    """The rows that the numbers are for."""
    rows = len(numbers["reward"])
    batch = Batch(
        observation={"state": numbers["observation"]},
        action=numbers["action"],
        reward=numbers["reward"],
        discount=np.float32(0.9**2) * numbers["mask"],
        next_observation={"state": numbers["next_observation"]},
        valid=np.ones((rows, 2), np.float32),
        prior=np.ones(rows, np.float32),
        success=np.ones(rows, np.float32),
    )
    return jax.tree.map(jnp.asarray, batch)
