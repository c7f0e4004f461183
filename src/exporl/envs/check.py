"""Checks that a task keeps its promises, see `Task`, and says how to mend those it does not."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np

from exporl.data.episodes import Episode, Normalizer, faults
from exporl.envs.task import Task, env_seed

SPARSE, ENOUGH = 4, 60
"""A reward that takes at most so many different values in so many steps is sparse, and compared value by value."""
SHORT = 25
"""Steps of the episodes that are played several times."""
STARTS = 5
"""Starts that are compared with the data."""
CLIPPED = 0.2
"""Largest share of the starts' observation values that normalisation may clip."""


class Finding(NamedTuple):
    """The outcome of one check."""

    name: str
    status: Literal["pass", "fail", "skip"]
    detail: str
    """What was measured; for a failure what is wrong and how to mend it, for a skipped check why."""


class _Skip(Exception):
    """The check does not apply here."""


class _Play(NamedTuple):
    """What an environment answered in one episode; observations and infos from the reset on."""

    observations: list[dict[str, np.ndarray]]
    infos: list[dict[str, Any]]
    rewards: list[Any]
    endings: list[tuple[Any, Any]]
    altered: str
    """Name of an observation that was changed after it had been returned, if any."""


@dataclasses.dataclass
class _Case:
    """A task under examination and what is known about it so far."""

    task: Task
    env: gymnasium.Env
    seed: int
    episodes: Sequence[Episode] | None
    demos: int
    demo_noise: float
    long: _Play | None = None
    took_s: float = 0.0


def check_task(
    task: Task, episodes: Sequence[Episode] | None = None, *, demos: int = 3, demo_noise: float = 0.1, seed: int = 0
) -> Iterator[Finding]:
    """Plays the task and yields one finding per promise.

    Args:
        task: what to check.
        episodes: recorded data, adapted to the task; by default `demos` episodes of its expert, if it has one.
        demos: how many demonstrations to collect (0: none).
        demo_noise: standard deviation of the noise on their actions.
        seed: fixes actions and starts.
    """
    try:
        env = task.make_env()
    except Exception as error:  # an environment may raise anything
        yield Finding("builds", "fail", f"make_env() raised {_name(error)}. Mend the environment's constructor.")
        return
    yield Finding("builds", "pass", type(env.unwrapped).__name__)
    case = _Case(task, env, seed, episodes, demos, demo_noise)
    for name, check in _CHECKS.items():
        try:
            found, detail = check(case)
        except _Skip as reason:
            yield Finding(name, "skip", str(reason))
        except Exception as error:
            yield Finding(name, "fail", f"raised {_name(error)}. Mend reset() or step(), or what {name!r} needs.")
        else:
            yield Finding(name, "fail" if found else "pass", " ".join(found) or detail)
    env.close()


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".")


def _actions(task: Task, seed: int, steps: int, corners: bool = True) -> np.ndarray:
    """Uniformly random actions [steps, a]; the first two lie in corners, where bounds would bite."""
    actions = np.random.default_rng((seed, 1)).uniform(-1, 1, (steps, task.spec.action_dim)).astype(np.float32)
    if corners:
        actions[:1], actions[1:2] = -1, 1
    return actions


def _play(env: gymnasium.Env, seed: int, actions: np.ndarray) -> _Play:
    """One episode, ended by the environment or by the end of the actions."""
    observation, info = env.reset(seed=seed)
    observations, infos, rewards, endings, altered = [_copy(observation)], [dict(info)], [], [], ""
    for action in actions:
        before, kept = observation, observations[-1]
        observation, reward, terminated, truncated, info = env.step(action.copy())
        changed = [name for name in kept if not np.array_equal(before[name], kept[name], equal_nan=_floats(kept[name]))]
        altered = altered or "".join(changed[:1])
        observations.append(_copy(observation))
        infos.append(dict(info))
        rewards.append(reward)
        endings.append((terminated, truncated))
        if terminated or truncated:
            break
    return _Play(observations, infos, rewards, endings, altered)


def _copy(observation: Any) -> dict[str, np.ndarray]:
    if not isinstance(observation, dict):
        raise TypeError(f"observations must be dictionaries of arrays, got {type(observation).__name__}")
    return {name: np.array(value) for name, value in observation.items()}


def _floats(value: np.ndarray) -> bool:
    return np.issubdtype(value.dtype, np.floating)


def _long(case: _Case) -> _Play:
    """An episode of random actions, one step longer than the time limit allows."""
    if case.long is None:
        raise _Skip("no episode could be played, see 'plays'")
    return case.long


