"""What `kill_resume.py` ends: the variants of a run, the processes of a command, and the moments at
which they are ended."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from same_runs import plain_lines

from exporl.files.run_files import CHECKPOINTS, CONFIG, EVAL, METRICS, SUMMARY

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
"""Where the processes run: modules of the user's own are looked for there."""
MARK = "EXPORL_KILL_RESUME"
"""Variable that every process of one command inherits, wherever it goes."""
POLL_S = 0.01
"""Between two looks at a run: each takes time from it where there is one core."""
LONGEST_S = 900.0
"""A process that takes longer hangs."""

_PROBE: dict[str, Any] = {
    "task": "probe/delay", "preset": "tiny", "base.width": 16, "base.num-blocks": 1,
    "base.time-dim": 8, "base.num-steps": 2, "train.batch-size": 8, "train.utd-ratio": 2,
    "train.offline-steps": 300, "train.online-steps": 120, "train.update-after": 4,
    "eval.every": 30, "eval.episodes": 4, "eval.num-envs": 2, "log.every": 10,
    "log.save-every": 15, "data.demos": 6,
}  # fmt: skip
_SMALL_CRITICS = {"algo.hidden": 16, "algo.num-qs": 3}
_CRITICS = _SMALL_CRITICS | {"algo.num-base-samples": 2}
_EXPO = _CRITICS | {"algo.num-edit-samples": 2, "train.critic-warmup-steps": 6}
_GUARD = {"train.guard": "auto"}
_DIFFUSION = {"base.kind": "diffusion"}
_METAWORLD = {
    "task": "metaworld/reach-v3", "train.online-steps": 60, "eval.every": 1000, "eval.episodes": 1,
    "eval.num-envs": 1, "data.demos": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Variant:
    """One run, or one folder of seeds, that is ended and resumed."""

    algorithm: str
    options: dict[str, Any]
    """What differs from the probe's; None leaves an option out."""
    mode: str = ""
    """How many seeds are trained, processes or vmap; empty: it is a single run."""

    @property
    def exact(self) -> bool:
        """Whether a resumption promises the same bits. Seeds of one program that stand at different
        steps are computed in smaller batches, whose float32 sums have another order."""
        return self.mode != "vmap"

    def command(self, run: Path) -> list[str]:
        """The arguments that begin it."""
        options = _PROBE | self.options
        given = {name: str(value) for name, value in options.items() if value is not None}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        return ["train", self.algorithm, *words, "--run-dir", str(run), *self._seeds()]

    def option(self, name: str) -> Any:
        """The value of an option."""
        return (_PROBE | self.options)[name]

    def resumption(self, run: Path) -> list[str]:
        """The arguments that go on with it."""
        trust = ["--trust"] if ":" in self.algorithm else []
        mode = ["--seeds-mode", self.mode] if self.mode else []
        return ["train", "--resume", str(run), *trust, *mode]

    def _seeds(self) -> list[str]:
        return ["--seeds", "2", "--seeds-mode", self.mode] if self.mode else []

    def runs(self, run: Path) -> list[Path]:
        """Its run directories."""
        return [run / "s0", run / "s1"] if self.mode else [run]


_FILTERED = _EXPO | _DIFFUSION | {"algo.backup": "filtered", "num-envs": 2}
_CACHED = _EXPO | {"algo.backup": "cached", "algo.cache-refresh": 8}
_NO_BASE = dict.fromkeys(name for name in _PROBE if name.startswith("base."))
_RLPD = _NO_BASE | _SMALL_CRITICS | {
    "train.offline-steps": 0, "train.random-steps": 6,
}  # fmt: skip
SINGLE = {
    "expo, fresh, flow": Variant("expo", _EXPO | _GUARD),
    "expo, filtered, diffusion": Variant("expo", _FILTERED | _GUARD),
    "expo, cached, flow": Variant("expo", _CACHED | _GUARD | {"num-envs": 3}),
    "expo, cached, diffusion": Variant(
        "expo", _CACHED | _DIFFUSION | {"train.critic-pretrain-steps": 40}
    ),
    "idql, diffusion": Variant("idql", _CRITICS | _DIFFUSION | {"num-envs": 2}),
    "fql, flow": Variant(
        "fql", _SMALL_CRITICS | {"num-envs": 3, "train.critic-pretrain-steps": 40}
    ),
    "qam, flow": Variant("qam", _CRITICS),
    "rlpd": Variant("rlpd", _RLPD | {"num-envs": 2}),
    "bc, diffusion": Variant("bc", _DIFFUSION | {"num-envs": 3, "train.offline-steps": 600}),
    "custom algorithm": Variant("custom_algorithm:BEST_OF_N", {"algo.num-samples": 2}),
    "expo, fresh, flow, Meta-World": Variant("expo", _EXPO | _GUARD | _METAWORLD),
    "rlpd, Meta-World": Variant("rlpd", _RLPD | _METAWORLD | {"num-envs": 2}),
}
SEEDS = {
    "seeds in processes": Variant("expo", _EXPO | _GUARD, mode="processes"),
    "seeds in one program": Variant("expo", _EXPO | {"num-envs": 2}, mode="vmap"),
}
VARIANTS = SINGLE | SEEDS


# Processes.


class Command:
    """One command of the user, with everything that it starts."""

    def __init__(self, args: Sequence[str], log: Path, programs: Path):
        """Starts it.

        Args:
            args: of `exporl`.
            log: gets what it prints.
            programs: where compiled programs are kept.
        """
        self.args, self.log, self.mark = list(args), log, f"{os.getpid()}-{time.time_ns()}"
        environment = os.environ | {
            MARK: self.mark,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "JAX_COMPILATION_CACHE_DIR": str(programs),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "exporl.cli", *args],
                cwd=EXAMPLES,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.began = time.monotonic()

    def living(self) -> list[int]:
        """Its processes, children that it has left behind included."""
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                content = path.read_bytes()
            except OSError:  # it has ended, or is somebody else's
                continue
            if wanted in content.split(b"\0"):
                found.append(int(path.parent.name))
        return found

    def children(self) -> list[int]:
        """Its processes but for the one that was started."""
        return [pid for pid in self.living() if pid != self.process.pid]

    def ended(self) -> bool:
        """Whether the process that was started has ended; one that hangs is killed.

        Raises:
            TimeoutError: it hung.
        """
        if self.process.poll() is not None:
            return True
        if time.monotonic() - self.began > LONGEST_S:
            self.clear()
            raise TimeoutError(f"still running after {LONGEST_S:.0f} s")
        return False

    def wait(self) -> int:
        """Its status once it has ended."""
        while not self.ended():
            time.sleep(10 * POLL_S)
        return self.process.wait()

    def wait_for_orphans(self, longest_s: float = 300.0) -> list[int]:
        """Waits until nothing of it is left; the processes that are left all the same, killed."""
        end = time.monotonic() + longest_s
        while (left := self.living()) and time.monotonic() < end:
            time.sleep(10 * POLL_S)
        self.clear()
        return left

    def clear(self) -> None:
        """Kills whatever is left of it, and waits until it is gone."""
        while left := self.living():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(POLL_S)
        self.process.wait()

    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")


def cpu_s(pids: Iterable[int]) -> float:
    """Processor seconds that processes have used: a clock that does not run while others do."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def listing(run: Path) -> frozenset[tuple[str, int]]:
    """Names and sizes of all files below a folder, as far as they stand still."""
    found, folders = set(), [str(run)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    folders += [entry.path] if is_folder else []
                    found.add((entry.path, 0 if is_folder else entry.stat().st_size))
        except OSError:  # it was removed or renamed meanwhile
            continue
    return frozenset(found)


class Moment(NamedTuple):
    """When a process is ended."""

    kind: str
    """cpu: after so many processor seconds; change: after so many changes of the run's files."""
    value: float
    delay_s: float = 0.0


class Watched:
    """Counts what a command has done so far."""

    def __init__(self, command: Command, run: Path, *, children: bool = False):
        """Begins.

        Args:
            command: what does it.
            run: where its files are.
            children: whether it has processes of its own.
        """
        self.command, self.run, self.changes = command, run, 0
        self._last, self._pids = listing(run), [command.process.pid]
        self._children, self._polls = children, 0

    def cpu_s(self) -> float:
        """Processor seconds so far, of the processes that live."""
        if self._children and self._polls % 25 == 0:
            self._pids = self.command.living()
        self._polls += 1
        return cpu_s(self._pids)

    def look(self) -> None:
        """Counts a change of the files."""
        now = listing(self.run)
        self.changes += now != self._last
        self._last = now

    def wait_until(self, moment: Moment) -> bool:
        """Waits for a moment; False where the command ended before."""
        while not self.command.ended():
            self.look()
            if (self.changes if moment.kind == "change" else self.cpu_s()) >= moment.value:
                time.sleep(moment.delay_s)
                return not self.command.ended()
            time.sleep(POLL_S)
        return False


def phase_of(run: Path, evaluate_every: int) -> str:
    """What a run was doing when it was ended, from its files."""
    if not (run / CONFIG).is_file():
        return "before the run"
    if (run / SUMMARY).is_file():
        return "report"
    if any((run / CHECKPOINTS).glob(".tmp-*")):
        return "checkpoint"
    lines, evaluations = (plain_lines(run / name) for name in (METRICS, EVAL))
    if not lines:
        return "building"
    if lines[-1]["phase"] != "online":
        return lines[-1]["phase"]
    evaluated = evaluations[-1]["env_steps"] if evaluations else -1
    due = lines[-1]["env_steps"] // evaluate_every
    return "evaluation" if due > evaluated // evaluate_every else "online"
