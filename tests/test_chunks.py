"""The chunk queue: who is asked when, what is played, and that nothing changed for whoever acts."""

import gymnasium
import jax
import numpy as np
import pytest

from exporl.acting.chunks import Chunks, playable
from exporl.acting.evaluate import evaluate
from exporl.acting.guard import Guard
from exporl.acting.rollout import Rollout
from exporl.randomness import EVALUATE, env_seed, run_key
from exporl.types import Decision


def numbered(asked: list[list[int]], length: int = 4):
    """Decides chunks whose actions say (environment, decision, place in the chunk), in [-1, 1]."""

    def decide(envs):
        asked.append(list(envs))
        return np.array(
            [[[env / 10, len(asked) / 100, h / 10] for h in range(length)] for env in envs],
            np.float32,
        )

    return decide


def test_a_chunk_is_played_to_its_end_before_the_next_is_decided():
    asked: list[list[int]] = []
    chunks, decide = Chunks(1, 3), numbered(asked)
    played = [chunks.next(decide)[0].round(2).tolist() for _ in range(7)]
    assert [action[2] for action in played] == pytest.approx([0, 0.1, 0.2, 0, 0.1, 0.2, 0])
    assert [action[1] for action in played] == pytest.approx([0.01] * 3 + [0.02] * 3 + [0.03])
    assert asked == [[0]] * 3


def test_only_environments_whose_chunk_is_used_up_are_asked():
    asked: list[list[int]] = []
    chunks, decide = Chunks(3, 2), numbered(asked)
    chunks.next(decide)
    chunks.clear(1)  # its episode ended
    assert chunks.used_up == [1]
    actions = chunks.next(decide)
    assert asked == [[0, 1, 2], [1]]
    np.testing.assert_allclose(actions[:, 0], [0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(actions[:, 1], [0.01, 0.02, 0.01], atol=1e-6)
    chunks.next(decide)  # 0 and 2 are used up; 1 is in the middle of its chunk
    assert asked[2:] == [[0, 2]]


def test_actions_are_kept_within_their_bounds_and_nan_is_an_error():
    chunks = Chunks(1, 1)
    assert chunks.next(lambda envs: np.full((1, 1, 2), 7.0))[0].tolist() == [1, 1]
    for value in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="NaN or infinity: training diverged"):
            playable(np.full((1, 2, 2), value), 1)


def test_what_is_left_is_kept_and_restored():
    asked: list[list[int]] = []
    one, decide = Chunks(2, 3), numbered(asked)
    one.next(decide)
    one.clear(1)
    two = Chunks(2, 3)
    two.load(one.state())
    assert two.used_up == [1]
    rest = [np.asarray(queue.next(numbered([[]]))) for queue in (one, two)]
    np.testing.assert_array_equal(*rest)


class AskEveryone:
    """The slow obvious twin: everyone decides whenever anyone has to, most of it for nothing."""

    def __init__(self, num_envs, execute_length):
        self.left, self.execute_length = [[] for _ in range(num_envs)], execute_length

    def clear(self, env):
        self.left[env] = []

    def next(self, decide):
        if not all(self.left):
            decided = decide(list(range(len(self.left))))
            for env, left in enumerate(self.left):
                if not left:
                    self.left[env] = list(np.clip(decided[env, : self.execute_length], -1, 1))
        return np.stack([left.pop(0) for left in self.left])

    def state(self):
        return {env: list(left) for env, left in enumerate(self.left)}

    def load(self, state):
        self.left = list(state.values())


class Countdown(gymnasium.Env):
    """Episodes of as many steps as the seed says; the observation is the time and the last
    action."""

    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-9, 9, (2,))})
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        self.steps, self.length = 0, 2 + seed % 7
        return {"state": np.zeros(2, np.float32)}, {}

    def step(self, action):
        self.steps += 1
        observation = {"state": np.array([self.steps, action[0]], np.float32)}
        over = self.steps >= self.length
        return observation, float(action[0]), over, False, {"success": bool(action[0] > 0)}


class Actor:
    """Chunks [b, 3, 1] that depend on observation, key and mode; `asked` counts calls by mode."""

    def __init__(self):
        self.calls: list[str] = []
        self.rows: set[int] = set()

    def __call__(self, acting, observation, key, *, mode="explore"):
        self.calls.append(mode)
        state = observation["state"]
        self.rows.add(len(state))
        noise = np.asarray(jax.random.normal(key, (len(state), 3, 1)))
        shift = {"explore": 0.0, "evaluate": 0.0, "base": 0.5}[mode]
        action = np.tanh(noise + state[:, None, 1:] + acting) + shift
        return Decision(action.astype(np.float32), {})


