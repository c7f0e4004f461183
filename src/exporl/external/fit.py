"""Whether a policy from outside fits a task: found before the first step, with what to change."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from exporl.data.episodes import Episode
from exporl.data.formats.lerobot import recorded_hz
from exporl.envs.check import Finding
from exporl.envs.task import Task
from exporl.external.base import OutsideBase
from exporl.external.met import check_met
from exporl.randomness import env_seed
from exporl.spec import Spec
from exporl.suggest import closest

ASKED, SAMPLES = 4, 4
"""Observations that a policy is tried on before the first step, and samples of each."""
OVER, SHARE = 1e-3, 0.05
"""How far beyond [-1, 1] an action is outside, and the share of such that is not rounding."""


def check_fit(
    base: OutsideBase,
    observations: Mapping[str, np.ndarray],
    episodes: Sequence[Episode] = (),
    rates: Mapping[str, float | None] | None = None,
) -> Iterator[Finding]:
    """One finding per promise of a policy.

    Args:
        base: the policy.
        observations: some that the task shows, [b, ...] each with b at least 2.
        episodes: recorded data, in the task's units.
        rates: actions per second, by who has them; see `check_met`.
    """
    own: Spec | None = getattr(base.policy, "spec", None)
    found = [_observations(own, base.spec), _actions(own, base.spec), _chunks(own, base.spec)]
    yield from found
    yield _learning(base)
    if any(finding.status == "fail" for finding in found):
        yield Finding("answers", "skip", "its shapes do not fit")
        return
    yield from _asked(base, {name: np.asarray(observations[name]) for name in base.reads})
    yield from check_met(base, observations, episodes, rates)


def refuse_misfit(
    base: OutsideBase,
    observations: Mapping[str, np.ndarray],
    episodes: Sequence[Episode] = (),
    rates: Mapping[str, float | None] | None = None,
) -> list[str]:
    """Whether a policy can be a run's base; arguments are those of `check_fit`.

    Returns:
        What to warn of, a sentence or more each.

    Raises:
        ValueError: it cannot; says everything that does not fit, and how to mend it.
    """
    found = list(check_fit(base, observations, episodes, rates))
    failed = [f for f in found if f.status == "fail"]
    if failed:
        listed = " ".join(f"{finding.name}: {finding.detail}" for finding in failed)
        raise ValueError(f"{base.name} does not fit. {listed}")
    return [f"{base.name}, {f.name}: {f.detail}" for f in found if f.status == "warn"]


def rates_of(task: Task, data: str | Path | None) -> dict[str, float | None]:
    """Actions per second of a task and of recorded data; None where nobody says them."""
    return {"the task": task.control_hz, "the data": data and recorded_hz(Path(data))}


def _observations(own: Spec | None, task: Spec) -> Finding:
    shown = {name: (shape, dtype) for name, shape, dtype in task.observation}
    if own is None:
        listed = ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in shown.items())
        return Finding("observations", "pass", f"says nothing of itself; is given {listed}")
    wrong = []
    for name, shape, dtype in own.observation:
        if name not in shown:
            rest = f"It shows {', '.join(shown)}."
            wrong.append(
                f"the policy reads {name!r} {dtype}{list(shape)}, which the task does not show. "
                f"{closest(name, shown, rest)}"
            )
        elif shown[name][0] != shape:
            wrong.append(
                f"the policy reads {name!r} {list(shape)}, the task shows {list(shown[name][0])}."
            )
    if wrong:
        mend = "An adapter of your own can rename and reshape entries (docs/own_policy.md)."
        return Finding("observations", "fail", " ".join([*wrong, mend]))
    names = ", ".join(name for name, _, _ in own.observation)
    return Finding("observations", "pass", f"reads {names} of {', '.join(shown)}")


def _actions(own: Spec | None, task: Spec) -> Finding:
    if own is not None and own.action_dim != task.action_dim:
        return Finding(
            "actions",
            "fail",
            f"the policy makes actions of {own.action_dim} numbers, the task takes "
            f"{task.action_dim}. An adapter of your own can leave some out, or add constants.",
        )
    return Finding("actions", "pass", f"[{task.action_dim}]")


def _chunks(own: Spec | None, task: Spec) -> Finding:
    if own is not None and own.chunk_length != task.chunk_length:
        return Finding(
            "chunks",
            "fail",
            f"the policy makes chunks of {own.chunk_length} actions, the run has chunk_length="
            f"{task.chunk_length}: give --chunk-length {own.chunk_length}, and --execute-length K "
            "where fewer of them are to be played.",
        )
    return Finding("chunks", "pass", f"of {task.chunk_length} actions")


def _learning(base: OutsideBase) -> Finding:
    missing = [n for n in ("imitate", "state", "load") if not hasattr(base.policy, n)]
    if base.learns and missing:
        return Finding(
            "learning",
            "fail",
            f"base.learns=True, and the policy has no {', no '.join(missing)} (a torch module: no "
            "loss). Add it, or leave the policy as it is: base.learns=False.",
        )
    can = "cannot learn" if missing else "can learn"
    return Finding("learning", "pass", "learns by imitation" if base.learns else f"{can}, frozen")


def _asked(base: OutsideBase, observations: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Findings about what the policy answers."""
    rows, before = len(next(iter(observations.values()))), base.fingerprint()
    began = time.perf_counter()
    try:
        first = _raw(base, observations, 0)
        took = time.perf_counter() - began
        base.sample(observations, SAMPLES, 0)  # checks shape and numbers
        base.sample({name: value[::-1] for name, value in observations.items()}, SAMPLES, 1)
        again = _raw(base, observations, 0)
        other = _raw(base, observations, 1)
    except (Exception, SystemExit) as error:  # somebody else's policy may raise anything
        said = f"{error}".rstrip(".")
        yield Finding("answers", "fail", f"sample raised {type(error).__name__}: {said}.")
        return
    counted = f"{rows} x {SAMPLES} samples in {1000 * took:.1f} ms"
    yield Finding("answers", "pass", f"{counted}, the first call")
    yield _memory(base, np.array_equal(first, again), np.array_equal(before, base.fingerprint()))
    yield _range(base, first)
    same = bool((first == first[:, :1]).all()) and np.array_equal(first, other)
    said = "all samples are the same: only edits explore" if same else "samples differ"
    yield Finding("spread", "pass", said)