def _spaces(case: _Case) -> tuple[list[str], str]:
    spec, spaces, found = case.task.spec, case.env.observation_space, []
    if not isinstance(spaces, gymnasium.spaces.Dict):
        return [f"the observation space is {spaces}; it must be a Dict with the entries of Task.spec."], ""
    wanted = {name: (shape, dtype) for name, shape, dtype in spec.observation}
    for name in sorted(set(wanted) ^ set(spaces.spaces)):
        where, lacking = ("Task.spec", "the space") if name in wanted else ("the space", "Task.spec")
        found.append(f"{where} has the observation {name!r}, {lacking} has not.")
    for name in sorted(set(wanted) & set(spaces.spaces)):
        is_, (shape, dtype) = spaces[name], wanted[name]
        if is_.shape != shape or str(is_.dtype) != dtype:
            found.append(f"observation {name!r} is {is_.shape} {is_.dtype}, Task.spec says {shape} {dtype}.")
    space = case.env.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        found.append(f"the action space is {space}; it must be a Box.")
    elif space.shape != (spec.action_dim,):
        found.append(f"actions have the shape {space.shape}, Task.spec says ({spec.action_dim},).")
    elif not ((space.low == -1).all() and (space.high == 1).all()):
        low, high = float(space.low.min()), float(space.high.max())
        found.append(f"action bounds are [{low:g}, {high:g}], they must be [-1, 1]. Rescale the actions in a wrapper.")
    entries = ", ".join(f"{name} {dtype}{list(shape)}" for name, shape, dtype in spec.observation)
    return found, f"{entries}; action [{spec.action_dim}] in [-1, 1]"


def _plays(case: _Case) -> tuple[list[str], str]:
    began, limit = time.perf_counter(), case.task.max_episode_steps
    case.long = _play(case.env, env_seed(case.seed, 0), _actions(case.task, case.seed, limit + 1))
    case.took_s = time.perf_counter() - began
    return [], f"{len(case.long.rewards)} steps of random actions"


def _observations(case: _Case) -> tuple[list[str], str]:
    play, found = _long(case), []
    for step, observation in enumerate(play.observations):
        where = "after reset" if step == 0 else f"after step {step}"
        for name, shape, dtype in case.task.spec.observation:
            if name not in observation:
                found.append(f"{name!r} is missing {where}; the observation has {sorted(observation)}.")
                continue
            value = observation[name]
            if value.shape != shape or str(value.dtype) != dtype:
                found.append(f"{name!r} is {value.shape} {value.dtype} {where}, Task.spec says {shape} {dtype}.")
            if _floats(value) and not np.isfinite(value).all():
                found.append(f"{name!r} holds NaN or infinity {where}. Check the environment's sensors.")
        if found:
            break
    if play.altered:
        found.append(
            f"{play.altered!r} changed after it was returned. Return a copy, not the array you keep writing to."
        )
    values = [np.abs(v).max() for o in play.observations for v in o.values() if _floats(v) and v.size]
    return found, f"finite, largest magnitude {max(values, default=0.0):.3g}"


def _success(case: _Case) -> tuple[list[str], str]:
    for step, info in enumerate(_long(case).infos):
        where = "reset" if step == 0 else f"step {step}"
        if "success" not in info:
            return [
                f"the info of {where} has no 'success'. Set info['success'] = bool(...) in every reset and step."
            ], ""
        if not isinstance(info["success"], bool | np.bool_):
            kind = type(info["success"]).__name__
            return [f"info['success'] of {where} is {kind} {info['success']!r}, not bool. Wrap it in bool()."], ""
    solved = any(info["success"] for info in _long(case).infos)
    return [], "in every info" + (", reached by random actions" if solved else "")


def _endings(case: _Case) -> tuple[list[str], str]:
    plays, limit = [_long(case)], case.task.max_episode_steps
    for episode in (1, 2):
        if len(plays[-1].rewards) < limit:
            actions = _actions(case.task, case.seed + episode, limit + 1)
            plays.append(_play(case.env, env_seed(case.seed, episode), actions))
    for play in plays:
        steps, (terminated, truncated) = len(play.rewards), play.endings[-1]
        for kind, value in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(value, bool | np.bool_):
                return [f"{kind} is {type(value).__name__} {value!r}, not bool."], ""
        if terminated and truncated:
            return [
                f"step {steps} is terminated and truncated. A true end is terminated alone, a time limit truncated."
            ], ""
        if steps > limit:
            return [
                f"no end after {steps} steps, max_episode_steps is {limit}. Truncate there (gymnasium's TimeLimit)."
            ], ""
        if truncated and steps < limit:
            return [
                f"truncated after {steps} steps, max_episode_steps is {limit}. Make them agree; a failure is terminated."
            ], ""
        if terminated and steps == limit and not play.infos[-1]["success"]:
            return [
                f"the time limit of {limit} steps shows as terminated. Report it as truncated: values go on beyond it."
            ], ""
    ends = [f"{'truncated' if play.endings[-1][1] else 'terminated'} after {len(play.rewards)}" for play in plays]
    if not any(play.endings[-1][1] for play in plays):
        raise _Skip(f"random actions never reached the limit of {limit} steps: {', '.join(ends)}")
    return [], ", ".join(ends)


