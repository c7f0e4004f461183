"""Environments that fail in every way there is, in training and in evaluation: whether the run ends
with the true reason, has saved what it learnt, and goes on to what it would have been.

    .venv/bin/python benchmarks/failures.py

Every failure of `tests/helpers/faults.py` (exceptions of every kind, values that are no values), an
environment that hangs until the run is told twice to stop, and one that is slow: a whole run with
it, then its resumption with a sound environment, whose last checkpoint and evaluations have to be
those of a run that never failed, to the bit. Writes benchmarks/results/failures.json.
"""

import collections
import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from exporl.acting.failures import EnvironmentFailed, in_words
from exporl.files import checkpoint
from exporl.run.loop import train
from exporl.run.stopping import Interrupted
from helpers.faults import FAULTS, faulty_task
from helpers.runs import Heard, evaluations, newest, tiny

SILENCE_S = 0.2
CONFIG = tiny("bc", num_envs=2, **{"log.save_every": 1000, "log.silence_s": SILENCE_S})
WHERE = {False: {"at_step": 9}, True: {"at_step": 11}}
"""Evaluating or not -> when the environment fails: in the middle of the run."""
SAVED_AT = {False: 16, True: 12}
"""Environment steps of the checkpoint that a failure there has to leave."""


def hang(answer: Any) -> Any:
    """Never answers; somebody asks twice to stop."""
    for times in (1, 2):
        threading.Timer(3 * SILENCE_S * times, ask_to_stop).start()
    while True:
        time.sleep(0.01)


def ask_to_stop() -> None:
    """As a service manager does; Ctrl-C is ignored by processes in the background."""
    os.kill(os.getpid(), signal.SIGTERM)


def slow(answer: Any) -> Any:
    """Answers late."""
    time.sleep(3 * SILENCE_S)
    return answer


PLACE = {False: r"at environment step 1[67] \(environment 0,", True: "evaluation environment 0,"}
"""How a message has to say where it was."""


def faults_of(
    folder: Path, straight: Path, fault: Callable[[Any], Any], says: str, evaluating: bool
) -> Iterator[str]:
    """What is wrong with the end of one run, and with what follows."""
    run, heard = folder / "run", Heard()
    task = faulty_task(CONFIG, fault, evaluating=evaluating, **WHERE[evaluating])
    ended = ""
    try:
        train(CONFIG, run, heard, task=task)
    except (EnvironmentFailed, Interrupted) as error:
        ended = in_words(error)
    except BaseException as error:
        yield f"ends as {type(error).__name__}: {error}"
        return
    if fault is slow:
        if ended:
            yield f"ends: {ended}"
        waited = [each for each in heard.said if "has not returned" in each]
        if len(waited) != 1 or not re.search(PLACE[evaluating], waited[0]):
            yield f"waited for without a word: {waited}"
    else:
        yield from faults_of_end(run, ended, says, evaluating, fault is hang)
        train(CONFIG, run, resume=True)
    yield from differences(run, straight)


def faults_of_end(
    run: Path, ended: str, says: str, evaluating: bool, interrupted: bool
) -> Iterator[str]:
    """What is wrong with the message, and with the checkpoint that was left."""
    if not ended:
        yield "ends as if nothing had happened"
        return
    if not re.search(says, ended) or not re.search(PLACE[evaluating], ended):
        yield f"says {ended}"
    if not interrupted and "go on with: exporl train --resume" not in ended:
        yield "does not say how to go on"
    steps = checkpoint.load(newest(run))[1]["rollout"]["env_steps"]
    if steps != SAVED_AT[evaluating]:
        yield f"saved at step {steps}"


def differences(run: Path, straight: Path) -> Iterator[str]:
    """Where a run is not what a run without failure is."""
    (left, one), (right, two) = (checkpoint.load(newest(each)) for each in (run, straight))
    same = one["rollout"] == two["rollout"] and one["updates"] == two["updates"]
    same = same and all(
        np.array_equal(array, right[part][name], equal_nan=True)
        for part, arrays in left.items()
        for name, array in arrays.items()
    )
    if not same:
        yield "goes on to another checkpoint"
    if evaluations(run) != evaluations(straight):
        yield "goes on to other evaluations"


def main() -> None:
    """Lets every environment fail, and counts."""
    began, outcomes = time.perf_counter(), collections.Counter[str]()
    ways = FAULTS | {"hangs": (hang, "stopped while waiting"), "slow": (slow, "")}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        straight = Path(name) / "straight"
        train(CONFIG, straight)
        for way, (fault, says) in ways.items():
            for evaluating in (False, True):
                folder = Path(name) / f"{len(outcomes)}-{sum(outcomes.values())}"
                folder.mkdir()
                found = []
                with contextlib.suppress(KeyboardInterrupt):
                    found = list(faults_of(folder, straight, fault, says, evaluating))
                where = "evaluation" if evaluating else "training"
                outcomes["faulty" if found else "clean"] += 1
                faults += [f"{way} in {where}: {each}" for each in found]
                print(way, where, found or "clean", flush=True)
    result = {
        "command": "benchmarks/failures.py",
        "ways": list(ways),
        "ends": sum(outcomes.values()),
        "clean": outcomes["clean"],
        "faults": faults,
        "wall_s": round(time.perf_counter() - began, 1),
    }
    print(write_result("failures", result), f"{outcomes['clean']} of {result['ends']} clean")


if __name__ == "__main__":
    main()
