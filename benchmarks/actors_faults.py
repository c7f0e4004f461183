"""Faults at random moments of runs with actors on Ray: does every run come to its end, with all
that was saved?

    .venv/bin/python benchmarks/actors_faults.py --dir runs/actors-faults

Needs Ray (pip install 'exporl[ray]') and Linux. Every run (benchmarks/actors.py: 2 actors, tiny
networks, a slow simulator) suffers five faults, one after the other, at random moments: the next
one comes when two more lines of metrics, 40 environment steps, have followed the last one, and up
to three seconds have passed. It need not be over by then: an actor may still be starting.

    actor killed         SIGKILL to one of the actors
    actor stopped        SIGSTOP to one of the actors, for good
    environment raises   an actor's simulator raises in the middle of an episode
    environment crashes  an actor's simulator ends its process with SIGSEGV
    evaluation crashes   the evaluation's simulator ends the process that learns with SIGSEGV
    learner killed       SIGKILL to the process that learns
    network stalls       SIGSTOP to everything of Ray, and SIGCONT 30 s later

Where the process ends, the run is resumed. A run is right if it makes all of its steps, if its
update-to-data ratio is the configured one, and if every step of the newest checkpoint at each fault
is, to the bit, in the last one. Runs in the folder that are over are not repeated (--only: some of
them, so that several can be made at a time); writes benchmarks/results/actors_faults.json after
every run.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from actors import (
    CRASHES,
    EVALUATION_CRASHES,
    RAISES,
    begin,
    configuration,
    faults_of,
    ratio,
)
from common import write_result

from exporl.files import checkpoint
from exporl.files.atomic import read_lines, write_text
from exporl.files.run_files import CHECKPOINTS, METRICS, SUMMARY
from exporl.files.tensors import CorruptCheckpointError

COUNTS = {
    "actor killed": 7,
    "actor stopped": 3,
    "environment raises": 4,
    "environment crashes": 4,
    "evaluation crashes": 3,
    "learner killed": 6,
    "network stalls": 3,
}
"""Kind of fault -> how many; their order is random."""
FILES = {
    "environment raises": RAISES,
    "environment crashes": CRASHES,
    "evaluation crashes": EVALUATION_CRASHES,
}
ACTORS, STEP_MS = 2, 200.0
STALL_S = 30.0
HANGS_S = 1200.0
"""Without a line of metrics for so long, a run counts as hanging."""


def saved_rows(run: Path) -> dict[str, np.ndarray]:
    """The rows of the replay in the newest checkpoint; none before the first."""
    while True:
        try:
            found = checkpoint.find_newest(run / CHECKPOINTS, only=("replay",))
        except (OSError, CorruptCheckpointError):
            continue  # it was being replaced by the next one
        return {} if found is None else found.parts["replay"]


def count_steps(rows: dict[str, np.ndarray]) -> int:
    """Environment steps in a checkpoint; other rows hold what was seen after the last one of an
    episode."""
    return sum(int(steps.sum()) for steps in steps_of(rows))


def steps_of(rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Of every stream, which of its rows [size] are steps."""
    sizes = rows["size"] if rows else ()
    return [rows["is_step"][stream, :size] for stream, size in enumerate(sizes)]