def _determinism(case: _Case) -> tuple[list[str], str]:
    actions, seed = _actions(case.task, case.seed, SHORT), env_seed(case.seed, 7)
    first = _play(case.env, seed, actions)
    other = _play(case.env, env_seed(case.seed, 8), -actions)
    found = _difference(first, _play(case.env, seed, actions), "again, after another episode")
    if not found:
        fresh = case.task.make_env()
        found = _difference(first, _play(fresh, seed, actions), "in a new environment")
        fresh.close()
    same = all(np.array_equal(v, other.observations[0][name]) for name, v in first.observations[0].items())
    starts = "another seed has the same start" if same else "another seed has another start"
    return found, f"{len(first.rewards)} steps repeated bit for bit, also in a new environment; {starts}"


def _difference(a: _Play, b: _Play, when: str) -> list[str]:
    advice = "reset(seed) must fix everything: seed every generator and forget everything of the episode before."
    for step, (one, two) in enumerate(zip(a.observations, b.observations, strict=False)):
        for name in one:
            if not np.array_equal(one[name], two[name], equal_nan=_floats(one[name])):
                gap = float(np.nanmax(np.abs(one[name].astype(np.float64) - two[name].astype(np.float64))))
                return [f"{name!r} differs by {gap:.2g} at step {step} of the same seed and actions {when}. {advice}"]
        if step and a.rewards[step - 1] != b.rewards[step - 1]:
            pair = f"{a.rewards[step - 1]} and {b.rewards[step - 1]}"
            return [f"step {step} of the same seed and actions pays {pair} {when}. {advice}"]
    if a.endings != b.endings:
        return [f"{len(a.endings)} and {len(b.endings)} steps for the same seed and actions {when}. {advice}"]
    return []


def _demonstrations(case: _Case) -> tuple[list[str], str]:
    task = case.task
    if case.episodes is None:
        if task.collect is None or not case.demos:
            raise _Skip("no expert to collect from; check a file with --data PATH")
        began = time.perf_counter()
        case.episodes = task.collect(case.demos, case.demo_noise, case.seed)
        took = time.perf_counter() - began
        origin = f"collected in {took:.1f} s ({task.source}, noise {case.demo_noise:g})"
    else:
        origin = "read"
    if not case.episodes:
        return ["there are none."], ""
    found = [f"episode {i}: {fault}" for i, e in enumerate(case.episodes) for fault in faults(e, task.spec)]
    steps = [len(e) for e in case.episodes]
    if not found and max(steps) > task.max_episode_steps:
        found.append(
            f"an episode has {max(steps)} steps, max_episode_steps is {task.max_episode_steps}. Which is right?"
        )
    solved = sum(e.success for e in case.episodes)
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    detail = f"{len(steps)} episodes {origin}, {min(steps)}-{max(steps)} steps, {solved} successful"
    return [*found[:3], *([more] if more else [])], detail


