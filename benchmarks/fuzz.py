"""A fuzz of the command line: hundreds of command lines that should not work, and of hostile data
files and run directories. Every one has to end in a clean answer.

    .venv/bin/python benchmarks/fuzz.py [--lines 500] [--files 330] [--runs 170] [--processes 40]

A clean answer: exit status 0 only where the request was right; one message, which names the option,
the word or the file; no stack trace, no warning of a library, no control characters; nothing left
behind; no more memory than three times the size that a file states, beside what the same command
takes for a file that is in order; at most ten seconds. Some of the command lines are run as
processes of their own too, and have to say the same. Writes benchmarks/results/fuzz.json.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fuzz_commands import FILE, RUN, TASK, Line, command_lines
from fuzz_files import builder, data_files
from fuzz_process import (
    ACCEPTED,
    Answer,
    Hostile,
    answer_of,
    stated_size,
    true_process,
    warm_up,
)
from fuzz_runs import run_directories

from exporl.cli.status import plain

MOST_S = 10.0
"""Seconds of processor time for an answer."""
TIMES_STATED = 3
FREE = 32 * 2**20
"""Bytes that an answer may take beside: text, tables, what an allocator keeps."""
LONGEST = 6000
"""Characters of a message."""
REFUSED = 2
LISTS = (" faults in ", "promises broken")
"""What commands end with that list what is wrong."""
TRAIN = "--base.width 8 --base.num-blocks 1 --base.time-dim 4 --train.batch-size 8 --data.demos 4 "
TRAIN += "--train.offline-steps 8 --train.online-steps 8 --eval.episodes 2 --eval.num-envs 2 "
TRAIN += "--log.save-every 4"
OF_FILES: tuple[tuple[str, ...], ...] = (
    ("data", "inspect", "FILE"),
    ("data", "validate", "FILE"),
    ("data", "convert", "FILE", "out.npz"),
    ("check", TASK, "--data", "FILE"),
    ("data", "inspect", "FILE", "--skip-bad"),
    ("train", "bc", "--task", TASK, "--run-dir", "new", "--data.path", "FILE"),
    ("data", "convert", "FILE", "out.hdf5", "--skip-bad", "--scale-actions"),
)
"""What is done with data files, in turn."""
OF_RUNS: tuple[tuple[str, ...], ...] = (
    ("report", "FILE"),
    ("train", "--resume", "FILE"),
    ("eval", "FILE"),
    ("report", "FILE", "--output", "page.html"),
)
"""What is done with run directories, in turn."""
_MESSAGE = re.compile(r"^(error: |╭─ \w)", re.MULTILINE)
OBEYED = "characters that a terminal obeys"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e]")


@dataclasses.dataclass(frozen=True)
class Fault:
    """An answer that is not clean."""

    line: str
    kind: str
    """The kind of mistake or hostility."""
    fault: str
    said: str


def squeezed(said: str) -> str:
    """Text without the line breaks and frames that its layout puts in."""
    return re.sub(r"[\s│]+", "", said)


def faults_of_text(answer: Answer, names: tuple[str, ...]) -> Iterator[str]:
    """What is not clean about what a refusal says."""
    messages = _MESSAGE.findall(answer.error)
    listed = any(words in answer.out for words in LISTS)
    if len(messages) != 1 and not listed:
        yield f"{len(messages)} messages"
    if (
        names
        and not listed
        and not any(
            squeezed(each) in squeezed(answer.said)
            for name in names
            for each in (name, plain(name))
        )
    ):
        yield f"names none of {', '.join(names)[:100]}"
    if len(answer.said) > LONGEST:
        yield f"{len(answer.said)} characters"


def faults_of(answer: Answer, refused: bool, names: tuple[str, ...]) -> Iterator[str]:
    """What is not clean about an answer."""
    if answer.status < 0:
        yield f"ended by signal {-answer.status}"
    elif answer.status not in (0, REFUSED, ACCEPTED):
        yield f"exit status {answer.status}"
    elif answer.status == REFUSED:
        yield from faults_of_text(answer, names)
    elif refused:
        yield "accepted"
    if "Traceback (most recent call last)" in answer.said:
        yield "a stack trace"
    if "Warning: " in answer.said:
        yield "a warning of a library"
    if _CONTROL.search(answer.said):
        yield OBEYED
    if answer.cpu_s > MOST_S:
        yield f"{answer.cpu_s:.0f} s"


def content_of(folder: Path) -> dict[str, int]:
    """Every path below a folder with its size, but for what a command may leave: the lock of a run
    that was looked at."""
    return {
        str(path.relative_to(folder)): path.lstat().st_size if path.is_file() else -1
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def left_behind(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """What changed in a folder, in words; "" where nothing did."""
    names = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
    return f"left behind or changed: {', '.join(names[:4])}" if names else ""


class Fuzz:
    """Asks, judges, counts."""

    def __init__(self, scratch: Path):
        self.scratch, self.faults = scratch, list[Fault]()
        self.counts: collections.Counter[str] = collections.Counter()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.cpu_s: list[float] = []
        self.references: dict[tuple[str, ...], int] = {}
        self.most = 0.0
        """Memory of a hostile file at most, in parts of what it may take."""

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder for one command."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            yield Path(name)

    def ask(self, args: tuple[str, ...], folder: Path) -> tuple[Answer, str]:
        """The answer of a command, and what it left behind."""
        before = content_of(folder)
        answer = answer_of(args, folder, logs=self.scratch)
        changed = left_behind(before, content_of(folder))
        return answer, changed if answer.status == REFUSED else ""

    def judge(
        self, args: tuple[str, ...], kind: str, found: list[str], answer: Answer, group: str
    ) -> None:
        """Notes an answer and its faults."""
        self.counts[group] += 1
        outcome = {0: "done", ACCEPTED: "accepted", REFUSED: "refused"}.get(answer.status, "other")
        self.outcomes[f"{group} {outcome}"] += 1
        self.cpu_s.append(answer.cpu_s)
        for fault in found:
            line = " ".join(("exporl", *map(ascii_of, args)))
            self.faults.append(Fault(line, kind, fault, ascii_of(answer.said[-600:])))
            print(f"{kind}: {line[:200]}: {fault}: {ascii_of(answer.said[-300:])}", flush=True)

    def line(self, line: Line, fixtures: Path) -> Answer:
        """One command line."""
        with self.folder() as folder:
            lay_out(fixtures, folder, RUN in line.args)
            answer, changed = self.ask(line.args, folder)
        found = [*faults_of(answer, line.refused, line.names), *filter(None, [changed])]
        if _CONTROL.search("".join(line.args)):  # they are the user's own
            found = [fault for fault in found if fault != OBEYED]
        self.judge(line.args, line.what, found, answer, "command lines")
        return answer

    def hostile(self, case: Hostile, command: tuple[str, ...], group: str) -> None:
        """One hostile file or run directory."""
        with self.folder() as folder:
            try:
                path = case.make(folder)
            except (OSError, ValueError) as error:  # cannot be made with these libraries
                print(f"not made: {case.what}: {error}", flush=True)
                self.outcomes["not made"] += 1
                return
            size = max(case.stated, stated_size(path), 1)
            args = tuple(f"./{path.name}" if each == "FILE" else each for each in command)
            answer, changed = self.ask(args, folder)
        names = (printable(path.name)[:50], *(("checkpoint-",) if path.name == RUN else ()))
        found = [*faults_of(answer, case.refused, names), *filter(None, [changed])]
        allowed = self.references[command] + TIMES_STATED * size + FREE
        self.most = max(self.most, answer.peak / allowed)
        if answer.peak > allowed:
            found.append(f"{answer.peak >> 20} MiB of memory, {allowed >> 20} are allowed")
        self.judge(args, case.what, found, answer, group)

    def measure(self, commands: tuple[tuple[str, ...], ...], fixtures: Path) -> None:
        """What every command takes for files that are in order: the most of all formats."""
        for command in commands:
            peaks = []
            for name in ("d4rl", "lerobot") if command in OF_FILES else (RUN,):
                with self.folder() as folder:
                    file = RUN
                    if command in OF_RUNS:
                        lay_out(fixtures, folder, True)
                    else:
                        file, build = builder(name)
                        build(folder / file)
                    args = tuple(f"./{file}" if each == "FILE" else each for each in command)
                    peaks.append(self.ask(args, folder)[0].peak)
            self.references[command] = max(peaks)


def ascii_of(text: str) -> str:
    """Text as it can be printed anywhere, shortened."""
    shown = text.encode("unicode_escape", "surrogatepass").decode() if text else "''"
    return shown if len(shown) < 1000 else shown[:900] + "..."


def printable(name: str) -> str:
    """The part of a name that a message shows as it is."""
    return max(re.split(r"[^\w.\- é]", name), key=len)


def lay_out(fixtures: Path, folder: Path, run: bool) -> None:
    """What a command line finds in its folder."""
    shutil.copyfile(fixtures / FILE, folder / FILE)
    if run:
        shutil.copytree(fixtures / RUN, folder / RUN)
    (folder / "folder").mkdir()
    (folder / "text.npz").write_text("hello")
    (folder / "empty.npz").touch()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")


def make_fixtures(folder: Path) -> None:
    """Demonstrations and a finished run, made by processes of their own: this one computes
    nothing."""
    command = [sys.executable, "-m", "exporl.cli"]
    collect = ["data", "collect", TASK, "--episodes", "4", "--output", FILE]
    train = ["train", "bc", "--task", TASK, "--preset", "tiny", "--run-dir", RUN, *TRAIN.split()]
    for args in (collect, train):
        subprocess.run([*command, *args], cwd=folder, check=True, capture_output=True)


def same_as_processes(fuzz: Fuzz, lines: list[tuple[Line, Answer]], fixtures: Path) -> int:
    """Runs command lines that were refused once more, as users do; how many."""
    for line, expected in lines:
        with fuzz.folder() as folder:
            lay_out(fixtures, folder, RUN in line.args)
            answer = true_process(line.args, folder)
        if (answer.status, _anywhere(answer.said)) != (expected.status, _anywhere(expected.said)):
            found = ["another answer than within this process"]
            fuzz.judge(line.args, line.what, found, answer, "processes")
        else:
            fuzz.judge(line.args, line.what, [], answer, "processes")
    return len(lines)


def _anywhere(said: str) -> str:
    """What was said, without the folder of the moment and the memory that was free."""
    return re.sub(r"/\S*tmp\S*|[\d.]+ GB are available", "...", said)


def as_user(line: Line) -> bool:
    """Whether a command line can be given to a process: without bytes that end its words."""
    return not any("\0" in word for word in line.args)


def main() -> None:
    """Fuzzes, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=500, help="command lines")
    parser.add_argument("--files", type=int, default=330, help="hostile data files")
    parser.add_argument("--runs", type=int, default=170, help="hostile run directories")
    parser.add_argument("--processes", type=int, default=40, help="lines run as processes too")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(scratch)
        os.environ["COLUMNS"] = "100"
        fixtures = scratch / "fixtures"
        fixtures.mkdir()
        make_fixtures(fixtures)
        warm_up()
        fuzz = Fuzz(scratch)
        asked = [
            (line, fuzz.line(line, fixtures)) for line in command_lines(options.lines, options.seed)
        ]
        fuzz.measure(OF_FILES + OF_RUNS, fixtures)
        for index, case in enumerate(data_files(options.files)):
            fuzz.hostile(case, OF_FILES[index % len(OF_FILES)], "data files")
        for index, case in enumerate(run_directories(fixtures / RUN, options.runs, options.seed)):
            fuzz.hostile(case, OF_RUNS[index % len(OF_RUNS)], "run directories")
        refused = [
            (line, answer) for line, answer in asked if answer.status == REFUSED and as_user(line)
        ]
        same_as_processes(fuzz, refused[: options.processes], fixtures)
    report(fuzz, options, time.perf_counter() - began)


def report(fuzz: Fuzz, options: argparse.Namespace, wall_s: float) -> None:
    """Writes the result and says how many faults there are."""
    from common import write_result  # initialises JAX, which forked processes must not inherit

    result: dict[str, Any] = {
        "command": "benchmarks/fuzz.py",
        "seed": options.seed,
        "asked": dict(fuzz.counts),
        "outcomes": dict(sorted(fuzz.outcomes.items())),
        "longest_answer_cpu_s": round(max(fuzz.cpu_s, default=0.0), 2),
        "most_memory_in_parts_of_allowed": round(fuzz.most, 2),
        "faults": [dataclasses.asdict(fault) for fault in fuzz.faults],
        "wall_s": round(wall_s, 1),
    }
    print(
        write_result("fuzz", result),
        sum(fuzz.counts.values()),
        "asked,",
        len(fuzz.faults),
        "faults",
    )


if __name__ == "__main__":
    main()
