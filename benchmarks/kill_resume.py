"""Runs that are ended at random moments, by SIGKILL, SIGTERM and SIGHUP, and resumed: whether all
are in the end what an unbroken run is, to the bit.

    .venv/bin/python benchmarks/kill_resume.py

A chain is one run: it is started, ended at a random moment, resumed, ended again, and in the end
resumed to its end and compared with the reference of its variant: arrays of the last checkpoint,
metrics, evaluations, summary and the other files, measured times apart. SIGTERM and SIGHUP have to
leave a checkpoint or say why not, and say what to do. Of many seeds, a child or the parent is
killed, after which no process may be left. Moments are drawn over the whole life of a process, by
processor time and by changes of the run's files (a checkpoint half written, a line appended).

Finished chains are appended to <folder>/chains.jsonl; an interrupted benchmark goes on there, and
makes chains that had a fault again, as `--chain kill:17` makes one. Every fault is printed with the
folder that shows it, and the exit status is 1. Writes benchmarks/results/kill_resume.json.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result
from kill_cases import (
    POLL_S,
    ROOT,
    SEEDS,
    SINGLE,
    VARIANTS,
    Command,
    Moment,
    Variant,
    Watched,
    phase_of,
)
from same_runs import differences_of, newest, plain_lines

from exporl.files import checkpoint
from exporl.files.atomic import append_line
from exporl.files.run_files import CONFIG, EVAL, METRICS, SUMMARY

KINDS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "hup": signal.SIGHUP,
         "seeds": signal.SIGKILL}  # fmt: skip
STOPPED = 130
MOST_ENDS = 4
"""Times that one run is ended at most."""


@dataclasses.dataclass
class Reference:
    """An unbroken run, and how much one process does."""

    run: Path
    cpu_s: float
    changes: int


class Chain:
    """One run that is ended again and again."""

    def __init__(self, kind: str, index: int, seed: int, folder: Path):
        names = list(SEEDS if kind == "seeds" else SINGLE)
        self.kind, self.index, self.folder = kind, index, folder
        number = list(KINDS).index(kind)
        self.name = names[(index + 3 * number) % len(names)]  # every kind begins with another
        self.variant: Variant = VARIANTS[self.name]
        self.rng = np.random.default_rng([seed, number, index])
        self.place = folder / f"{kind}-{index}"
        self.run = self.place / "run"
        self.ends: list[dict[str, Any]] = []
        self.faults: list[str] = []

    def make(self, reference: Reference) -> dict[str, Any]:
        """Makes it; what became of it."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        began, wanted = time.monotonic(), int(self.rng.integers(1, MOST_ENDS + 1))
        try:
            while len(self.ends) < wanted and self._end_once(reference) and not self.faults:
                pass
            if not self.faults:
                self._finish(reference)
        except TimeoutError as error:
            self.faults.append(str(error))
        if not self.faults:
            shutil.rmtree(self.place)
        return {
            "kind": self.kind, "index": self.index, "variant": self.name, "ends": self.ends,
            "faults": self.faults, "wall_s": round(time.monotonic() - began, 1),
        }  # fmt: skip

    def _start(self) -> Command:
        """What the user types next: the resumption, or the first command where nothing begun."""
        begun = any(path.is_file() for path in self._begun())
        args = (self.variant.resumption if begun else self.variant.command)(self.run)
        number = len(list(self.place.glob("output-*")))
        return Command(args, self.place / f"output-{number:02d}.txt", self.folder / "programs")

    def _begun(self) -> list[Path]:
        names = [CONFIG, "seeds.json"]
        return [each / name for each in (self.run, *self.variant.runs(self.run)) for name in names]

    def _end_once(self, reference: Reference) -> bool:
        """Starts or resumes it, and ends that; False where it came to its end before."""
        moment = self._moment(reference)
        command = self._start()
        try:
            watched = Watched(command, self.run, children=bool(self.variant.mode))
            if not watched.wait_until(moment):
                self._check_finished(command)
                return False
            end: dict[str, Any] = {"moment": [*moment], "resumed": "--resume" in command.args}
            if self.variant.mode:
                end |= self._kill_one(command)
            else:
                end |= self._signal(command)
            self.ends.append(end)
        finally:
            command.clear()
        return True

    def _moment(self, reference: Reference) -> Moment:
        if self.rng.random() < 0.5:
            return Moment("cpu", round(float(self.rng.uniform(0, reference.cpu_s)), 3))
        delay = float(self.rng.choice([0.0, 0.001, 0.01, 0.1]))
        return Moment("change", int(self.rng.integers(1, reference.changes + 1)), delay)

    def _signal(self, command: Command) -> dict[str, Any]:
        """Sends the signal to a single run; what it led to."""
        before, every = plain_lines(self.run / METRICS), self.variant.option("eval.every")
        during = phase_of(self.run, every)
        os.kill(command.process.pid, KINDS[self.kind])
        status = command.wait()
        if self.kind == "kill":
            return {"during": phase_of(self.run, every), "status": status}
        told = before[-1]["env_steps"] if before else 0
        left = self.variant.option("train.online-steps") - told
        if status == 0 and left > self.variant.option("log.every"):
            self.faults.append(f"the signal was ignored with {left} steps to go ({during})")
        outcome = self._judge_stop(command, status)
        return {"during": during, "status": status, "outcome": outcome}

    def _kill_one(self, command: Command) -> dict[str, Any]:
        """Kills the parent or a child of many seeds; nothing of it may be left."""
        children = sorted(command.children())
        who = "child" if children and self.rng.random() < 0.5 else "parent"
        pid = int(self.rng.choice(children)) if who == "child" else command.process.pid
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            who += " that had ended"
        status = command.wait()
        left = command.wait_for_orphans()
        if left:
            self.faults.append(f"after the {who} was killed, processes {left} were left")
        if who == "child" and status not in (0, 2):
            self.faults.append(f"a child was killed, and the command ended with {status}")
        if who == "child" and status == 2 and "failed: " not in command.said():
            self.faults.append("a child was killed, and nothing was said")
        done = [newest(run) for run in self.variant.runs(self.run)]
        return {"during": who, "status": status, "checkpoints": [p and p.name for p in done]}

    def _judge_stop(self, command: Command, status: int) -> str:
        """What a signal led to that a run is to obey."""
        said = command.said()
        if status == 0 and (self.run / SUMMARY).is_file():
            return "had finished"
        if status == -KINDS[self.kind] and not said.strip() and not self._touched(command):
            return "before the command began"
        if status != STOPPED:
            self.faults.append(f"ended with {status} and said: {said[-300:]!r}")
        elif f"--resume {self.run}" in said and newest(self.run) is not None:
            return self._judge_saved(said)
        elif not (self.run / CONFIG).is_file() and "again" in said:
            return "nothing had begun"
        else:
            self.faults.append(f"does not say what to do: {said[-300:]!r}")
        return "fault"

    def _touched(self, command: Command) -> bool:
        """Whether a command that says nothing had done anything."""
        return "--resume" not in command.args and self.run.exists()

    def _judge_saved(self, said: str) -> str:
        """Whether all is there that is said to be saved."""
        if "everything is saved" not in said:
            return "told what is kept"
        path = newest(self.run)
        assert path is not None
        saved = checkpoint.load(path)[1]["rollout"]["env_steps"]
        lines = plain_lines(self.run / METRICS) + plain_lines(self.run / EVAL)
        told = max((line["env_steps"] for line in lines), default=0)
        if told > saved:
            self.faults.append(f"saved at step {saved}, though the lines tell of {told}")
        return "saved"

    def _finish(self, reference: Reference) -> None:
        """Resumes it to its end, and compares."""
        command = self._start()
        try:
            command.wait()
            self._check_finished(command)
        finally:
            command.clear()
        pairs = zip(self.variant.runs(self.run), self.variant.runs(reference.run), strict=True)
        for mine, theirs in pairs:
            if not self.faults:
                found = differences_of(mine, theirs, exact=self.variant.exact)
                self.faults += [f"{mine.name}: {each}" for each in found]

    def _check_finished(self, command: Command) -> None:
        status, said = command.process.returncode, command.said()
        if status != 0:
            self.faults.append(f"{' '.join(command.args[:4])} ended with {status}: {said[-500:]!r}")