def _rewards(case: _Case) -> tuple[list[str], str]:
    play, task = _long(case), case.task
    for step, paid in enumerate(play.rewards, 1):
        if np.ndim(paid) or not np.isfinite(paid):
            return [f"step {step} pays {paid!r}; a reward must be one finite number."], ""
        if not np.isfinite(task.reward(float(paid))):
            return [f"Task.reward turns {paid!r} into {task.reward(float(paid))!r}; it must stay finite."], ""
    paid, successes = list(play.rewards), [bool(info.get("success", False)) for info in play.infos[1:]]
    for episode in range(ENOUGH):
        if len(paid) >= ENOUGH:
            break
        seed = case.seed + 10 + episode
        more = _play(case.env, env_seed(seed), _actions(task, seed, task.max_episode_steps, corners=False))
        paid, successes = paid + more.rewards, successes + [bool(info.get("success")) for info in more.infos[1:]]
    env = _by_success(np.array(paid, np.float32), np.array(successes))
    found, compared = [], "no data to compare with"
    if case.episodes:
        data = _by_success(
            np.concatenate([e.rewards for e in case.episodes]), np.concatenate([e.successes for e in case.episodes])
        )
        compared = "data and environment agree" + ("" if len(env[True]) else " (random actions met no success)")
        sparse = len(np.union1d(env[False], env[True])) <= SPARSE
        for solved, kind in ((False, "without success"), (True, "at success")):
            found += _same_rewards(env[solved], data[solved], kind, sparse)
        env = {solved: np.union1d(env[solved], data[solved]) for solved in env}
    values = np.union1d(env[False], env[True])
    if 0 < len(values) <= SPARSE:
        learnt = ", ".join(f"{float(v):g} -> {task.reward(float(v)):g}" for v in values)
    else:
        learnt = f"{values[0]:.3g}..{values[-1]:.3g} -> {task.reward(float(values[0])):.3g}.."
        learnt += f"{task.reward(float(values[-1])):.3g}"
    return found, f"{learnt}; {compared}"


def _by_success(rewards: np.ndarray, successes: np.ndarray) -> dict[bool, np.ndarray]:
    """Different values paid without and at success."""
    return {solved: np.unique(rewards[successes == solved]) for solved in (False, True)}


def _same_rewards(env: np.ndarray, data: np.ndarray, kind: str, sparse: bool) -> list[str]:
    advice = "Data must hold what the environment pays, before Task.reward: recompute it in Task.adapt."
    if not (len(env) and len(data)):
        return []
    if sparse and not np.isin(np.round(data, 4), np.round(env, 4)).all():
        shown = ", ".join(f"{v:g}" for v in data[:SPARSE]) + (", ..." if len(data) > SPARSE else "")
        return [f"{kind} the environment pays {', '.join(f'{v:g}' for v in env)}, the data {shown}. {advice}"]
    if not sparse and (data.max() < env.min() or data.min() > env.max()):
        ranges = f"{env.min():.3g}..{env.max():.3g}, the data {data.min():.3g}..{data.max():.3g}"
        return [f"{kind} the environment pays {ranges}. {advice}"]
    return []


def _statistics(case: _Case) -> tuple[list[str], str]:
    if not case.episodes:
        raise _Skip("no data")
    normalizer = Normalizer.fit(case.episodes)
    if not normalizer.mean:
        raise _Skip("no floating-point observation to normalise")
    for name in normalizer.mean:
        if not (np.isfinite(normalizer.mean[name]).all() and np.isfinite(normalizer.std[name]).all()):
            return [f"mean or standard deviation of {name!r} is not finite. Check the data's magnitudes."], ""
    starts = [case.env.reset(seed=env_seed(case.seed, 20, i))[0] for i in range(STARTS)]
    clipped = {
        name: np.mean([np.abs(normalizer(start)[name]) >= normalizer.clip for start in starts], axis=0)
        for name in normalizer.mean
    }
    share = float(np.mean(np.concatenate([c.reshape(-1) for c in clipped.values()])))
    constant = sum(int((std <= 0.01 * 1.001).sum()) for std in normalizer.std.values())
    total = sum(std.size for std in normalizer.std.values())
    detail = f"{constant} of {total} entries constant in the data, {100 * share:.0f}% of the starts' values clipped"
    if share > CLIPPED:
        name = max(clipped, key=lambda n: float(clipped[n].mean()))
        where = np.flatnonzero(clipped[name].reshape(-1) > 0.5)[:8].tolist()
        return [f"{100 * share:.0f}% of the observation values at the environment's starts lie more than "
                f"{normalizer.clip:g} standard deviations from the data's mean ({name!r}, entries {where}). "
                "Are order and units of the entries those of the data?"], ""  # fmt: skip
    return [], detail


def _speed(case: _Case) -> tuple[list[str], str]:
    rate = len(_long(case).rewards) / case.took_s
    hz = case.task.control_hz
    return [], f"{rate:,.0f} steps/s" + (f", {rate / hz:.1f} times the task's {hz:g} Hz" if hz else "")


_CHECKS: dict[str, Callable[[_Case], tuple[list[str], str]]] = {
    "spaces": _spaces,
    "plays": _plays,
    "observations": _observations,
    "success": _success,
    "endings": _endings,
    "determinism": _determinism,
    "demonstrations": _demonstrations,
    "rewards": _rewards,
    "statistics": _statistics,
    "speed": _speed,
}
