"""Meta-World v3 (arXiv 1910.10897): 50 manipulation tasks with a sparse reward, and their scripted
experts."""

import functools
import warnings
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.cameras import METADATA, MujocoCamera, View
from exporl.envs.collect import Expert, collect_episodes
from exporl.envs.task import Family, Reward, Task, sparse_reward
from exporl.spec import Spec

HORIZON = 200
"""Steps per episode, as in the demonstrations."""
NAMES = tuple(
    f"{name}-v3"
    for name in [
        "assembly",
        "basketball",
        "bin-picking",
        "box-close",
        "button-press",
        "button-press-topdown",
        "button-press-topdown-wall",
        "button-press-wall",
        "coffee-button",
        "coffee-pull",
        "coffee-push",
        "dial-turn",
        "disassemble",
        "door-close",
        "door-lock",
        "door-open",
        "door-unlock",
        "drawer-close",
        "drawer-open",
        "faucet-close",
        "faucet-open",
        "hammer",
        "hand-insert",
        "handle-press",
        "handle-press-side",
        "handle-pull",
        "handle-pull-side",
        "lever-pull",
        "peg-insert-side",
        "peg-unplug-side",
        "pick-out-of-hole",
        "pick-place",
        "pick-place-wall",
        "plate-slide",
        "plate-slide-back",
        "plate-slide-back-side",
        "plate-slide-side",
        "push",
        "push-back",
        "push-wall",
        "reach",
        "reach-wall",
        "shelf-place",
        "soccer",
        "stick-pull",
        "stick-push",
        "sweep",
        "sweep-into",
        "window-close",
        "window-open",
    ]
)
VIEW = View(azimuth=225.0, elevation=-30.0, distance=1.4, lookat=(0.0, 0.6, 0.15))
SPEC = Spec((("state", (39,), "float32"),), action_dim=4)


class MetaWorldEnv(gymnasium.Env[Any, np.ndarray]):
    """One Meta-World task with its goal visible: reward 1 at success, where the episode ends, else
    0.

    Observation {"state": [39]}: hand, gripper and objects now and one step ago, goal (metres,
    quaternions). Action [4]: hand displacement and gripper force, in [-1, 1].
    """

    metadata: dict[str, Any] = METADATA | {"render_fps": 80}
    render_mode = "rgb_array"

    def __init__(self, name: str):
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._env: Any = ALL_V3_ENVIRONMENTS[name]()
        # The package's own benchmarks set these flags through a serialised task; a seed per episode
        # replaces it.
        self._env._partially_observable = False
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._set_task_called = True
        self._env.__dict__.pop("sawyer_observation_space", None)
        self._camera = MujocoCamera(VIEW)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the seed fixes object and goal positions."""
        super().reset(seed=seed)
        self._steps = 0
        self._env.seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        observation, _ = self._env.reset()
        return {"state": observation.astype(np.float32)}, {"success": False, "state": observation}

    def step(self, action: np.ndarray):
        """One step of 0.0125 s; ends at success (terminated) or after 200 steps (truncated)."""
        observation, _, _, _, info = self._env.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        success = bool(info["success"] > 0)
        truncated = not success and self._steps >= HORIZON
        state = {"state": observation.astype(np.float32)}
        return state, float(success), success, truncated, {"success": success, "state": observation}

    def render(self) -> np.ndarray:
        """What a camera sees, uint8 [240, 320, 3]."""
        return self._camera.picture(self._env.model, self._env.data)

    def close(self):
        """Frees the simulator."""
        self._camera.close()
        self._env.close()


def collect(name: str, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations by the scripted expert that ships with the package.

    Args:
        name: a Meta-World task, such as "peg-insert-side-v3".
        episodes: how many, failures included.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes tasks and noise.
    """
    from metaworld.policies import ENV_POLICY_MAP

    def make_expert(env: Any) -> Expert:
        expert = ENV_POLICY_MAP[name]()

        def act(observation: dict[str, np.ndarray], info: dict[str, Any]) -> np.ndarray:
            with warnings.catch_warnings():
                # the experts warn that they ask for more than [-1, 1]
                warnings.simplefilter("ignore")
                return expert.get_action(info["state"])

        return act

    env = MetaWorldEnv(name)
    result = collect_episodes(env, make_expert, episodes, noise, seed)
    env.close()
    return result


def make(name: str, reward: Reward) -> Task:
    """The task `metaworld/<name>`."""
    return Task(
        name=f"metaworld/{name}",
        make_env=functools.partial(MetaWorldEnv, name),
        spec=SPEC,
        reward=sparse_reward(reward),
        max_episode_steps=HORIZON,
        collect=functools.partial(collect, name),
        normalize=True,
        source="scripted expert with action noise",
    )


FAMILY = Family(
    names=NAMES,
    make=make,
    module="metaworld",
    extra="metaworld",
    summary="state 39, action 4, 200 steps, ends at success; scripted demonstrations",
    details=(
        "all 50 of v3. 1 at success, the package's own. Data: the package's **scripted** experts"
    ),
)
