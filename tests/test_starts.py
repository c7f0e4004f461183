"""Values of evaluation starts, and what came of them: by hand, whichever environment plays which
episode."""

import gymnasium
import numpy as np
import pytest

from exporl.acting.evaluate import evaluate
from exporl.randomness import env_seed
from exporl.types import Decision

LIMIT, DISCOUNT, EPISODES, SEED = 5, 0.5, 7, 5
ANY = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def length_of(seed):
    return 2 + seed % 6


class Countdown(gymnasium.Env):
    """-1 a step; ends after as many steps as its seed says, or at the limit."""

    observation_space = gymnasium.spaces.Dict({"state": ANY})
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.length, self.steps = length_of(seed), 0
        return self._seen(), {}

    def step(self, action):
        self.steps += 1
        over = self.steps >= self.length
        info = {"success": over}
        return self._seen(), -1.0, over, not over and self.steps >= LIMIT, info

    def _seen(self):
        return {"state": np.array([self.length, self.steps], np.float32)}


def act(acting, observation, key, *, mode):
    """Its value tells both the episode and the step at which it was decided."""
    state = observation["state"]
    action = np.zeros((len(state), 2, 1), np.float32)
    return Decision(action, {"q": 100.0 * state[:, 0] + state[:, 1]})


def silent(acting, observation, key, *, mode):
    return Decision(act(acting, observation, key, mode=mode).action, {})


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("execute_length", [1, 2])
def test_values_of_starts_and_what_came_of_them(num_envs, execute_length):
    options = {"episodes": EPISODES, "seed": SEED, "execute_length": execute_length}
    envs = [Countdown() for _ in range(num_envs)]
    found = evaluate(envs, act, None, float, discount=DISCOUNT, **options)
    lengths = [length_of(env_seed(SEED, i)) for i in range(EPISODES)]
    played = [min(length, LIMIT) for length in lengths]
    assert found.values == [100.0 * length for length in lengths]
    assert found.discounted == [-sum(DISCOUNT**t for t in range(steps)) for steps in played]
    assert found.cut_off == [length > LIMIT for length in lengths]
    assert {True, False} == set(found.cut_off) and found.lengths == played
    kept = found.to_json()
    assert kept["values"] == found.values and kept["cut_off"] == found.cut_off


def test_without_values_or_discount_nothing_is_kept():
    options = {"episodes": EPISODES, "seed": SEED, "execute_length": 1}
    for found in (
        evaluate([Countdown()], silent, None, float, discount=DISCOUNT, **options),
        evaluate([Countdown()], act, None, float, **options),
    ):
        assert found.values == found.discounted == found.cut_off == []
        assert set(found.to_json()) == {
            "success_rate", "return_mean", "length_mean", "success", "returns", "lengths"
        }  # fmt: skip
