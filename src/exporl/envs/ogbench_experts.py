"""Plans for OGBench's manipulation tasks: which object to move next; OGBench's closed-loop oracles
do the moving."""

import itertools
from typing import Any, NamedTuple

import numpy as np

from exporl.envs.collect import Expert

_DONE_HEIGHT = {"cube": 0.17, "button": 0.17, "drawer": 0.19, "window": 0.29}
"""A finished subtask ends when the gripper is this high above the table (metres), clear of what it
held."""
_OPEN = -0.16
"""Position of the open drawer."""


class Subtask(NamedTuple):
    """One object to bring somewhere."""

    kind: str
    """"cube", "button", "drawer" or "window"."""
    index: int
    target: np.ndarray
    """Cube: position [3]. Drawer, window: position [1]. Button: wanted state [1]."""


def presses(difference: np.ndarray) -> np.ndarray:
    """The fewest buttons [rows, columns] to press so that exactly the states [rows, columns] marked
    1 flip.

    A button flips itself and its four neighbours. The first row of presses decides all others, so
    all first rows are tried. Zeros where it cannot be done.
    """
    rows, columns = difference.shape
    best = np.zeros_like(difference)
    found = False
    for first in itertools.product((0, 1), repeat=columns):
        press, left = np.zeros_like(difference), difference.copy()
        for row in range(rows):
            press[row] = first if row == 0 else left[row - 1]
            for column in np.flatnonzero(press[row]):
                for i, j in (
                    (row, column),
                    (row - 1, column),
                    (row + 1, column),
                    (row, column - 1),
                    (row, column + 1),
                ):
                    if 0 <= i < rows and 0 <= j < columns:
                        left[i, j] ^= 1
        if not left.any() and (not found or press.sum() < best.sum()):
            best, found = press, True
    return best


