"""What came out of runs, in sentences: the policy against its base policy on the same starts, one
run at a time and over all seeds of an algorithm."""

from collections.abc import Callable, Sequence
from typing import Any

from exporl.report.labels import by_label
from exporl.report.markup import text
from exporl.report.run_data import RunData
from exporl.stats.intervals import paired_difference
from exporl.stats.over_seeds import Found, over_seeds, shown


def dip(run: RunData) -> tuple[int, float, float, float] | None:
    """Where the policy fell furthest below the base policy as it was before training.

    Returns:
        (env steps, difference policy - base, low, high) at the worst evaluation after step 0,
        paired on the same starts with a 95% interval; None without a base policy or without later
        evaluations.
    """
    if len(run.evals) < 2 or "base" not in run.evals[0]:
        return None
    worst = min(run.evals[1:], key=lambda line: line["policy"]["success_rate"])
    before = run.evals[0]["base"]["success"]
    return (worst["env_steps"], *paired_difference(*common(worst["policy"]["success"], before)))


def common(a: Sequence[Any], b: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """The episodes that both have: a resumption may change `eval.episodes`, and the first starts
    stay the same."""
    num = min(len(a), len(b))
    return a[:num], b[:num]


def findings(runs: Sequence[RunData]) -> str:
    """Sentences about runs on one task: over all seeds of each algorithm first."""
    known = [run for run in runs if run.evals and "base" in run.evals[0] and run.algorithm != "bc"]
    parts = []
    for members in by_label(known):
        together = _over_all(members) if len(members) > 1 else []
        parts.append(told(together, [sentence for run in members for sentence in _of_one(run)]))
    return "".join(parts)


def told(together: Sequence[str], of_runs: Sequence[str]) -> str:
    """Sentences about all seeds, and those about each: folded where there are the former."""
    if not together:
        return _paragraphs(of_runs)
    each = f"<details><summary>each seed</summary>{_paragraphs(of_runs)}</details>"
    return f"{_paragraphs(together)}{each}"


def _paragraphs(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{sentence}</p>" for sentence in sentences)


def gains(runs: Sequence[RunData], step: int, key: str) -> list[list[float]]:
    """Per run its policy after so many steps minus its base policy before training, by start.

    Args:
        runs: with a base policy, all evaluated at this step.
        step: environment steps.
        key: what is compared: "success" or "returns".
    """
    found = []
    for run in runs:
        after = next(line["policy"][key] for line in run.evals if line["env_steps"] == step)
        pairs = zip(*common(after, run.evals[0]["base"][key]), strict=True)
        found.append([float(policy) - float(base) for policy, base in pairs])
    return found


def common_steps(runs: Sequence[RunData], who: str = "policy") -> list[int]:
    """Environment steps at which somebody was evaluated in all runs."""
    of_runs = ({line["env_steps"] for line in run.evals if who in line} for run in runs)
    return sorted(set.intersection(*of_runs))


def points(found: Found) -> str:
    """A difference of success rates: +45 points [+20, +60]."""
    mean, low, high = found
    return f"{100 * mean:+.0f} points [{100 * low:+.0f}, {100 * high:+.0f}]"


def pooled(
    runs: Sequence[RunData], key: str, words: Callable[[Found], str], what: str = ""
) -> tuple[str, list[int]]:
    """The sentence about the last evaluation that all seeds have, and all those that they have."""
    steps = common_steps(runs)
    if not steps:
        return "", []
    by_seed = gains(runs, steps[-1], key)
    found = over_seeds(by_seed)
    starts = "/".join(dict.fromkeys(str(len(each)) for each in by_seed))
    sentence = (
        f"<b>{text(runs[0].label)}, {len(runs)} seeds</b>: {what}{words(found)} over "
        f"the base policy after {steps[-1]:,} environment steps ({len(runs)} seeds of {starts} "
        f"paired starts, interval over seeds): {_verdict(found)}."
    )
    return sentence, steps


def _verdict(found: Found) -> str:
    return shown(found, "better than its base policy", "worse than its base policy")


def _over_all(runs: Sequence[RunData]) -> list[str]:
    sentence, steps = pooled(runs, "success", points)
    later = [step for step in steps if step > 0]
    if not later:
        return [sentence] if sentence else []
    of_steps = {step: gains(runs, step, "success") for step in later}
    lowest = min(later, key=lambda step: sum(sum(g) / len(g) for g in of_steps[step]))
    return [sentence, _lowest(lowest, over_seeds(of_steps[lowest]))]


def _of_one(run: RunData) -> list[str]:
    last = run.evals[-1]
    after, before = common(last["policy"]["success"], run.evals[0]["base"]["success"])
    gain = paired_difference(after, before)
    sentences = [
        f"<b>{text(run.label)}, seed {text(run.seed)}</b>: {points(gain)} over its base"
        f" policy after {last['env_steps']:,} environment steps (same {len(before)} starts)."
    ]
    if (found := dip(run)) is not None:
        sentences.append(_lowest(found[0], found[1:]))
    return sentences


def _lowest(step: int, found: Found) -> str:
    """The lowest evaluation; it is called a dip only where its interval shows one."""
    verdict = shown(found, "no evaluation was below the base", "a dip below the base")
    return (
        f"The lowest evaluation, at step {step:,}, was {points(found)} against the base before "
        f"training: {verdict}."
    )
