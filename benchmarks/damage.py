"""Damage to every file of a run directory: whether each is told, by name, before it changes a
result.

    .venv/bin/python benchmarks/damage.py

Trains a tiny run, and for every damage copies it, breaks one file (flips a bit, cuts it off,
removes it, exchanges it with that of another run or checkpoint), and then does what a user does
next: goes on with the run, loads it to evaluate, loads its policy, makes its report, takes its
result. What is said has to name the file; where nothing is said, what comes out has to be what
comes out of the intact run. Anything but a ValueError with a sentence is a foreign error.
Everything happens in one process. Writes benchmarks/results/damage.json.
"""

import argparse
import collections
import dataclasses
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import write_result

from exporl.acting.policy import load_policy
from exporl.data import sealing
from exporl.data.episodes import fingerprint
from exporl.envs.registry import make_task
from exporl.files.run_files import LOCK
from exporl.report.page import read_run, write_report
from exporl.run.build import decided_options
from exporl.run.config import RunConfig, override
from exporl.run.directory import TIMES, finished, load_config, open_run, summarize
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.run.prior import prior_episodes, statistics
from exporl.run.saved import find_resumable, find_saved

TINY = {
    "base.width": 8, "base.num_blocks": 1, "base.time_dim": 4, "base.num_steps": 2,
    "algo.hidden": (8,), "algo.num_base_samples": 2, "algo.num_edit_samples": 2, "algo.num_qs": 2,
    "train.batch_size": 8, "train.utd_ratio": 1, "train.offline_steps": 8,
    "train.online_steps": 24, "train.update_after": 4, "train.critic_warmup_steps": 4,
    "eval.every": 12, "eval.episodes": 4, "eval.num_envs": 2, "log.every": 6,
    "log.save_every": 12, "data.demos": 4,
}  # fmt: skip
TASK = dataclasses.replace(make_task("probe/delay"), normalize=True)
"""Observations are normalised, so that there are statistics to damage."""
Damage = tuple[str, str, Callable[[Path], None]]
"""Kind, file, what breaks it."""


@dataclasses.dataclass
class Seen:
    """What a user sees of a run: results by step, and what was said."""

    results: dict[str, Any]
    said: list[str]
    foreign: list[str]


def make_runs(folder: Path) -> tuple[Path, Path]:
    """The run that is damaged, and another to exchange files with."""
    for name, seed in (("run", 0), ("other", 1)):
        changes = TINY | {"data.demo_seed": seed}
        config = override(preset_config("expo", "tiny", "probe/delay"), changes)
        train(dataclasses.replace(config, seed=seed), folder / name, task=TASK)
    return folder / "run", folder / "other"


def files_of(run: Path) -> list[str]:
    """Every file of a run directory, by its path in it."""
    files = [path.relative_to(run).as_posix() for path in sorted(run.rglob("*")) if path.is_file()]
    return [name for name in files if name != LOCK]


def flip(path: Path, bit: int) -> None:
    """Turns one bit over."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def exchange(one: Path, two: Path) -> None:
    """Puts the content of each into the other."""
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b)
    two.write_bytes(a)


def damages(run: Path, other: Path, rng: np.random.Generator, flips: int) -> Iterator[Damage]:
    """Everything that is done to the files."""
    for name in files_of(run):
        size = (run / name).stat().st_size
        for bit in rng.integers(8 * size, size=flips):
            yield "flip", name, lambda path, name=name, bit=int(bit): flip(path / name, bit)
        for length in (0, 1, size // 2, size - 1):
            yield (
                "truncation",
                name,
                lambda path, name=name, length=length: os.truncate(path / name, length),
            )
        yield "deletion", name, lambda path, name=name: (path / name).unlink()
        if (other / name).is_file():
            yield (
                "swap with another run",
                name,
                lambda path, name=name: shutil.copyfile(other / name, path / name),
            )
    older, newest = sorted(path.name for path in (run / "checkpoints").glob("checkpoint-*"))
    for file in sorted(path.name for path in (run / "checkpoints" / newest).iterdir()):
        one, two = f"checkpoints/{older}/{file}", f"checkpoints/{newest}/{file}"
        yield (
            "swap between checkpoints",
            two,
            lambda path, one=one, two=two: exchange(path / one, path / two),
        )
    for name in (f"checkpoints/{newest}", "checkpoints/segments", "checkpoints"):
        yield "deletion", name, lambda path, name=name: shutil.rmtree(path / name)


def resumed(run: Path, config: RunConfig[Any], said: list[str]) -> Any:
    """What a resumption would go on from, up to where training itself begins."""
    mine = load_config(run)
    open_run(mine, run, resume=True)
    found = find_resumable(mine, run, said.append)
    if found is None:
        return "from the beginning"
    episodes = prior_episodes(mine, run, TASK, said.append, found.record["data"])
    normalizer = statistics(run, episodes)
    assert normalizer is not None
    decided = decided_options(mine, run)
    sums = {part: sums_of(arrays) for part, arrays in found.parts.items()}
    kept = {key: value for key, value in found.record.items() if key != "first_update_s"}
    return [
        sums, json.dumps(kept, sort_keys=True), fingerprint(episodes),
        json.dumps(normalizer.to_json()), repr(decided), repr(without_limits(mine)),
    ]  # fmt: skip


def sums_of(arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
    """A number for every array."""
    return {name: float(np.sum(value, dtype=np.float64)) for name, value in arrays.items()}


def without_limits(config: RunConfig[Any]) -> RunConfig[Any]:
    """The configuration without what may change between a run and its resumption."""
    reference = override(preset_config("expo", "tiny", "probe/delay"), TINY)
    train_options = dataclasses.replace(config.train, online_steps=0)
    return dataclasses.replace(config, train=train_options, eval=reference.eval, log=reference.log)


def evaluated(run: Path, said: list[str]) -> Any:
    """What an evaluation would play with."""
    mine = load_config(run)
    found = find_saved(mine, run, only=("learner",))
    if found is None:
        raise ValueError(f"{run} has no checkpoint yet.")
    said += found.problems
    normalizer = statistics(run, [])
    return [
        sums_of(found.parts["learner"]),
        repr(without_limits(mine)),
        normalizer and json.dumps(normalizer.to_json()),
    ]


def acted(run: Path, said: list[str]) -> Any:
    """What its policy acts with: compiling what it does with that would take a second each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        policy = load_policy(run)
    said += [str(warning.message) for warning in caught]
    statistics = policy.normalizer and policy.normalizer.to_json()
    leaves = map(np.asarray, jax.tree.leaves(policy.parameters))
    sums = [float(np.sum(leaf, dtype=np.float64)) for leaf in leaves]
    return [sums, policy.mode, json.dumps([statistics, policy.interface.to_json()])]


