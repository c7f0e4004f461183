"""A task whose environments end their process, or raise, at a moment that a test has chosen: what
happens then does not depend on how fast anybody is."""

import contextlib
import dataclasses
import os
import signal
from pathlib import Path

import gymnasium
import psutil

from exporl.envs.registry import make_task
from exporl.envs.task import Task

TASK = "helpers.faulty:faulty"
RUN = "EXPORL_TEST_RUN"
"""Environment variable: the run directory; faults are files in the folder beside it, and whoever
suffers one removes it."""
AFTER = 15
"""Steps of an environment in an actor before it suffers the next fault."""


def faults_of(run: Path) -> Path:
    """Where faults lie: actor-..., for one actor each, in order; learner, whose content the metrics
    must have."""
    return run.parent / "faults"


class Faulty(gymnasium.Wrapper):
    """Suffers each of the faults once."""

    steps = 0

    def step(self, action):
        self.steps += 1
        run = Path(os.environ[RUN])
        if not psutil.Process().cmdline()[0].startswith("ray::"):
            self._evaluate(run, faults_of(run) / "learner")
        elif self.steps == AFTER and (fault := self._next(faults_of(run))):
            if "raises" in fault:
                raise RuntimeError("it broke")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.env.step(action)

    def _next(self, faults: Path) -> str | None:
        for fault in sorted(faults.glob("actor-*")):
            with contextlib.suppress(FileNotFoundError):  # the other actor's
                fault.unlink()
                return fault.name
        return None

    def _evaluate(self, run: Path, fault: Path) -> None:
        if fault.is_file() and fault.read_text() in (run / "metrics.jsonl").read_text():
            fault.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def faulty() -> Task:
    """The probe task `delay`, with faults."""
    task = make_task("probe/delay")
    return dataclasses.replace(task, name=TASK, make_env=lambda: Faulty(task.make_env()))
