"""MimicGen (arXiv 2310.17596): its published tasks and files, on robosuite 1.4.1.

stack_d0, stack_d1 and square_d0 are scenes of robosuite itself. The others need the package
`mimicgen`, which is not on the package index in a usable form; without it their files can be read
and inspected, but not trained on.
"""

import dataclasses
import functools

import numpy as np

from exporl.data.episodes import Episode
from exporl.envs import robosuite_scenes
from exporl.envs.robosuite_experts import SCRIPTS, collect
from exporl.envs.robosuite_scenes import CONTROL_HZ, SQUARE, STACK, RobosuiteEnv, Scene
from exporl.envs.task import Family, Reward, Task, sparse_reward

_NUT = SQUARE.layouts[0]


def _scene(env: str, horizon: int, layout: str) -> Scene:
    return Scene(env, horizon, (layout,), package="mimicgen", hard_reset=True)


def _objects(names: str) -> str:
    return " ".join(f"{name} {name}@eef" for name in names.split())


_THREE = "a b a-eef b-eef b-a c c-eef c-a b-c"
SCENES = {
    "stack_d0": STACK,
    "stack_d1": dataclasses.replace(STACK, spread=0.2),
    "square_d0": SQUARE,
    "square_d1": _scene("Square_D1", 400, f"{_NUT} peg"),
    "stack_three_d0": _scene("StackThree_D0", 400, _THREE),
    "stack_three_d1": _scene("StackThree_D1", 400, _THREE),
    "threading_d0": _scene("Threading_D0", 400, _objects("needle tripod")),
    "threading_d1": _scene("Threading_D1", 400, _objects("needle tripod")),
    "coffee_d0": _scene("Coffee_D0", 400, _objects("pod machine holder lid") + " hinge"),
    "coffee_d1": _scene("Coffee_D1", 400, _objects("pod machine holder lid") + " hinge"),
    "three_piece_assembly_d0": _scene("ThreePieceAssembly_D0", 500, _objects("base first second")),
    "three_piece_assembly_d1": _scene("ThreePieceAssembly_D1", 500, _objects("base first second")),
    "hammer_cleanup_d0": _scene("HammerCleanup_D0", 400, _objects("hammer drawer")),
    "hammer_cleanup_d1": _scene("HammerCleanup_D1", 400, _objects("hammer drawer")),
    "nut_assembly_d0": _scene("NutAssembly_D0", 700, _objects("square round")),
    "pick_place_d0": _scene("PickPlace_D0", 1000, _objects("milk bread cereal can")),
}
"""Horizons as EXPO used them, for the tasks that it has not MimicGen's own."""


def adapt(scene: Scene, episode: Episode) -> Episode:
    """As `robosuite_scenes.adapt`; where the file has no rewards, the last step counts as the
    success.

    MimicGen keeps only demonstrations that succeed and stops recording there. Raises as
    `robosuite_scenes.adapt` does.
    """
    if "state" not in episode.observations and not episode.success and not episode.rewards.any():
        successes = np.zeros(len(episode), bool)
        successes[-1] = True
        episode = dataclasses.replace(episode, successes=successes)
    return robosuite_scenes.adapt(scene, episode)


def make(name: str, reward: Reward) -> Task:
    """The task `mimicgen/<name>`."""
    scene = SCENES[name]
    scripted = scene.env in SCRIPTS
    return Task(
        name=f"mimicgen/{name}",
        make_env=functools.partial(RobosuiteEnv, scene),
        spec=scene.spec,
        reward=sparse_reward(reward),
        max_episode_steps=scene.horizon,
        collect=functools.partial(collect, scene) if scripted else None,
        normalize=True,
        source=(
            "scripted, not MimicGen's; its files with --data"
            if scripted
            else "MimicGen's files (no script)"
        ),
        adapt=functools.partial(adapt, scene),
        observation_note="object, then position, quaternion and fingers of the gripper",
        control_hz=CONTROL_HZ,
    )


FAMILY = Family(
    names=tuple(SCENES),
    make=make,
    module="robosuite",
    extra="robomimic",
    summary=(
        "state 26-66, action 7, 200-1000 steps, ends at success; stack, square_d0 here, others need"
        " mimicgen"
    ),
    details=(
        "MimicGen's tasks; stack_d0, stack_d1 and square_d0 run without its package. 1 at success, "
        "robosuite's own. Data: MimicGen files (generated from human demonstrations); state "
        "machines for stack and square: **scripted, not MimicGen's**"
    ),
)
