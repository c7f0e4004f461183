"""What happens beside a run while it goes on: whoever wants to know is told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from exporl.envs.task import Reward
from exporl.report.returns import number, return_words
from exporl.run.progress import Progress
from exporl.types import Step


@runtime_checkable
class Callback(Protocol):
    """Is told what a run does; every method is optional for a class that inherits from this one.

    Calls come from the thread that acts, when the files of the run say so too. An error ends the
    run as any other error does: the last checkpoint stays. A resumed run tells again what was lost
    since it. What is passed must be left as it is.
    """

    def on_step(self, env_steps: int, steps: Sequence[tuple[int, Step]]) -> None:
        """Every environment has made one step, `env_steps` in all: (environment, step) pairs, with
        observations and rewards as they are learnt from."""

    def on_log_line(self, line: Mapping[str, Any]) -> None:
        """A line was appended to metrics.jsonl."""

    def on_evaluation(self, record: Mapping[str, Any]) -> None:
        """An evaluation was appended to eval.jsonl."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint was written; the run may remove it when it is old (`log.keep`)."""


class Callbacks(Callback):
    """Several callbacks as one, told in their order."""

    def __init__(self, callbacks: Sequence[Callback]):
        self._all = list(callbacks)

    def on_step(self, env_steps: int, steps: Sequence[tuple[int, Step]]) -> None:
        """To all."""
        for callback in self._all:
            callback.on_step(env_steps, steps)

    def on_log_line(self, line: Mapping[str, Any]) -> None:
        """To all."""
        for callback in self._all:
            callback.on_log_line(line)

    def on_evaluation(self, record: Mapping[str, Any]) -> None:
        """To all."""
        for callback in self._all:
            callback.on_evaluation(record)

    def on_checkpoint(self, path: Path) -> None:
        """To all."""
        for callback in self._all:
            callback.on_checkpoint(path)


class Notes(Callback):
    """Says in a few words how a run goes: what stands beside the bar on the terminal."""

    def __init__(self, progress: Progress, reward: Reward = "-1/0"):
        self._progress, self._reward = progress, reward

    def on_log_line(self, line: Mapping[str, Any]) -> None:
        """The loss of imitation; online, speed and success of training."""
        if line["phase"] == "pretrain":
            self._progress.advance(0, f"loss {line.get('base/loss', float('nan')):.3f}")
        elif line["phase"] == "online":
            success = "no episode ended yet"
            if "rollout/success_rate" in line:
                success = f"last 20 episodes {100 * line['rollout/success_rate']:.0f}%"
                if self._reward == "env":
                    success += f", return {number(line['rollout/return_mean'])}"
            if "actors/number" in line:
                success += (
                    f", {line['actors/number']:.0f} actors, {line['actors/restarts']:.0f} "
                    f"restarts, {line['actors/staleness_updates']:.1f} updates behind"
                )
            speed = line["time/env_steps_per_s"]
            self._progress.advance(0, f"{speed:.0f} env steps/s, {success}")

    def on_evaluation(self, record: Mapping[str, Any]) -> None:
        """Success of the policy and of its base; their returns where they are learnt from."""
        found = {who: record[who] for who in ("policy", "base") if who in record}
        text = ", ".join(f"{who} {100 * each['success_rate']:.0f}%" for who, each in found.items())
        returns = f"; {return_words(record)}" if self._reward == "env" else ""
        episodes = len(record["policy"]["success"])
        self._progress.say(
            f"step {record['env_steps']}: evaluation success {text}{returns} ({episodes} episodes)"
        )
