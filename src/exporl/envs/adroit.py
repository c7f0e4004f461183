"""Adroit binary: a 24-joint hand turns a pen, opens a door, moves a ball, hammers a nail
(gymnasium-robotics).

The environment pays 1 at every step at which the task is solved, else 0, and episodes always run to
the horizon: staying solved is worth more than reaching it once. Two measures of success come from
that: an episode succeeds when it is solved at any step, `info["success"]`; the paper reports the
fraction of time-steps solved, `info["solved_fraction"]`, which after the last step is the mean
reward of the episode.

Whether a state is solved can be read off the observation, so recorded rewards do not matter (D4RL's
and Minari's are dense): `adapt` recomputes success from the observation after each step, with the
environment's own thresholds.
"""

import contextlib
import dataclasses
import functools
import io
from typing import Any

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.cameras import METADATA, MujocoCamera
from exporl.envs.collect import Expert, collect_episodes
from exporl.envs.experts import adroit_action, load_policy
from exporl.envs.task import Family, Reward, Task, sparse_reward
from exporl.spec import Spec

NAMES = ("pen", "door", "relocate", "hammer")
HORIZONS = {"pen": 100, "door": 200, "relocate": 200, "hammer": 200}
SIZES = {"pen": (45, 24), "door": (39, 28), "relocate": (39, 30), "hammer": (46, 26)}
"""Numbers in an observation and in an action."""
NOTES = {
    "pen": (
        "24 joints, pen position, velocity (6) and direction, wanted direction, offsets to the goal"
        " (3 + 3)"
    ),
    "door": (
        "27 joints, latch, hinge (rad), palm and handle position, their offset, 1 if open else -1"
    ),
    "relocate": "30 joints, offsets palm - ball, palm - goal, ball - goal",
    "hammer": (
        "26 joints and the nail's depth, hammer velocity (6), palm, hammer (6) and nail position, "
        "nail force"
    ),
}
EXPERTS = ("pen", "door", "relocate")


def solved(name: str, state: np.ndarray) -> np.ndarray:
    """Whether states [..., o] are solved, [...] bool, by the thresholds of the environments.

    pen: within 0.075 m of the goal and cosine to the wanted direction above 0.95; door: hinge at
    1.35 rad or more; relocate: ball within 0.1 m of the goal; hammer: nail within 0.01 m of the
    depth of 0.091 m.
    """
    if name == "pen":
        cosine = np.sum(state[..., 33:36] * state[..., 36:39], axis=-1)
        there = (np.linalg.norm(state[..., 39:42], axis=-1) < 0.075) & (cosine > 0.95)
    elif name == "door":
        there = state[..., 28] >= 1.35
    elif name == "relocate":
        there = np.linalg.norm(state[..., 36:39], axis=-1) < 0.1
    else:
        there = np.abs(0.091 - state[..., 26]) < 0.01
    return np.asarray(there)