def obvious_evaluation(envs, act, episodes, seed, execute_length):
    """Returns of `evaluate`, with the twin: every slot asks, also one without an episode."""
    returns, current = [0.0] * episodes, list(range(len(envs)))
    following = iter(range(len(envs), episodes))
    seen = [env.reset(seed=env_seed(seed, i))[0]["state"] for i, env in enumerate(envs)]
    queue, count = AskEveryone(len(envs), execute_length), 0

    def decide(slots):
        nonlocal count
        count += 1
        key = run_key(seed, EVALUATE, count)
        return act(0.1, {"state": np.stack(seen)}, key, mode="evaluate").action

    while current != [None] * len(envs):
        actions = queue.next(decide)
        for slot in [slot for slot, episode in enumerate(current) if episode is not None]:
            observation, reward, over, _, _ = envs[slot].step(actions[slot])
            seen[slot] = observation["state"]
            returns[current[slot]] += reward
            if over:
                queue.clear(slot)
                current[slot] = next(following, None)
                if current[slot] is not None:
                    start = env_seed(seed, current[slot])
                    seen[slot] = envs[slot].reset(seed=start)[0]["state"]
    return returns


@pytest.mark.parametrize("execute_length", [1, 2, 3])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_evaluation_is_what_it_was_to_the_bit(num_envs, execute_length):
    """Also where episodes end at different times, and slots have none left."""
    envs, actor = [Countdown() for _ in range(num_envs)], Actor()
    options = {"episodes": 8, "seed": 3, "execute_length": execute_length}
    result = evaluate(envs, actor, 0.1, float, **options)
    assert result.returns == obvious_evaluation(envs, Actor(), 8, 3, execute_length)
    assert len(set(result.lengths)) > 2
    assert actor.rows == {num_envs}, "one batch shape"


def test_evaluation_does_not_decide_for_slots_without_an_episode():
    envs, actor, twin = [Countdown() for _ in range(4)], Actor(), Actor()
    evaluate(envs, actor, 0.1, float, episodes=6, seed=0, execute_length=2)
    obvious_evaluation(envs, twin, 6, 0, 2)
    assert len(actor.calls) < len(twin.calls)


def rollout(num_envs, actor, **options):
    envs = [Countdown() for _ in range(num_envs)]
    options = {"execute_length": 2, "seed": 4} | options
    return Rollout(envs, actor, reward=float, chunk_length=3, action_dim=1, **options)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_rollouts_are_what_they_were_to_the_bit(num_envs):
    one, two = rollout(num_envs, Actor()), rollout(num_envs, Actor())
    two.chunks = AskEveryone(num_envs, 2)  # type: ignore[assignment]
    for _ in range(40):
        for (_, a), (_, b) in zip(one.step(0.1), two.step(0.1), strict=True):
            np.testing.assert_array_equal(a.action, b.action)
    assert one.outcomes == two.outcomes
    assert len({outcome.length for outcome in one.outcomes}) > 2


def test_a_rollout_asks_only_the_arms_whose_turn_it_is():
    """Two environments, one with the base and one with the policy: each decides for its own."""
    actor = Actor()
    acting = rollout(2, actor, guard=Guard("success"))
    acting.step(0.1)
    acting._arms = ["base", "explore"]
    acting.chunks.clear(0)
    actor.calls.clear()
    acting.step(0.1)
    assert actor.calls == ["base"]


def test_who_begins_an_episode_at_random_ends_it_at_random():
    """With a guard, an episode that began while actions were random goes on so."""
    actor = Actor()
    acting = rollout(1, actor, guard=Guard("success"), execute_length=1)
    acting.step(0.1, "random")
    while not acting.outcomes:
        acting.step(0.1)
    assert actor.calls == [] and acting.outcomes[0].arm == "random"
    acting.step(0.1)
    assert len(actor.calls) == 1


def test_a_rollout_goes_on_in_the_middle_of_a_chunk():
    one = rollout(2, Actor())
    for _ in range(5):
        one.step(0.1)
    assert one.chunks.used_up != [0, 1]
    two = rollout(2, Actor())
    assert two.load(*one.state()) == []
    for _ in range(9):
        for (_, a), (_, b) in zip(one.step(0.1), two.step(0.1), strict=True):
            np.testing.assert_array_equal(a.action, b.action)


def test_rollouts_of_earlier_versions_had_no_arms():
    one = rollout(2, Actor())
    for _ in range(5):
        one.step(0.1)
    arrays, record = one.state()
    del record["arms"]
    record["outcomes"] = [outcome[:4] for outcome in record["outcomes"]]
    two = rollout(2, Actor())
    assert two.load(arrays, record) == []
    assert two.outcomes == one.outcomes
    for (_, a), (_, b) in zip(one.step(0.1), two.step(0.1), strict=True):
        np.testing.assert_array_equal(a.action, b.action)