def make_reference(name: str, folder: Path) -> Reference:
    """The unbroken run of a variant, made twice: the second has its programs compiled, and has to
    be the same."""
    variant, place = VARIANTS[name], folder / "reference" / name.replace(", ", "-")
    measured = place / "measured.json"
    if not measured.is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for run in (place / "first", place / "second"):
            command = Command(variant.command(run), place / f"{run.name}.txt", folder / "programs")
            watched, used = Watched(command, run, children=bool(variant.mode)), 0.0
            try:
                while not command.ended():
                    watched.look()
                    used = max(used, watched.cpu_s())
                    time.sleep(POLL_S)
            finally:
                command.clear()
            if command.process.returncode != 0:
                raise SystemExit(f"{name} does not run: {command.said()[-1000:]}")
        pairs = zip(variant.runs(place / "first"), variant.runs(place / "second"), strict=True)
        for one, two in pairs:
            found = differences_of(one, two, exact=variant.exact)
            if found:
                raise SystemExit(f"{name}: two unbroken runs differ: {found}")
        measured.write_text(json.dumps({"cpu_s": used, "changes": watched.changes}))
    return Reference(place / "second", **json.loads(measured.read_text()))


def count_of(kind: str, chains: list[dict[str, Any]]) -> int:
    """Times that runs of a kind were ended so far."""
    return sum(len(chain["ends"]) for chain in chains if chain["kind"] == kind)


