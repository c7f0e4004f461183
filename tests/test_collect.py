"""Recording an expert: what is recorded, how it depends on the seed, and how somebody can watch."""

import gymnasium
import numpy as np
import pytest

from exporl.data.episodes import Episode, fingerprint
from exporl.envs import make_task
from exporl.envs.collect import collect_episodes, watched


class Corridor(gymnasium.Env):
    """Walk right until a random goal; success there."""

    observation_space = gymnasium.spaces.Dict(
        {"state": gymnasium.spaces.Box(-9, 9, (2,), np.float32)}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.goal = 0.0, float(self.np_random.uniform(1, 3))
        return self.look(), {"success": False}

    def look(self):
        return {"state": np.array([self.x, self.goal], np.float32)}

    def step(self, action):
        self.x += float(action[0])
        success = self.x >= self.goal
        return self.look(), float(success), success, False, {"success": success}


def corridor(episodes: int, noise: float = 0.3, seed: int = 0) -> list[Episode]:
    return collect_episodes(
        Corridor(), lambda env: lambda observation, info: np.array([0.8]), episodes, noise, seed
    )


def test_an_episode_depends_on_the_seed_and_its_number_only():
    assert fingerprint(corridor(5)[:2]) == fingerprint(corridor(2))
    assert fingerprint(corridor(2)) != fingerprint(corridor(2, seed=1))
    assert fingerprint(corridor(2)) != fingerprint(corridor(2, noise=0.9))


def test_what_is_recorded_is_what_was_executed():
    (episode,) = corridor(1)
    state = episode.observations["state"]
    assert len(state) == len(episode) + 1 and np.abs(episode.actions).max() <= 1
    np.testing.assert_allclose(np.diff(state[:, 0]), episode.actions[:, 0], atol=1e-6)
    assert episode.terminated and episode.successes.tolist() == [False] * (len(episode) - 1) + [
        True
    ]


@pytest.mark.parametrize(
    "collect", [lambda n: corridor(n), lambda n: make_task("probe/delay").collect(n, 0.3, 0)]
)
def test_a_watcher_sees_every_episode_as_it_is_recorded(collect):
    seen = []
    with watched(seen.append):
        episodes = collect(3)
    assert [id(e) for e in seen] == [id(e) for e in episodes]
    collect(2)
    assert len(seen) == 3


def test_a_watcher_may_stop_the_recording():
    def stop(episode):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched(stop):
        corridor(2)
    assert len(corridor(2)) == 2