def _raw(base: OutsideBase, observations: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """What the policy itself answers, before it is kept within bounds."""
    own = {name: np.array(value) for name, value in observations.items()}
    return base.in_unit(np.real(base.policy.sample(own, SAMPLES, seed))).copy()


def _memory(base: OutsideBase, repeats: bool, unchanged: bool) -> Finding:
    if repeats and unchanged:
        return Finding("memory", "pass", "the same question gets the same answer")
    layers = getattr(base.policy, "memory", "")
    seen = f" It has {layers}." if layers else ""
    what = "sampling changes its buffers" if not unchanged else "asked twice it answers differently"
    return Finding(
        "memory",
        "fail",
        f"{what}, with the same observations and seed: it has a memory, or draws that its seed "
        f"does not decide.{seen} One hidden state cannot be sampled several times: make the answer "
        "a function of observations and seed, with the history as an entry of the observation.",
    )


def _range(base: OutsideBase, actions: np.ndarray) -> Finding:
    outside = float((np.abs(actions) > 1 + OVER).mean())
    low, high = float(actions.min()), float(actions.max())
    said = f"{low:.3g} to {high:.3g}"
    if outside > SHARE:
        own = getattr(base.policy, "actions", "unit") == "env"
        units = "other units than the environment's" if own else "the environment's own units"
        return Finding(
            "range",
            "fail",
            f"actions are {said}, {100 * outside:.0f}% of the numbers outside [-1, 1]: they seem "
            f"to be in {units}. Scale them in an adapter of your own.",
        )
    clipped = f", {100 * outside:.1f}% of the numbers are clipped to [-1, 1]" if outside else ""
    return Finding("range", "pass", said + clipped)


def some_observations(
    task: Task, seed: int, episodes: Sequence[Episode] = ()
) -> dict[str, np.ndarray]:
    """A few observations [b, ...] that a task shows: of recorded data, or of a new environment
    where there is none."""
    if episodes and len(episodes[0]) >= ASKED:
        return {name: value[:ASKED] for name, value in episodes[0].observations.items()}
    env = task.make_env()
    try:
        seen = [env.reset(seed=env_seed(seed, i))[0] for i in range(ASKED)]
        return {name: np.stack([each[name] for each in seen]) for name in seen[0]}
    finally:
        env.close()