def next_cube(now: np.ndarray, goal: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Which cube to move where, [cubes, 3] positions given; None when all are in place.

    Cubes go to the lowest goals first; a cube whose goal is taken or not yet supported waits, and
    where all wait one is put aside.
    """

    def on_top(i: int) -> bool:
        apart = np.linalg.norm(now[:, :2] - now[i, :2], axis=1)
        return bool(((apart < 0.03) & (now[:, 2] > now[i, 2] + 0.02)).any())

    wrong = [
        int(i)
        for i in np.argsort(goal[:, 2], kind="stable")
        if np.linalg.norm(now[i] - goal[i]) > 0.03
    ]
    for i in wrong:
        others = np.delete(now, i, axis=0)
        near = np.linalg.norm(others[:, :2] - goal[i, :2], axis=1)
        taken = ((near < 0.06) & (others[:, 2] > goal[i, 2] - 0.02)).any()
        stands = (
            goal[i, 2] < 0.03
            or ((near < 0.03) & (np.abs(others[:, 2] - goal[i, 2] + 0.04) < 0.015)).any()
        )
        if stands and not taken and not on_top(i):
            return i, goal[i]
    free = [
        np.array([x, y, 0.02]) for x in (0.35, 0.45, 0.52) for y in (-0.22, -0.11, 0.0, 0.11, 0.22)
    ]
    room = [
        np.linalg.norm(np.concatenate([now, goal])[:, :2] - spot[:2], axis=1).min() for spot in free
    ]
    for i in wrong + [i for i in range(len(now)) if i not in wrong]:
        if wrong and not on_top(i):
            return i, free[int(np.argmax(room))]
    return None


def next_subtask(table: Any, info: dict[str, Any]) -> Subtask | None:
    """What to do next in OGBench's environment `table` with observation facts `info`; None when all
    is done."""
    if hasattr(table, "_num_rows"):
        shape = (table._num_rows, table._num_cols)
        wrong = (table._cur_button_states != table._target_button_states).astype(int).reshape(shape)
        wanted = np.flatnonzero(presses(wrong))
        if not len(wanted):
            return None
        tops = np.array([table._data.site_xpos[table._button_site_ids[i]] for i in wanted])
        nearest = wanted[np.linalg.norm(tops - info["proprio/effector_pos"], axis=1).argmin()]
        return _press(table, int(nearest))
    count = table._num_cubes
    now = np.array([info[f"privileged/block_{i}_pos"] for i in range(count)])
    goal = np.array([table._data.mocap_pos[table._cube_target_mocap_ids[i]] for i in range(count)])
    if hasattr(table, "_num_buttons"):
        return _next_in_scene(table, now[0], goal[0])
    found = next_cube(now, goal)
    return None if found is None else Subtask("cube", *found)


def _press(table: Any, index: int) -> Subtask:
    return Subtask("button", index, np.array([1 - table._cur_button_states[index]]))


def _next_in_scene(table: Any, cube: np.ndarray, goal: np.ndarray) -> Subtask | None:
    """A drawer and a window that buttons 0 and 1 lock (state 0), and a cube that may belong in the
    drawer."""
    drawer, window = (
        float(table._data.joint(f"{name}_slide").qpos[0]) for name in ("drawer", "window")
    )
    stored = goal[1] < -0.3
    away = not table._is_in_drawer(cube) if stored else np.linalg.norm(cube - goal) > 0.03
    wanted = {
        "drawer": _OPEN if stored and away else table._target_drawer_pos,
        "window": table._target_window_pos,
    }
    for lock, (name, position) in enumerate((("drawer", drawer), ("window", window))):
        if abs(position - wanted[name]) > 0.03:
            if table._cur_button_states[lock] == 0:
                return _press(table, lock)
            return Subtask(name, 0, np.array([wanted[name]]))
    if away:
        return Subtask("cube", 0, table._drawer_center if stored else goal)
    for index in range(table._num_buttons):
        if table._cur_button_states[index] != table._target_button_states[index]:
            return _press(table, index)
    return None


def _facts(table: Any, info: dict[str, Any], subtask: Subtask) -> dict[str, Any]:
    """`info` with what the oracles want to know about their target."""
    facts = dict(info)
    if subtask.kind == "cube":
        facts |= {
            "privileged/target_block": subtask.index,
            "privileged/target_block_pos": subtask.target,
            "privileged/target_block_yaw": np.zeros(1),
        }
    elif subtask.kind == "button":
        top = table._data.site_xpos[table._button_site_ids[subtask.index]].copy()
        facts |= {
            "privileged/target_button": subtask.index,
            "privileged/target_button_top_pos": top,
            "privileged/target_button_state": int(subtask.target[0]),
        }
    else:
        joint = table._data.joint(f"{subtask.kind}_slide")
        way = joint.xaxis * (subtask.target[0] - joint.qpos[0])
        facts[f"privileged/target_{subtask.kind}_handle_pos"] = (
            info[f"privileged/{subtask.kind}_handle_pos"] + way
        )
    return facts


def _met(table: Any, info: dict[str, Any], subtask: Subtask) -> bool:
    if subtask.kind == "cube":
        return bool(
            np.linalg.norm(info[f"privileged/block_{subtask.index}_pos"] - subtask.target) <= 0.03
        )
    if subtask.kind == "button":
        return bool(table._cur_button_states[subtask.index] == subtask.target[0])
    return bool(
        abs(table._data.joint(f"{subtask.kind}_slide").qpos[0] - subtask.target[0]) <= 0.015
    )


def _over(table: Any, info: dict[str, Any], subtask: Subtask) -> bool:
    return bool(info["proprio/effector_pos"][2] > _DONE_HEIGHT[subtask.kind]) and _met(
        table, info, subtask
    )


def manipulation_expert(env: Any) -> Expert:
    """An expert for one episode of a `ManipulationEnv`: plans a subtask, follows OGBench's oracle
    for it, plans again."""
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle

    table = env.unwrapped.table
    oracles: dict[str, Any] = {
        "cube": CubeMarkovOracle(env=table),
        "button": ButtonMarkovOracle(env=table, gripper_always_closed=hasattr(table, "_num_rows")),
        "drawer": DrawerMarkovOracle(env=table),
        "window": WindowMarkovOracle(env=table),
    }
    subtask: Subtask | None = None

    def plan(info: dict[str, Any]) -> None:
        nonlocal subtask
        subtask = next_subtask(table, info)
        if subtask is not None:
            oracle = oracles[subtask.kind]
            oracle.reset(None, info)
            # otherwise of global randomness
            oracle._final_pos, oracle._final_yaw = np.array([0.425, 0.0, 0.33]), 0.0

    def act(observation: dict[str, np.ndarray], info: dict[str, Any]) -> np.ndarray:
        facts = table.compute_ob_info()
        if subtask is None or oracles[subtask.kind].done or _over(table, facts, subtask):
            plan(facts)
        if subtask is None:
            return np.zeros(5)
        return oracles[subtask.kind].select_action(None, _facts(table, facts, subtask))

    return act