def lost_steps(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> int:
    """Steps of an earlier checkpoint that are not, to the bit, in a later one."""
    lost = 0
    names = [name for name in before if name.startswith("observation/")]
    for stream, steps in enumerate(steps_of(before)):
        there = min(len(steps), int(after["size"][stream]))
        same = np.zeros(len(steps), bool)
        same[:there] = after["is_step"][stream, :there]
        for name in ("action", "reward", "success", *names):
            old, new = before[name][stream, :there], after[name][stream, :there]
            same[:there] &= np.all((old == new).reshape(there, -1), axis=1)
        lost += int(np.sum(steps & ~same))
    return lost


def below(process: subprocess.Popen[bytes], *names: str) -> list[psutil.Process]:
    """The processes that a run has started whose command begins with one of the names' programs."""
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            if any(name in each.cmdline()[0] for name in names):
                found.append(each)
    return found


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    """The same signal to all that are there."""
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(number)


def strike(
    kind: str, run: Path, process: subprocess.Popen[bytes], rng: np.random.Generator
) -> bool:
    """Makes one fault happen; whether it could."""
    if kind in FILES:
        (faults_of(run) / FILES[kind]).touch()
    elif kind == "learner killed":
        process.kill()
        process.wait()
    elif kind == "network stalls":
        stalled = below(process, "gcs_server", "raylet", "ray::")
        signal_all(stalled, signal.SIGSTOP)
        time.sleep(STALL_S)
        signal_all(stalled, signal.SIGCONT)
    else:
        victims = below(process, "ray::RemoteActor")
        if not victims:
            return False
        victim = victims[int(rng.integers(len(victims)))]
        signal_all([victim], signal.SIGKILL if kind == "actor killed" else signal.SIGSTOP)
    return True


class Hangs(Exception):
    """A run gave no line of metrics for too long."""


class Suffering:
    """A run that suffers faults."""

    def __init__(self, run: Path, steps: int, seed: int):
        """Begins it."""
        self.run, self.resumed = run, 0
        self._config = configuration(ACTORS, steps, seed, often=True)
        self.process = begin(run, self._config, STEP_MS)

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return (self.run / SUMMARY).is_file()

    def resume_if_ended(self) -> None:
        """Goes on where the process has ended before the run was over."""
        if self.process.poll() is not None and not self.over:
            self.process = begin(self.run, self._config, STEP_MS)
            self.resumed += 1

    def wait_for_lines(self, more: int) -> None:
        """Until there are so many more lines of metrics, or the run is over."""
        newest, seen, since = None, 0, time.monotonic()
        while not self.over and seen < more:
            self.resume_if_ended()
            lines = read_lines(self.run / METRICS)
            if lines and lines[-1] != newest and lines[-1]["env_steps"]:
                newest, seen, since = lines[-1], seen + (newest is not None), time.monotonic()
            if time.monotonic() - since > HANGS_S:
                raise Hangs
            time.sleep(0.1)

    def end(self) -> None:
        """Ends what is left of it."""
        if self.process.poll() is None:
            left = below(self.process, "")
            signal_all([psutil.Process(self.process.pid), *left], signal.SIGKILL)
        self.process.wait()


def left(run: Path) -> list[str]:
    """Faults that wait for an environment to suffer them."""
    return [kind for kind, name in FILES.items() if (faults_of(run) / name).exists()]


def suffer(run: Path, kinds: list[str], steps: int, seed: int) -> dict[str, Any]:
    """One run with faults of these kinds, one after the other; whether it came out right."""
    rng, began = np.random.default_rng((seed, 1)), time.monotonic()
    suffering, happened = Suffering(run, steps, seed), []
    kept, lost, hangs = 0, 0, False
    checked: list[dict[str, np.ndarray]] = []
    try:
        for kind in kinds:
            suffering.wait_for_lines(2)
            while kind in left(run) and not suffering.over:
                suffering.wait_for_lines(1)  # the last one of this kind has not happened yet
            time.sleep(rng.uniform(0, 3))
            suffering.resume_if_ended()
            if suffering.over or not strike(kind, run, suffering.process, rng):
                continue
            happened.append({"kind": kind, "s": time.monotonic() - began})
            checked.append(saved_rows(run))
            print(run.name, happened[-1], flush=True)
        suffering.wait_for_lines(10**9)
        suffering.process.wait(HANGS_S)
    except (Hangs, subprocess.TimeoutExpired):
        hangs = True
    finally:
        suffering.end()
    last, after = read_lines(run / METRICS)[-1], saved_rows(run)
    for before in checked:
        kept += count_steps(before)
        lost += lost_steps(before, after)
    return {
        "seed": seed,
        "faults": [each for each in happened if each["kind"] not in left(run)],
        "resumed": suffering.resumed,
        "finished": not hangs and suffering.over and last["env_steps"] == steps,
        "hangs": hangs,
        "updates_made_of_due": ratio(last, steps),
        "saved_steps_checked": kept,
        "saved_steps_lost": lost,
        "steps_in_replay": count_steps(after),
        "restarts": last["actors/restarts"],
        "lost_steps": last["actors/lost_steps"],
        "seconds": time.monotonic() - began,
    }


def struck(results: list[dict[str, Any]]) -> list[str]:
    """The faults of some runs."""
    return [each["kind"] for result in results for each in result["faults"]]


def together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """All runs, and sums."""
    sums = ("finished", "saved_steps_checked", "saved_steps_lost", "resumed")
    return {
        "faults": {kind: struck(results).count(kind) for kind in COUNTS},
        **{name: int(sum(result[name] for result in results)) for name in sums},
        "runs": results,
    }


def drawn(seed: int, each: int, results: list[dict[str, Any]]) -> list[str]:
    """The faults of a run: its part of all of them in random order; of a run beyond these, some
    that did not happen, such as those drawn too late in their run."""
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    if seed * each < len(kinds):
        order = np.random.default_rng(0).permutation(len(kinds))
        return [kinds[index] for index in order[seed * each : (seed + 1) * each]]
    done = struck(results)
    rest = [kind for kind, count in COUNTS.items() for _ in range(count - done.count(kind))]
    return rest[:each]


def made(folder: Path, seed: int, steps: int, kinds: list[str]) -> dict[str, Any]:
    """What a run suffered; it is made unless it is over already."""
    run, record = folder / f"run-{seed}", folder / f"run-{seed}.json"
    if not record.is_file():
        shutil.rmtree(run, ignore_errors=True)  # a part of one
        shutil.rmtree(faults_of(run), ignore_errors=True)
        write_text(record, json.dumps(suffer(run, kinds, steps, seed)))
    return json.loads(record.read_text())


def main() -> None:
    """Runs until every fault has happened as often as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=5, help="faults of one run")
    parser.add_argument("--steps", type=int, default=600, help="of each run")
    parser.add_argument("--dir", type=Path, default=Path("runs/actors-faults"))
    parser.add_argument("--only", type=int, nargs="+", help="these runs, and no results")
    given = parser.parse_args()
    for seed in given.only or ():
        print(made(given.dir, seed, given.steps, drawn(seed, given.each, [])), flush=True)
    if given.only:
        return
    results: list[dict[str, Any]] = []
    while kinds := drawn(len(results), given.each, results):
        results.append(made(given.dir, len(results), given.steps, kinds))
        print(results[-1], flush=True)
        print(write_result("actors_faults", together(results)), flush=True)


if __name__ == "__main__":
    main()
