"""Several connections to one policy server: questions that are asked at the same time, and asked
again where the server was lost."""

import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from exporl.external.base import PolicyFailed
from exporl.serve.client import Client

FIRST_S = 10.0
"""Seconds that a server is looked for at first, at most."""


class Question(NamedTuple):
    """One request."""

    message: Mapping[str, Any]
    """Entries of an observation, and extras."""
    seed: int | None
    """What decides its draws; None: the server's own business."""


class Patience(NamedTuple):
    """How long a server is waited for, in seconds."""

    deadline_s: float
    """For an answer, reconnections of a moment included."""
    patience_s: float
    """For a server that was there and is not any more."""


class Connections:
    """Connections to one server. One caller at a time."""

    def __init__(self, address: str, api_key: str | None, patience: Patience, most: int) -> None:
        """Waits for the server; further connections are opened when there are questions for them.

        Args:
            address: ws://HOST:PORT or wss://HOST:PORT.
            api_key: what the server wants to be sent.
            patience: how long it is waited for.
            most: connections at a time.

        Raises:
            ConnectionError, TimeoutError, ValueError, ModuleNotFoundError: as `exporl.Client`.
        """
        self.address, self._api_key = address, api_key
        self.patience = patience
        """May be exchanged for another at any time."""
        self._wanted = self._most = most
        self._clients = [self._connected(min(FIRST_S, patience.deadline_s))]
        self._threads = ThreadPoolExecutor(most, "policy-server")
        self.close = weakref.finalize(self, _close, self._clients, self._threads)
        """Leaves the server for good; so does whoever loses this object."""

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """What the server said of its policy, connection by connection."""
        return [client.metadata for client in self._clients]

    def ask(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """The answers, in the order of the questions. Warns when the server is lost and waited for.

        Raises:
            PolicyFailed: the server was lost and stayed away, gave no answer within the deadline,
                or did not like a question; names it.
        """
        answers: dict[int, dict[str, Any]] = {}
        end: float | None = None
        while left := [i for i in range(len(questions)) if i not in answers]:
            before = len(answers)
            self._open(len(left))
            answers |= self._asked_once(questions, left)
            if len(answers) == len(questions):
                break
            now = time.monotonic()
            if end is None or len(answers) > before:
                end = now + self.patience.patience_s
                warnings.warn(
                    f"the policy server at {self.address} is lost; it is waited for up to "
                    f"{self.patience.patience_s:g} s more.",
                    stacklevel=2,
                )
            self._return(end - now)
        return [answers[i] for i in range(len(questions))]

    def fresh(self) -> Client:
        """A connection of its own, on which nothing was asked."""
        return self._connected(self.patience.deadline_s)

    def _asked_once(
        self, questions: Sequence[Question], left: Sequence[int]
    ) -> dict[int, dict[str, Any]]:
        """Answers to some of the questions: as many as each connection got."""
        count = len(self._clients)
        for client in self._clients:
            client.deadline_s = self.patience.deadline_s
        lanes = [list(left[start::count]) for start in range(count)]
        futures = [
            self._threads.submit(_answers, client, [questions[i] for i in lane])
            for client, lane in zip(self._clients, lanes, strict=True)
        ]
        try:
            wait(futures)
        except BaseException:  # their answers are still to come, and nobody will take them
            self._clients.clear()
            raise
        found: dict[int, dict[str, Any]] = {}
        for lane, future in zip(lanes, futures, strict=True):
            try:
                found |= zip(lane, future.result(), strict=False)
            except (TimeoutError, ValueError) as error:
                raise PolicyFailed(str(error)) from error
        return found

    def _connected(self, within_s: float) -> Client:
        return Client(self.address, api_key=self._api_key, deadline_s=within_s)

    def _open(self, questions: int) -> None:
        """Opens connections for some questions; a server that takes no more is asked over those
        that there are."""
        while len(self._clients) < min(questions, self._most):
            try:
                self._clients.append(self._connected(self.patience.deadline_s))
            except ConnectionError:
                if not self._clients:
                    raise
                self._most = len(self._clients)

    def _return(self, within_s: float) -> None:
        """Connects anew, once the server is there again."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        try:
            self._clients.append(self._connected(max(within_s, 0.01)))
        except ConnectionError as error:
            raise PolicyFailed(f"{error} Start the server again, then go on.") from error
        self._most = self._wanted


def _answers(client: Client, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The answers to questions that are asked one after the other, until the server is lost."""
    found = []
    for message, seed in questions:
        try:
            found.append(client.infer(message, seed))
        except ConnectionError:
            break
    return found


def _close(clients: list[Client], threads: ThreadPoolExecutor) -> None:
    threads.shutdown(wait=False, cancel_futures=True)
    for client in clients:
        client.close()
