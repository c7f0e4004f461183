"""Checks that a task keeps its promises, see `Task`, and says how to mend those it does not."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import gymnasium
import numpy as np

from exporl.data.episodes import Episode
from exporl.envs.check_case import Case, Play, Skip, floats, long_play, play_episode, random_actions
from exporl.envs.check_data import demonstrations, rewards, statistics
from exporl.envs.task import Task
from exporl.randomness import env_seed
from exporl.spec import state_spec

SHORT = 25
"""Steps of the episodes that are played several times."""
ALIKE, FEWEST = 2, 5
"""So many failures after the same number of steps, and no fewer steps, may be a time limit."""


class Finding(NamedTuple):
    """The outcome of one check."""

    name: str
    status: Literal["pass", "fail", "skip", "warn"]
    detail: str
    """What was measured; for a failure or a warning what is wrong and how to mend it, for a skipped
    check why."""


def check_task(
    task: Task,
    episodes: Sequence[Episode] | None = None,
    *,
    demos: int = 3,
    demo_noise: float = 0.1,
    seed: int = 0,
) -> Iterator[Finding]:
    """Plays the task and yields one finding per promise.

    Args:
        task: what to check.
        episodes: recorded data, adapted to the task; by default `demos` episodes of its expert, if
            it has one.
        demos: how many demonstrations to collect (0: none).
        demo_noise: standard deviation of the noise on their actions.
        seed: fixes actions and starts.
    """
    try:
        env = task.make_env()
    except Exception as error:  # an environment may raise anything
        yield Finding(
            "builds",
            "fail",
            f"make_env() raised {_name(error)}. Mend the environment's constructor.",
        )
        return
    yield Finding("builds", "pass", type(env.unwrapped).__name__)
    case = Case(task, env, seed, episodes, demos, demo_noise)
    for name, check in _CHECKS.items():
        try:
            found, detail = check(case)
        except Skip as reason:
            yield Finding(name, "skip", str(reason))
        except Exception as error:
            yield Finding(
                name,
                "fail",
                f"raised {_name(error)}. Mend reset() or step(), or what {name!r} needs.",
            )
        else:
            yield Finding(name, "fail" if found else "pass", " ".join(found) or detail)
    env.close()


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")


def _spaces(case: Case) -> tuple[list[str], str]:
    spec, spaces, found = case.task.spec, case.env.observation_space, []
    if not isinstance(spaces, gymnasium.spaces.Dict):
        return [
            f"the observation space is {spaces}; it must be a Dict with the entries of Task.spec."
        ], ""
    wanted = {name: (shape, dtype) for name, shape, dtype in spec.observation}
    for name in sorted(set(wanted) ^ set(spaces.spaces)):
        where, lacking = (
            ("Task.spec", "the space") if name in wanted else ("the space", "Task.spec")
        )
        found.append(f"{where} has the observation {name!r}, {lacking} has not.")
    for name in sorted(set(wanted) & set(spaces.spaces)):
        is_, (shape, dtype) = spaces[name], wanted[name]
        if is_.shape != shape or str(is_.dtype) != dtype:
            found.append(
                f"observation {name!r} is {is_.shape} {is_.dtype}, Task.spec says {shape} {dtype}."
            )
    space = case.env.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        found.append(f"the action space is {space}; it must be a Box.")
    elif space.shape != (spec.action_dim,):
        found.append(f"actions have the shape {space.shape}, Task.spec says ({spec.action_dim},).")
    elif not ((space.low == -1).all() and (space.high == 1).all()):
        low, high = float(space.low.min()), float(space.high.max())
        found.append(
            f"action bounds are [{low:g}, {high:g}], they must be [-1, 1]. Rescale the actions in a"
            " wrapper."
        )
    try:
        state_spec(spec)
    except ValueError as error:
        found.append(str(error))
    entries = ", ".join(f"{name} {dtype}{list(shape)}" for name, shape, dtype in spec.observation)
    return found, f"{entries}; action [{spec.action_dim}] in [-1, 1]"


def _plays(case: Case) -> tuple[list[str], str]:
    began, limit = time.perf_counter(), case.task.max_episode_steps
    case.long = play_episode(
        case.env, env_seed(case.seed, 0), random_actions(case.task, case.seed, limit + 1)
    )
    case.took_s = time.perf_counter() - began
    return [], f"{len(case.long.rewards)} steps of random actions"


def _observations(case: Case) -> tuple[list[str], str]:
    play, found = long_play(case), []
    for step, observation in enumerate(play.observations):
        where = "after reset" if step == 0 else f"after step {step}"
        for name, shape, dtype in case.task.spec.observation:
            if name not in observation:
                found.append(
                    f"{name!r} is missing {where}; the observation has {sorted(observation)}."
                )
                continue
            value = observation[name]
            if value.shape != shape or str(value.dtype) != dtype:
                found.append(
                    f"{name!r} is {value.shape} {value.dtype} {where}, Task.spec says {shape} "
                    f"{dtype}."
                )
            if floats(value) and not np.isfinite(value).all():
                found.append(
                    f"{name!r} holds NaN or infinity {where}. Check the environment's sensors."
                )
        if found:
            break
    if play.altered:
        found.append(
            f"{play.altered!r} changed after it was returned. Return a copy, not the array you keep"
            " writing to."
        )
    values = [
        np.abs(v).max() for o in play.observations for v in o.values() if floats(v) and v.size
    ]
    return found, f"finite, largest magnitude {max(values, default=0.0):.3g}"


def _success(case: Case) -> tuple[list[str], str]:
    for step, info in enumerate(long_play(case).infos):
        where = "reset" if step == 0 else f"step {step}"
        if "success" not in info:
            return [
                f"the info of {where} has no 'success'. Set info['success'] = bool(...) in every "
                "reset and step."
            ], ""
        if not isinstance(info["success"], bool | np.bool_):
            kind = type(info["success"]).__name__
            return [
                f"info['success'] of {where} is {kind} {info['success']!r}, not bool. Wrap it in "
                "bool()."
            ], ""
    solved = any(info["success"] for info in long_play(case).infos)
    return [], "in every info" + (", reached by random actions" if solved else "")


def _fault_of_ending(play: Play, limit: int) -> str | None:
    steps, (terminated, truncated) = len(play.rewards), play.endings[-1]
    for kind, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, bool | np.bool_):
            return f"{kind} is {type(value).__name__} {value!r}, not bool."
    if terminated and truncated:
        return (
            f"step {steps} is terminated and truncated. A true end is terminated alone, a time "
            "limit truncated."
        )
    if steps > limit:
        return (
            f"no end after {steps} steps, max_episode_steps is {limit}. Truncate there (gymnasium's"
            " TimeLimit)."
        )
    if truncated and steps < limit:
        return (
            f"truncated after {steps} steps, max_episode_steps is {limit}. Make them agree; a "
            "failure is terminated."
        )
    if terminated and steps == limit and not play.infos[-1]["success"]:
        return (
            f"the time limit of {limit} steps shows as terminated. Report it as truncated: values "
            "go on beyond it."
        )
    return None


def _endings(case: Case) -> tuple[list[str], str]:
    plays, limit = [long_play(case)], case.task.max_episode_steps
    for episode in (1, 2):
        if len(plays[-1].rewards) < limit:
            actions = random_actions(case.task, case.seed + episode, limit + 1)
            plays.append(play_episode(case.env, env_seed(case.seed, episode), actions))
    for play in plays:
        if fault := _fault_of_ending(play, limit):
            return [fault], ""
    ends = [
        f"{'truncated' if play.endings[-1][1] else 'terminated'} after {len(play.rewards)}"
        for play in plays
    ]
    if not any(play.endings[-1][1] for play in plays):
        if fault := _own_limit(case, plays):
            return [fault], ""
        raise Skip(f"random actions never reached the limit of {limit} steps: {', '.join(ends)}")
    return [], ", ".join(ends)


def _own_limit(case: Case, plays: list[Play]) -> str:
    """A sentence where episodes end as terminated after the same number of steps whatever is done:
    that is a time limit."""
    if (length := _failures(plays)) is None:
        return ""
    limit, shape = case.task.max_episode_steps, (case.task.spec.action_dim,)
    for number, value in enumerate((0.0, 1.0, -1.0)):
        actions = np.full((limit + 1, *shape), value, np.float32)
        plays.append(play_episode(case.env, env_seed(case.seed, 30, number), actions))
    late = sum(_failed(play) and len(play.rewards) == length for play in plays)
    if _failures(plays) != length or late < ALIKE + 1:
        return ""
    return (
        f"{late} of {len(plays)} episodes, of random and of constant actions, end as terminated "
        f"after exactly {length} steps, without success: a time limit of the environment's own, "
        f"below max_episode_steps {limit}? Report it as truncated: values go on beyond it."
    )


def _failures(plays: list[Play]) -> int | None:
    """The length of the longest episodes, where several of them failed and none went on."""
    length = max(len(play.rewards) for play in plays)
    alike = sum(_failed(play) and len(play.rewards) == length for play in plays)
    return length if length >= FEWEST and alike >= ALIKE else None


def _failed(play: Play) -> bool:
    return bool(play.endings[-1][0]) and not any(info.get("success") for info in play.infos)


def _determinism(case: Case) -> tuple[list[str], str]:
    actions, seed = random_actions(case.task, case.seed, SHORT), env_seed(case.seed, 7)
    first = play_episode(case.env, seed, actions)
    other = play_episode(case.env, env_seed(case.seed, 8), -actions)
    found = _difference(
        first, play_episode(case.env, seed, actions), "again, after another episode"
    )
    if not found:
        fresh = case.task.make_env()
        found = _difference(first, play_episode(fresh, seed, actions), "in a new environment")
        fresh.close()
    same = all(
        np.array_equal(v, other.observations[0][name]) for name, v in first.observations[0].items()
    )
    starts = "another seed has the same start" if same else "another seed has another start"
    return (
        found,
        f"{len(first.rewards)} steps repeated bit for bit, also in a new environment; {starts}",
    )


def _difference(a: Play, b: Play, when: str) -> list[str]:
    advice = (
        "reset(seed) must fix everything: seed every generator and forget everything of the episode"
        " before."
    )
    for step, (one, two) in enumerate(zip(a.observations, b.observations, strict=False)):
        for name in one:
            if not np.array_equal(one[name], two[name], equal_nan=floats(one[name])):
                gap = float(
                    np.nanmax(np.abs(one[name].astype(np.float64) - two[name].astype(np.float64)))
                )
                return [
                    f"{name!r} differs by {gap:.2g} at step {step} of the same seed and actions "
                    f"{when}. {advice}"
                ]
        if step and a.rewards[step - 1] != b.rewards[step - 1]:
            pair = f"{a.rewards[step - 1]} and {b.rewards[step - 1]}"
            return [f"step {step} of the same seed and actions pays {pair} {when}. {advice}"]
    if a.endings != b.endings:
        return [
            f"{len(a.endings)} and {len(b.endings)} steps for the same seed and actions {when}. "
            f"{advice}"
        ]
    return []


def _speed(case: Case) -> tuple[list[str], str]:
    rate = len(long_play(case).rewards) / case.took_s
    hz = case.task.control_hz
    return [], f"{rate:,.0f} steps/s" + (
        f", {rate / hz:.1f} times the task's {hz:g} Hz" if hz else ""
    )


_CHECKS: dict[str, Callable[[Case], tuple[list[str], str]]] = {
    "spaces": _spaces,
    "plays": _plays,
    "observations": _observations,
    "success": _success,
    "endings": _endings,
    "determinism": _determinism,
    "demonstrations": demonstrations,
    "rewards": rewards,
    "statistics": statistics,
    "speed": _speed,
}
