"""robomimic (arXiv 2108.03298): five manipulation tasks on robosuite 1.4.1, the version of its
`low_dim_v141` files.

Later robosuite versions (1.5) order the observations and load controllers differently; 1.4.1
installs beside the other simulators with mujoco 3.3.0, newer MuJoCo versions break it.
"""

import functools

from exporl.envs.robosuite_experts import SCRIPTS, collect
from exporl.envs.robosuite_scenes import (
    CAN,
    CONTROL_HZ,
    LIFT,
    SQUARE,
    TOOL_HANG,
    TRANSPORT,
    RobosuiteEnv,
    adapt,
)
from exporl.envs.task import Family, Reward, Task, sparse_reward

SCENES = {
    "lift": LIFT,
    "can": CAN,
    "square": SQUARE,
    "tool_hang": TOOL_HANG,
    "transport": TRANSPORT,
}


def make(name: str, reward: Reward) -> Task:
    """The task `robomimic/<name>`."""
    scene = SCENES[name]
    scripted = scene.env in SCRIPTS
    return Task(
        name=f"robomimic/{name}",
        make_env=functools.partial(RobosuiteEnv, scene),
        spec=scene.spec,
        reward=sparse_reward(reward),
        max_episode_steps=scene.horizon,
        collect=functools.partial(collect, scene) if scripted else None,
        normalize=True,
        source=(
            "scripted, not human; robomimic's human files with --data"
            if scripted
            else "robomimic's files (no script)"
        ),
        adapt=functools.partial(adapt, scene),
        observation_note="object, then position, quaternion and fingers of each gripper",
        control_hz=CONTROL_HZ,
    )


FAMILY = Family(
    names=tuple(SCENES),
    make=make,
    module="robosuite",
    extra="robomimic",
    summary=(
        "state 19-59, action 7 (14 for transport), 400 or 700 steps, ends at success; robomimic "
        "files or scripts"
    ),
    details=(
        "1 at success, robosuite's own. Data: robomimic files (human); state machines for lift, "
        "can, square: **scripted, not human**"
    ),
)