def next_chain(wanted: dict[str, int], chains: list[dict[str, Any]]) -> tuple[str, int] | None:
    """The kind that is furthest from what is wanted, and the number of its next chain."""
    open_kinds = [kind for kind in wanted if count_of(kind, chains) < wanted[kind]]
    if not open_kinds:
        return None
    kind = min(open_kinds, key=lambda kind: count_of(kind, chains) / wanted[kind])
    made = {chain["index"] for chain in chains if chain["kind"] == kind}
    return kind, next(index for index in itertools.count() if index not in made)


def result_of(chains: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """What is written: counts of everything, and every fault."""
    counted: dict[str, dict[str, collections.Counter[str]]] = collections.defaultdict(
        lambda: collections.defaultdict(collections.Counter)
    )
    for chain in chains:
        for end in chain["ends"]:
            kind = chain["kind"]
            counted["by_variant"][kind][chain["variant"]] += 1
            counted["during"][kind][end["during"]] += 1
            if "outcome" in end:
                counted["outcomes"][kind][end["outcome"]] += 1
    return {
        "command": "benchmarks/kill_resume.py",
        "seed": options.seed,
        "ended": {kind: count_of(kind, chains) for kind in KINDS},
        "runs": {kind: sum(chain["kind"] == kind for chain in chains) for kind in KINDS},
        **{name: {kind: dict(counts) for kind, counts in kinds.items()}
           for name, kinds in counted.items()},
        "faults": [faults_of(chain) for chain in chains if chain["faults"]],
        "wall_s": round(sum(chain["wall_s"] for chain in chains), 1),
    }  # fmt: skip


def faults_of(chain: dict[str, Any]) -> str:
    """The faults of a chain and how to make them again."""
    again = f"--chain {chain['kind']}:{chain['index']}"
    ends = [(end["moment"], end["during"]) for end in chain["ends"]]
    return f"{chain['variant']} ({again}), ended at {ends}: {'; '.join(chain['faults'])}"


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs of single runs")
    parser.add_argument("--terms", type=int, default=30, help="SIGTERMs")
    parser.add_argument("--hups", type=int, default=30, help="SIGHUPs")
    parser.add_argument("--seed-kills", type=int, default=30, help="SIGKILLs of many seeds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "kill_resume")
    parser.add_argument("--collect", action="store_true", help="report what there is so far")
    parser.add_argument("--chain", help="only this one, such as kill:17; its folder is kept")
    return parser.parse_args()


def main() -> int:
    """Ends runs until all is done that was asked for; 1 where there was a fault."""
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is cleared away
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup: not so for what we start
        signal.signal(signal.SIGHUP, lambda *_: None)
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "chains.jsonl"
    made_so_far = {(chain["kind"], chain["index"]): chain for chain in plain_lines(path)}
    chains = [each for each in made_so_far.values() if options.collect or not each["faults"]]
    wanted = {"kill": options.kills, "term": options.terms, "hup": options.hups,
              "seeds": options.seed_kills}  # fmt: skip
    if options.chain:
        kind, _, index = options.chain.partition(":")
        chain = Chain(kind, int(index), options.seed, folder)
        made = chain.make(make_reference(chain.name, folder))
        print(json.dumps(made, indent=1))
        return bool(made["faults"])
    while not options.collect and (following := next_chain(wanted, chains)) is not None:
        chain = Chain(*following, options.seed, folder)
        made = chain.make(make_reference(chain.name, folder))
        append_line(path, made)
        chains.append(made)
        done = ", ".join(f"{count_of(kind, chains)} of {n} {kind}" for kind, n in wanted.items())
        print(f"{time.strftime('%H:%M:%S')} {done}; {chain.name}: {made['wall_s']} s", flush=True)
        if made["faults"]:
            print(f"FAULT {faults_of(made)}; see {chain.place}", flush=True)
    result = result_of(chains, options)
    print(write_result("kill_resume", result), sum(result["ended"].values()), "ends,",
          len(result["faults"]), "faults")  # fmt: skip
    return bool(result["faults"])


if __name__ == "__main__":
    sys.exit(main())
