"""An algorithm of your own in one file, made of the library's parts: the base policy imitates,
critics learn what actions are worth, and of n samples of the base policy the best one acts.

From this folder: python custom_algorithm.py. Also `exporl train custom_algorithm:BEST_OF_N --task
probe/bandit --algo.num-samples 4`, and `exporl eval` and `exporl report` of such a run.
"""

import dataclasses
from pathlib import Path

import jax

import exporl
from exporl.algos import Entry, Needs, common, compiled, option, presets
from exporl.nets.critic import Critic, q_values
from exporl.nets.encoder import flat_observation
from exporl.ops.selection import take_candidate
from exporl.policies.base import propose


@dataclasses.dataclass(frozen=True)
class Config:
    """The options: --algo.* on the command line."""

    num_samples: int = option(8, within="[1, inf)")
    """Actions that the base policy proposes per observation."""


@dataclasses.dataclass(frozen=True)
class BestOfN:
    """The functions: `compiled` makes an algorithm of them."""

    config: Config
    spec: exporl.Spec
    imitation: common.Imitation
    critics: common.CriticTrainer

    def init(self, key):
        """All that is learnt."""
        base_key, critic_key = jax.random.split(key)
        observation, action = self.spec.example()
        critic = self.critics.init(critic_key, flat_observation(observation), action)
        base, slow = self.imitation.init(base_key), common.fresh(critic.params)
        return {"base": base, "critic": critic, "slow": slow}

    def best(self, acting, observation, key, num):
        """Of `num` samples the one of highest value, [b, h, a], and that value, [b]."""
        base, features = self.imitation.base, flat_observation(observation)[:, None]
        actions = propose(base, acting["base"], observation, num, key, self.spec)
        q = q_values(self.critics.critic, acting["critic"], features, actions).min(axis=0)
        return exporl.Decision(take_candidate(actions, q.argmax(axis=-1)), {"q": q.max(axis=-1)})

    def next_best(self, state, batch, key):
        """What the critics' target bootstraps from."""
        return self.best(self.acting(state), batch.next_observation, key, self.config.num_samples)

    def critic_step(self, state, batch, best, key):
        """The critics on one minibatch."""
        critics, features = (state["critic"], state["slow"]), flat_observation(batch.observation)
        target = batch.reward + batch.discount * best.info["q"]
        critic, slow, metrics = self.critics.step(*critics, batch, features, target)
        return state | {"critic": critic, "slow": slow}, metrics

    def update(self, state, batches, key, *, phase="online"):
        """Critics on minibatches [u, b, ...], base policy on the last; or imitation alone."""
        if phase == "pretrain":
            base, _, metrics = self.imitation.pretrain(state["base"], batches, key)
            return state | {"base": base}, metrics
        key, critic_key = jax.random.split(key)
        parts = self.next_best, self.critic_step
        state, critic_metrics = common.draw_and_step(*parts, state, batches, critic_key)
        base, metrics = self.imitation.imitate(state["base"], common.last_minibatch(batches), key)
        return state | {"base": base}, metrics | critic_metrics

    def acting(self, state):
        """What acting needs of it."""
        return {"base": state["base"].params, "critic": state["slow"]}

    def act(self, acting, observation, key, *, mode="explore", proposals=None):
        """The best of n; with mode "base", a sample of the base policy alone."""
        num = 1 if mode == "base" else self.config.num_samples
        return self.best(acting, observation, key, num)


def make(config, spec, base, precision):
    """The algorithm for one task and one base policy."""
    critics = common.CriticTrainer.adam(Critic((64,), 2), learning_rate=3e-3, tau=0.05)
    functions = BestOfN(config, spec, common.Imitation(base), critics)
    return compiled(functions, Needs(frozenset({"pretrain", "online"})), has_base=True)


TINY = {**presets.RUNS["tiny"], **presets.SMALL_BASES["tiny"]}
BEST_OF_N = Entry("best-of-n", Config, make, presets={"tiny": TINY}, metrics=common.CRITIC_METRICS)

if __name__ == "__main__":
    preset = exporl.preset_config("custom_algorithm:BEST_OF_N", "tiny", "probe/bandit")
    steps = {"train.offline_steps": 200, "train.online_steps": 150, "train.utd_ratio": 1}
    print(exporl.train(exporl.override(preset, steps), Path("runs/best-of-n")))
