"""Asking environments, one call at a time: whatever one of them raises or gives ends in one
sentence that says where, and whoever waits is told for what."""

import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from exporl.acting.checked import UnusableValue
from exporl.acting.failures import EnvironmentFailed, EnvironmentLost, StoppedAtOnce
from exporl.files.movies import FilmNotWritten
from exporl.units import EXECUTED


class Answer(NamedTuple):
    """What a step gave."""

    observation: dict[str, np.ndarray]
    reward: float
    """In the learning convention."""
    terminated: bool
    truncated: bool
    success: bool
    executed: np.ndarray | None = None
    """[a] in [-1, 1]: the action that was executed, where the environment reports it."""


class Watch:
    """Says, once per call, that an environment has not answered for a while."""

    def __init__(self, silence_s: float = float("inf"), say: Callable[[str], None] | None = None):
        """Looks at nothing yet.

        Args:
            silence_s: seconds without an answer after which it is said; infinite: never.
            say: told where the run waits.
        """
        self._silence_s, self._say = silence_s, say
        self._asked: tuple[str, float] | None = None
        self._told: tuple[str, float] | None = None
        self._closed, self._thread = threading.Event(), None

    def begin(self, what: str) -> None:
        """From now on an answer is waited for."""
        if self._say is not None and self._thread is None:
            self._closed.clear()
            self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
            self._thread.start()
        self._asked = what, time.monotonic()

    def end(self) -> None:
        """Nothing is waited for."""
        self._asked = None

    def close(self) -> None:
        """Looks no longer; the next call begins anew."""
        self._closed.set()
        self._thread = None

    def _look(self) -> None:
        closed = self._closed
        while not closed.wait(min(1.0, self._silence_s / 4)):
            asked = self._asked
            if asked is None or asked is self._told or self._say is None:
                continue
            silent = time.monotonic() - asked[1]
            if silent >= self._silence_s:
                self._told = asked
                self._say(
                    f"{asked[0]} has not returned for {silent:.0f} s. The run waits for it; Ctrl-C "
                    "twice stops it with everything saved."
                )


class Asked:
    """Environments that are asked by number. Nothing that one of them raises passes as it is.

    Raises:
        EnvironmentFailed: from `reset` and `step`; says what happened in which episode, at which
            step.
        FilmNotWritten: from `reset` and `step` of environments that are filmed.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        reward: Callable[[float], float],
        *,
        evaluating: bool = False,
        watch: Watch | None = None,
    ):
        """Nothing is asked yet.

        Args:
            envs: what is asked.
            reward: environment reward -> learning reward.
            evaluating: whether these are the environments of an evaluation, for messages.
            watch: looks whether they answer.
        """
        self._envs, self._reward = envs, reward
        self._name = "evaluation environment" if evaluating else "environment"
        self._watch = watch or Watch()
        self._episodes = [(0, 0)] * len(envs)
        """(number, seed) of every environment's episode."""
        self._steps = [0] * len(envs)

    def reset(self, number: int, *, episode: int, seed: int, env_step: int | None = None) -> Any:
        """The first observation of an episode.

        Args:
            number: of the environment.
            episode: its number, for messages.
            seed: what it starts from.
            env_step: environment steps of the run so far, for messages.
        """
        self._episodes[number], self._steps[number] = (episode, seed), 0
        reset = functools.partial(self._envs[number].reset, seed=seed)
        return self._ask("reset", number, env_step, reset)[0]

    def step(self, number: int, action: np.ndarray, env_step: int | None = None) -> Answer:
        """One step of one environment.

        Args:
            number: of the environment.
            action: [a].
            env_step: number of this step in the run, for messages.
        """
        self._steps[number] += 1
        return self._ask("step", number, env_step, lambda: self._answer(number, action))

    def _answer(self, number: int, action: np.ndarray) -> Answer:
        seen, paid, terminated, truncated, info = self._envs[number].step(action)
        reward, success = self._reward(float(paid)), bool(info.get("success", False))
        if not math.isfinite(reward):
            raise UnusableValue(f"the reward {paid}, which Task.reward turned into {reward}")
        executed = info.get(EXECUTED)
        if executed is not None:
            executed = np.clip(executed, -1.0, 1.0).astype(np.float32)
        return Answer(seen, reward, bool(terminated), bool(truncated), success, executed)

    def _ask(self, call: str, number: int, env_step: int | None, ask: Callable[[], Any]) -> Any:
        episode, seed = self._episodes[number]
        at = "" if env_step is None else f"at environment step {env_step} "
        step = f"step {self._steps[number]} of it, " if call == "step" else ""
        where = f"{at}({self._name} {number}, episode {episode}, {step}seed {seed})"
        what = f"the environment's {call}"
        try:
            self._watch.begin(f"{what} {where}")
            return ask()
        except StoppedAtOnce as stopped:
            stopped.inside = f"{what} {where}"
            raise
        except FilmNotWritten:  # no fault of the environment, whose pictures are taken
            raise
        except EnvironmentLost as lost:
            raise EnvironmentLost(f"{what} {where} got no answer: {lost}") from lost
        except UnusableValue as error:
            raise EnvironmentFailed(f"{what} gave {error}, {where}.") from error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and _ctrl_c_raises():
                raise
            said = f": {error}" if str(error) else ""
            raise EnvironmentFailed(
                f"{what} raised {type(error).__name__}{said}, {where}."
            ) from error
        finally:
            self._watch.end()


def _ctrl_c_raises() -> bool:
    """Whether a KeyboardInterrupt may come from the keyboard: nobody has taken over the signal."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
