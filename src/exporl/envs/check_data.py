"""Checks of a task's data: its dimensions, its rewards against the environment's, its
statistics."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from exporl.data.episodes import Episode, Normalizer, faults, kinds
from exporl.data.formats.success import ADVICE
from exporl.envs.check_case import Case, Skip, long_play, play_episode, random_actions
from exporl.randomness import env_seed

SPARSE, ENOUGH = 4, 60
"""A reward that takes at most so many different values in so many steps is sparse, and compared
value by value."""
STARTS = 5
"""Starts that are compared with the data."""
CLIPPED = 0.2
"""Largest share of the starts' observation values that normalisation may clip."""


def demonstrations(case: Case) -> tuple[list[str], str]:
    """Collects or takes the data: faults of every episode, lengths, success."""
    task = case.task
    if case.episodes is None:
        if task.collect is None or not case.demos:
            raise Skip("no expert to collect from; check a file with --data PATH")
        began = time.perf_counter()
        case.episodes = task.collect(case.demos, case.demo_noise, case.seed)
        took = time.perf_counter() - began
        origin = f"collected in {took:.1f} s ({task.source}, noise {case.demo_noise:g})"
    else:
        origin = "read"
    if not case.episodes:
        return ["there are none."], ""
    found = [
        f"episode {i}: {fault}"
        for i, e in enumerate(case.episodes)
        for fault in faults(e, task.spec, task.reward_range)
    ]
    steps = [len(e) for e in case.episodes]
    beyond = ""
    if not found and max(steps) > task.max_episode_steps:
        beyond = f"an episode has {max(steps)} steps, max_episode_steps is {task.max_episode_steps}"
        # recordings may be longer, play data is; what the task itself plays may not
        if origin != "read":
            found.append(f"{beyond}. Which is right?")
    found += _late_ends(case.episodes, task.max_episode_steps)
    solved = sum(e.success for e in case.episodes)
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    detail = (
        f"{len(steps)} episodes {origin}, {min(steps)}-{max(steps)} steps, {solved} successful"
        + (f"; {beyond}" if beyond else "")
        + ("" if solved else f"; none shows what success is. {ADVICE}")
    )
    notes = [(f"episode {i}", note) for i, e in enumerate(case.episodes) for note in e.notes]
    detail += "".join(f"; {count} x {example}" for example, count, _ in kinds(notes))
    return [*found[:3], *([more] if more else [])], detail


def _late_ends(episodes: Sequence[Episode], limit: int) -> list[str]:
    """A sentence where the only failures end as terminated at the time limit."""
    failed = [len(e) for e in episodes if e.terminated and not e.success]
    late = failed.count(limit)
    if not late or late < len(failed):  # others failed before: these may have too
        return []
    return [
        f"{late} of {len(episodes)} episodes end as terminated at the time limit of {limit} steps, "
        "without success. A cut-off there is a timeout, not a true end: values go on beyond it. "
        "Record terminated=False there."
    ]


def rewards(case: Case) -> tuple[list[str], str]:
    """Finite rewards, and the same ones in data and environment."""
    play, task = long_play(case), case.task
    for step, paid in enumerate(play.rewards, 1):
        if np.ndim(paid) or not np.isfinite(paid):
            return [f"step {step} pays {paid!r}; a reward must be one finite number."], ""
        if not np.isfinite(task.reward(float(paid))):
            return [
                f"Task.reward turns {paid!r} into {task.reward(float(paid))!r}; it must stay "
                "finite."
            ], ""
    paid, successes = (
        list(play.rewards),
        [bool(info.get("success", False)) for info in play.infos[1:]],
    )
    for episode in range(ENOUGH):
        if len(paid) >= ENOUGH:
            break
        seed = case.seed + 10 + episode
        more = play_episode(
            case.env,
            env_seed(seed),
            random_actions(task, seed, task.max_episode_steps, corners=False),
        )
        paid, successes = (
            paid + more.rewards,
            successes + [bool(info.get("success")) for info in more.infos[1:]],
        )
    env = _by_success(np.array(paid, np.float32), np.array(successes))
    found, compared = [], "no data to compare with"
    if case.episodes:
        data = _by_success(
            np.concatenate([e.rewards for e in case.episodes]),
            np.concatenate([e.successes for e in case.episodes]),
        )
        compared = "data and environment agree" + (
            "" if len(env[True]) else " (random actions met no success)"
        )
        sparse = len(np.union1d(env[False], env[True])) <= SPARSE
        for solved, kind in ((False, "without success"), (True, "at success")):
            found += _same_rewards(env[solved], data[solved], kind, sparse, task.reward)
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


def _same_rewards(
    env: np.ndarray, data: np.ndarray, kind: str, sparse: bool, reward: Callable[[float], float]
) -> list[str]:
    advice = (
        "Data must hold what the environment pays, before Task.reward: recompute it in Task.adapt."
    )
    if not (len(env) and len(data)):
        return []
    # Random actions rarely meet every value that an expert does: what is learnt from them has to
    # agree.
    learnt_env, learnt_data = (
        np.round([reward(float(v)) for v in values], 4) for values in (env, data)
    )
    if sparse and not np.isin(learnt_data, learnt_env).all():
        shown = ", ".join(f"{v:g}" for v in data[:SPARSE]) + (", ..." if len(data) > SPARSE else "")
        return [
            f"{kind} the environment pays {', '.join(f'{v:g}' for v in env)}, the data {shown}. "
            f"{advice}"
        ]
    if not sparse and (data.max() < env.min() or data.min() > env.max()):
        ranges = f"{env.min():.3g}..{env.max():.3g}, the data {data.min():.3g}..{data.max():.3g}"
        return [f"{kind} the environment pays {ranges}. {advice}"]
    return []


def statistics(case: Case) -> tuple[list[str], str]:
    """Whether the environment starts where the data's statistics expect it."""
    if not case.episodes:
        raise Skip("no data")
    normalizer = Normalizer.fit(case.episodes)
    if not normalizer.mean:
        raise Skip("no floating-point observation to normalise")
    for name in normalizer.mean:
        if not (
            np.isfinite(normalizer.mean[name]).all() and np.isfinite(normalizer.std[name]).all()
        ):
            return [
                f"mean or standard deviation of {name!r} is not finite. Check the data's "
                "magnitudes."
            ], ""
    starts = [case.env.reset(seed=env_seed(case.seed, 20, i))[0] for i in range(STARTS)]
    clipped = {
        name: np.mean(
            [np.abs(normalizer(start)[name]) >= normalizer.clip for start in starts], axis=0
        )
        for name in normalizer.mean
    }
    share = float(np.mean(np.concatenate([c.reshape(-1) for c in clipped.values()])))
    constant = sum(int((std <= 0.01 * 1.001).sum()) for std in normalizer.std.values())
    total = sum(std.size for std in normalizer.std.values())
    detail = (
        f"{constant} of {total} entries constant in the data, {100 * share:.0f}% of the starts' "
        "values clipped"
    )
    if share > CLIPPED:
        name = max(clipped, key=lambda n: float(clipped[n].mean()))
        where = np.flatnonzero(clipped[name].reshape(-1) > 0.5)[:8].tolist()
        return [
            f"{100 * share:.0f}% of the observation values at the environment's starts lie more "
            f"than {normalizer.clip:g} standard deviations from the data's mean ({name!r}, entries"
            f" {where}). Are order and units of the entries those of the data?"
        ], ""
    return [], detail