class AdroitEnv(gymnasium.Env[Any, np.ndarray]):
    """One Adroit task: reward 1 at solved steps, else 0; never terminates, truncated at the
    horizon.

    Observation {"state": [o]}, see `NOTES` (metres, radians). Action: targets of all joints, [-1,
    1] over their ranges.
    """

    metadata: dict[str, Any] = METADATA
    render_mode = "rgb_array"

    def __init__(self, name: str):
        # the package prints a notice about versions
        with contextlib.redirect_stderr(io.StringIO()):
            from gymnasium_robotics.envs.adroit_hand.adroit_door import AdroitHandDoorEnv
            from gymnasium_robotics.envs.adroit_hand.adroit_hammer import AdroitHandHammerEnv
            from gymnasium_robotics.envs.adroit_hand.adroit_pen import AdroitHandPenEnv
            from gymnasium_robotics.envs.adroit_hand.adroit_relocate import AdroitHandRelocateEnv
        makers = {
            "pen": AdroitHandPenEnv,
            "door": AdroitHandDoorEnv,
            "relocate": AdroitHandRelocateEnv,
            "hammer": AdroitHandHammerEnv,
        }
        size, actions = SIZES[name]
        self.name = name
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions,), np.float32)
        self._env: Any = makers[name]()
        self._camera = MujocoCamera("vil_camera")
        self._steps = self._solved_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Starts an episode; the seed fixes goal and object positions."""
        super().reset(seed=seed)
        self._steps = self._solved_steps = 0
        observation, _ = self._env.reset(
            seed=int(self.np_random.integers(2**31)) if seed is None else seed
        )
        return {"state": observation.astype(np.float32)}, self._info(
            bool(solved(self.name, observation))
        )

    def step(self, action: np.ndarray):
        """One step of 0.01 s."""
        observation, _, _, _, info = self._env.step(np.clip(action, -1.0, 1.0))
        success = bool(info["success"])
        self._steps += 1
        self._solved_steps += success
        truncated = self._steps >= HORIZONS[self.name]
        return (
            {"state": observation.astype(np.float32)},
            float(success),
            False,
            truncated,
            self._info(success),
        )

    def _info(self, success: bool) -> dict[str, Any]:
        return {"success": success, "solved_fraction": self._solved_steps / HORIZONS[self.name]}

    def render(self) -> np.ndarray:
        """What a camera sees, uint8 [240, 320, 3]."""
        return self._camera.picture(self._env.model, self._env.data)

    def close(self):
        """Frees the simulator."""
        self._camera.close()
        self._env.close()


def adapt(name: str, episode: Episode) -> Episode:
    """An episode of any Adroit file in this task's terms: success and 0/1 reward recomputed from
    the observations.

    Recorded ends are dropped (the task has none), actions are clipped to [-1, 1] as the environment
    clips them.

    Raises:
        ValueError: the observations are not this task's, so success cannot be known.
    """
    size, actions = SIZES[name]
    state = episode.observations.get("state")
    if state is None or state.shape[1:] != (size,):
        found = (
            sorted(episode.observations) if state is None else f"rows of shape {state.shape[1:]}"
        )
        raise ValueError(
            f"success in adroit/{name} is computed from observations['state'] with rows of {size} "
            f"numbers; found {found}. Is this the right file for the task?"
        )
    if episode.actions.shape[1:] != (actions,):
        raise ValueError(
            f"actions have rows of shape {episode.actions.shape[1:]}, adroit/{name} needs "
            f"({actions},)."
        )
    successes = solved(name, state[1:])
    return dataclasses.replace(
        episode,
        observations={"state": state.astype(np.float32)},
        actions=np.clip(episode.actions, -1.0, 1.0).astype(np.float32),
        rewards=successes.astype(np.float32),
        successes=successes,
        terminated=False,
    )


def collect(name: str, episodes: int, noise: float, seed: int) -> list[Episode]:
    """Demonstrations by the DAPG expert that ships with the package (mean actions).

    Args:
        name: "pen", "door" or "relocate".
        episodes: how many, failures included.
        noise: standard deviation of Gaussian noise added to every action before clipping to [-1,
            1].
        seed: fixes starts, goals and noise.
    """
    policy = load_policy("adroit_experts", name)

    def make_expert(env: gymnasium.Env) -> Expert:
        return lambda observation, info: adroit_action(policy, observation["state"])

    env = AdroitEnv(name)
    result = collect_episodes(env, make_expert, episodes, noise, seed)
    env.close()
    return result


def make(name: str, reward: Reward) -> Task:
    """The task `adroit/<name>`."""
    size, actions = SIZES[name]
    return Task(
        name=f"adroit/{name}",
        make_env=functools.partial(AdroitEnv, name),
        spec=Spec((("state", (size,), "float32"),), action_dim=actions),
        reward=sparse_reward(reward),
        max_episode_steps=HORIZONS[name],
        collect=functools.partial(collect, name) if name in EXPERTS else None,
        normalize=True,
        source="DAPG expert with action noise, D4RL and Minari files"
        if name in EXPERTS else "D4RL and Minari files",
        adapt=functools.partial(adapt, name),
        observation_note=NOTES[name],
        reward_note="1 at every solved step, else 0; never ends early",
        control_hz=100.0,
    )  # fmt: skip


FAMILY = Family(
    names=NAMES,
    make=make,
    module="gymnasium_robotics",
    extra="adroit",
    summary=(
        "state 39-46, action 24-30, 100-200 steps, solved steps count; experts for pen, door, "
        "relocate"
    ),
    details=(
        "1 at every solved step, never ends early. Success: solved at any step; "
        '`info["solved_fraction"]` is the paper\'s share of solved steps. Data: D4RL and Minari '
        "files; DAPG expert policies (shipped, Apache-2.0) for pen, door, relocate: **policies, "
        "not human**"
    ),
)
