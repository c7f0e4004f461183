"""Whether a policy from outside fits a task: found before the first step, with what to change."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from exporl.units import ActionUnits

ASKED, SAMPLES = 4, 4
"""Observations that a policy is tried on before the first step, and samples of each."""
OVER, SHARE = 1e-3, 0.05
"""How far beyond [-1, 1] an action is outside, and the share of such that is not rounding."""


def check_fit(
    base: OutsideBase,
    observations: Mapping[str, np.ndarray],
    episodes: Sequence[Episode] = (),
    *,
    task: Task | None = None,
    num: int | None = None,
    data: str | Path | None = None,
) -> Iterator[Finding]:
    """One finding per promise of a policy.

    Args:
        base: the policy.
        observations: some that the task shows, [b, ...] each with b at least 2.
        episodes: recorded data, in the task's units.
        task: with whose actions and rate those of the policy are compared, where it says its own.
        num: samples of each observation that the run asks for; None: unknown.
        data: where the recorded data lies.
    """
    found = _shapes(base, task)
    yield from found
    yield _learning(base)
    if any(finding.status == "fail" for finding in found):
        yield Finding("answers", "skip", "its shapes do not fit")
        return
    yield from _asked(base, {name: np.asarray(observations[name]) for name in base.reads}, num)
    recorded = None if data is None else recorded_hz(Path(data))
    rates = {"the task": task and task.control_hz, "the data": recorded}
    known = {name: rate for name, rate in rates.items() if rate}
    yield from check_met(base, observations, episodes, known)


def refuse_misfit(
    base: OutsideBase,
    observations: Mapping[str, np.ndarray],
    episodes: Sequence[Episode] = (),
    warn: Callable[[str], None] | None = None,
    *,
    task: Task | None = None,
    num: int | None = None,
    data: str | Path | None = None,
) -> None:
    """Whether a policy can be a run's base. Arguments are those of `check_fit`; `warn` is told what
    a run should know, a sentence or more each.

    Raises:
        ValueError: it cannot; says everything that does not fit, and how to mend it.
    """
    found = list(check_fit(base, observations, episodes, task=task, num=num, data=data))
    _refuse(base, found)
    if warn is None:
        return
    for finding in found:
        if finding.status == "warn":
            warn(f"Warning: {base.name}, {finding.name}: {finding.detail}")
    if not base.seeded:
        warn(
            f"{base.name} takes no seeds: unless it always answers the same, this run does not "
            "repeat to the bit, nor is it resumed exactly."
        )


def refuse_other_shapes(base: OutsideBase, task: Task) -> None:
    """Whether what a policy says of itself fits a task; it is asked for nothing.

    Raises:
        ValueError: it does not; says everything that does not fit, and how to mend it.
    """
    _refuse(base, [*_shapes(base, task), _learning(base)])


def _refuse(base: OutsideBase, found: Sequence[Finding]) -> None:
    failed = [finding for finding in found if finding.status == "fail"]
    if failed:
        listed = " ".join(f"{finding.name}: {finding.detail}" for finding in failed)
        raise ValueError(f"{base.name} does not fit. {listed}")


def _shapes(base: OutsideBase, task: Task | None) -> list[Finding]:
    own: Spec | None = getattr(base.policy, "spec", None)
    found = [_observations(own, base.spec), _actions(own, base.spec), _chunks(own, base.spec)]
    if task is not None and getattr(base.policy, "units", None) is not None:
        found.append(_units(base.policy.units, task))  # pyright: ignore[reportAttributeAccessIssue]
    return found


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
        elif shown[name][1].startswith("float") != dtype.startswith("float"):
            wrong.append(f"the policy reads {name!r} as {dtype}, the task shows {shown[name][1]}.")
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


def _units(own: ActionUnits, task: Task) -> Finding:
    """Whether the environment takes actions between the bounds that the policy's are scaled
    from."""
    a = task.spec.action_dim
    units = task.action_units or ActionUnits((-1.0,) * a, (1.0,) * a, (a,), "float32")
    mine, takes = np.array([own.low, own.high]), np.array([units.low, units.high])
    said = f"[{mine[0].min():g}, {mine[1].max():g}]"
    if mine.shape == takes.shape and np.allclose(mine, takes, rtol=1e-4, atol=1e-6):
        return Finding("units", "pass", f"actions between {said}, as the environment takes them")
    bounds = f"[{takes[0].min():g}, {takes[1].max():g}]"
    return Finding(
        "units",
        "fail",
        f"the policy was made for actions between {said} ({own.low} to {own.high}), the "
        f"environment takes them between {bounds} ({units.low} to {units.high}): the same number "
        "would be another action. Serve a policy of this environment, or scale its actions in an "
        "adapter of your own.",
    )


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


def _asked(
    base: OutsideBase, observations: dict[str, np.ndarray], num: int | None
) -> Iterator[Finding]:
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
        remembers = not base.seeded and _remembers(base, observations)
    except (Exception, SystemExit) as error:  # somebody else's policy may raise anything
        said = f"{error}".rstrip(".")
        yield Finding("answers", "fail", f"sample raised {type(error).__name__}: {said}.")
        return
    counted = f"{rows} x {SAMPLES} samples in {1000 * took:.1f} ms"
    yield Finding("answers", "pass", f"{counted}, the first call")
    repeats, same = np.array_equal(first, again), bool((first == first[:, :1]).all())
    if base.seeded or same:
        yield _memory(base, repeats, np.array_equal(before, base.fingerprint()))
    else:
        yield _draws_itself(remembers)
    yield _range(base, first)
    yield _spread(base, same and np.array_equal(first, other), num)


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


def _remembers(base: OutsideBase, observations: dict[str, np.ndarray]) -> bool:
    """Whether a policy that takes no seeds is seen to remember; it may have a way to tell."""
    look: Callable[[dict[str, np.ndarray]], bool] | None = getattr(base.policy, "remembers", None)
    return look is not None and look(observations)


def _draws_itself(remembers: bool) -> Finding:
    """About a policy whose draws no seed decides."""
    if remembers:
        return Finding(
            "memory",
            "fail",
            "new connections that are asked the same get the same series of answers, which is not "
            "constant: what it answers depends on what it was asked before. One hidden state "
            "cannot be sampled several times: let the server take seeds (expo/seed in its extras, "
            "docs/serving.md), with the history as an entry of the observation.",
        )
    return Finding(
        "memory",
        "pass",
        "it takes no seeds and draws by itself: runs do not repeat, nor resume, to the bit. A "
        "memory that all who ask share would look the same: be sure that it has none",
    )


def _spread(base: OutsideBase, same: bool, num: int | None) -> Finding:
    """About samples of one observation."""
    if not same:
        return Finding("spread", "pass", "samples differ")
    if base.seeded or num == 1:
        return Finding("spread", "pass", "all samples are the same: only edits explore")
    said = (
        f"asked {SAMPLES} times for one observation it gave one answer, and it takes no seeds: it "
        "is deterministic, or plays from a memory. More samples of it are of no use: "
        "--algo.num-base-samples 1"
    )
    if num is None:
        return Finding("spread", "skip", f"{said}; a run with more is refused")
    return Finding("spread", "fail", f"{said} instead of {num}.")


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