def reported(run: Path, said: list[str]) -> Any:
    """Its summary and page, as far as they follow from the files."""
    data = read_run(run)
    said += data.problems
    page = write_report([run], run / "again.html").read_text()
    summary = summarize(run)
    said += summary.pop("problems", [])
    learnt = re.sub(r"<details>.*</details>", "", page, flags=re.DOTALL)
    return [summary, re.sub("exporl [^ <]*", "", learnt)]


def finished_with(run: Path, config: RunConfig[Any]) -> Any:
    """What a folder of seeds takes a finished run's result to be, times apart: its summary, or what
    a resumption writes in its place."""
    summary = finished(run, config) or summarize(run)
    beside = (*TIMES, "problems")
    return {name: value for name, value in summary.items() if name not in beside}


def look(run: Path, config: RunConfig[Any]) -> Seen:
    """Everything that a user does next with a run."""
    seen = Seen({}, [], [])
    steps = {"report": reported, "evaluate": evaluated, "act": acted}
    steps["finish"] = lambda run, said: finished_with(run, config)
    steps["resume"] = lambda run, said: resumed(run, config, said)
    for name, step in steps.items():
        try:
            seen.results[name] = step(run, seen.said)
        except (ValueError, FileNotFoundError) as error:
            own = (
                type(error) in (ValueError, FileNotFoundError) or "exporl" in type(error).__module__
            )
            (seen.said if own else seen.foreign).append(f"{name}: {error}")
            seen.results[name] = "refused"
        except Exception as error:  # what is looked for
            seen.foreign.append(f"{name}: {type(error).__name__}: {error}")
    return seen


def named(name: str, said: list[str]) -> bool:
    """Whether what was said names a file, or the folder that it makes unusable."""
    folder, _, inner = name.partition("/")
    wanted = [name]
    if folder == "checkpoints":  # the checkpoint is named, or that it is missing
        wanted = [inner.partition("/")[0] or "checkpoints", "newest checkpoint is of"]
    return any(word in sentence for word in wanted for sentence in said)


def judge(name: str, intact: Seen, seen: Seen) -> str:
    """What became of one damage."""
    if seen.foreign:
        return "foreign error"
    changed = [step for step in intact.results if seen.results[step] != intact.results[step]]
    if named(name, seen.said):
        return "told"
    if changed:
        return "silent, and changes a result"
    return "harmless"


def main() -> None:
    """Breaks a run in every way, and counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=12, help="bits turned over per file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, began = np.random.default_rng(options.seed), time.perf_counter()
    outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    kinds: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        sealing.LEAST_BYTES = 1  # so that tiny runs have segments too
        run, other = make_runs(Path(folder))
        config = load_config(run)
        target = Path(folder) / "target"
        shutil.copytree(run, target)
        intact = look(target, config)
        assert not intact.said and not intact.foreign, intact
        for kind, name, damage in damages(run, other, rng, options.flips):
            shutil.rmtree(target)
            shutil.copytree(run, target)
            damage(target)
            seen = look(target, config)
            outcome = judge(name, intact, seen)
            file = re.sub(r"checkpoint-\d+", "checkpoint-*", name)
            file = re.sub(r"replay-[0-9a-f]{32}", "replay-*", file)
            outcomes[file][outcome] += 1
            kinds[kind] += 1
            if outcome not in ("told", "harmless"):
                faults.append(f"{kind} of {file}: {outcome}: {(seen.foreign or seen.said)[:2]}")
                print(faults[-1], flush=True)
    total = sum(kinds.values())
    result = {
        "command": "benchmarks/damage.py",
        "damages": total,
        "by_kind": dict(kinds),
        "by_file": {file: dict(counts) for file, counts in sorted(outcomes.items())},
        "faults": faults,
        "wall_s": round(time.perf_counter() - began, 1),
    }
    print(write_result("damage", result), total, "damages,", len(faults), "faults")


if __name__ == "__main__":
    main()
