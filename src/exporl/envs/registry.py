"""The registry of task families, and tasks by name."""

import importlib.util

from exporl.envs import (
    adroit,
    antmaze,
    driving,
    metaworld,
    mimicgen,
    ogbench,
    probes,
    pusht,
    robomimic,
)
from exporl.envs.custom import import_task
from exporl.envs.task import Family, Reward, Task
from exporl.suggest import closest, nearest

REMOTE = "remote/"
"""Before the name of a task that actors on other machines play."""
FAMILIES: dict[str, Family] = {
    "adroit": adroit.FAMILY,
    "antmaze": antmaze.FAMILY,
    "driving": driving.FAMILY,
    "metaworld": metaworld.FAMILY,
    "mimicgen": mimicgen.FAMILY,
    "ogbench": ogbench.FAMILY,
    "probe": probes.FAMILY,
    "pusht": pusht.FAMILY,
    "robomimic": robomimic.FAMILY,
}
"""Name -> family."""


def list_tasks() -> list[tuple[str, Family]]:
    """All task names, `family/name`, with their family."""
    return [
        (f"{family}/{name}", record) for family, record in FAMILIES.items() for name in record.names
    ]


def make_task(name: str, reward: Reward = "-1/0") -> Task:
    """A task by name.

    Args:
        name: `family/name`, see `exporl tasks`, or `module:function` of your own, see
            `exporl.envs.custom`.
        reward: the learning reward.

    Raises:
        ValueError: unknown task (names the closest), unknown reward convention, or a module that is
            of no use.
        ModuleNotFoundError: the task's package is not installed; names the command that installs
            it.
    """
    if ":" in name:
        return import_task(name, reward)
    if name.startswith(REMOTE):
        raise ValueError(
            f"the environments of {name} are actors on other machines, which `exporl train ... "
            "--listen HOST:PORT` waits for; the policy itself needs none (exporl serve, "
            "load_policy)."
        )
    known = dict(list_tasks())
    if name not in known:
        raise ValueError(f"unknown task {name!r}. {_which_there_are(name)}")
    family = known[name]
    if family.module is not None and importlib.util.find_spec(family.module) is None:
        raise ModuleNotFoundError(
            f"task {name!r} needs the package {family.module!r}. Install it with: pip install "
            f"'exporl[{family.extra}]'"
        )
    return family.make(name.split("/", 1)[1], reward)


def _which_there_are(name: str) -> str:
    """What to ask for instead of a name that is no task: the nearest, and where to look."""
    known = dict(list_tasks())
    lists = f"`exporl tasks` lists all {len(known)}."
    if "/" in name:
        return closest(name, known, lists)
    without_family = {task.split("/", 1)[1]: task for task in known}
    near = nearest(name, without_family)
    hint = "" if near is None else f"Did you mean {without_family[near]!r}? "
    return (
        f"{hint}{lists} They are called family/name; the families are {', '.join(FAMILIES)}. Any "
        "other gymnasium environment: module:function, a function of yours that returns it."
    )
