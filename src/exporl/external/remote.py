"""Policies served elsewhere, `ws://HOST:PORT`: by `exporl serve`, or by any server with openpi's
WebSocket protocol.

Samples of many observations are many requests, over several connections at a time. A server that
takes seeds is sent one per observation and sample; of one that does not nothing repeats itself.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from exporl.external.base import OutsidePolicy, PolicyFailed
from exporl.external.connections import Connections, Patience, Question
from exporl.external.told import checkpoint_of, read_told
from exporl.serve.client import SAMPLES
from exporl.spec import Spec

DEADLINE_S, PATIENCE_S = 60.0, 300.0
"""Seconds for an answer, and for a server that was lost. Nobody moves while they pass: a run waits
longer than a robot would."""
CONNECTIONS = 8
"""Requests at a time: more do not make a server faster that decides many in one call."""
REPEATED = 3
"""Times that a question is asked to see whether a connection remembers."""


class RemotePolicy:
    """A policy behind a WebSocket, as base policy: `train(..., base=RemotePolicy(address))`.

    It stays as it is: what is served is not trained from here. Actions of a server that says its
    action bounds are scaled from them to [-1, 1]; others are in [-1, 1], unless `actions` says that
    they are in the environment's own units.
    """

    def __init__(
        self,
        address: str,
        *,
        spec: Spec | None = None,
        api_key: str | None = None,
        deadline_s: float = DEADLINE_S,
        patience_s: float = PATIENCE_S,
        connections: int = CONNECTIONS,
        actions: Literal["unit", "env"] = "unit",
    ):
        """Connects, and reads what the server says of its policy.

        Args:
            address: ws://HOST:PORT, or wss:// through a proxy with a certificate.
            spec: what the task shows, and the chunks of the run: of longer chunks that the server
                answers the first actions are used. None: the answers as they are.
            api_key: what the server wants to be sent.
            deadline_s: seconds within which every answer has to be there. The server has to be
                found within ten of them.
            patience_s: seconds that a server is waited for that was lost later on.
            connections: requests at a time, at most.
            actions: what a server answers that does not say the bounds of its actions: numbers in
                [-1, 1], or in the environment's own units.

        Raises:
            ConnectionError: no server there within the deadline, or it wants another key; names the
                address.
            TimeoutError: a server that says nothing.
            ValueError: no address, no policy server, or a number that is not above 0.
            ModuleNotFoundError: websockets or msgpack is missing; says how to install them.
        """
        if not (connections >= 1 and patience_s > 0):
            raise ValueError(
                "a remote policy needs at least one connection and patience above 0, got "
                f"connections={connections}, patience_s={patience_s}."
            )
        self.address = address
        patience = Patience(deadline_s, patience_s)
        self.connections = Connections(address, api_key, patience, connections)
        """Over which it is asked."""
        self._metadata = self.connections.metadata[0]
        self._told = read_told(self._metadata, address)
        self._shapes = {name: shape for name, shape, _ in self._told.observation or ()}
        self.spec: Spec | None = self._told.fitted(spec)
        """What it reads and gives, as far as the server says it."""
        self.actions = actions if self._told.units is None else "unit"
        """The units of what `sample` returns."""
        self.control_hz = self._told.control_hz
        """Actions per second, where the server says it."""
        self.version = checkpoint_of(self._metadata)
        """The checkpoint that the last answer was made with, where the server says it."""

    @property
    def units(self) -> Any:
        """Bounds of its actions, an `ActionUnits`; None where the server does not say them."""
        return self._told.units

    @property
    def seeded(self) -> bool:
        """Whether its draws are decided by the seed of `sample`."""
        return self._told.seeded

    def sample(
        self, observations: dict[str, np.ndarray], num: int, seed: int
    ) -> Float[np.ndarray, "b n h a"]:
        """`num` answers for every observation. Sample i of row r has the seed s_r + i, the s_r
        being drawn from `seed`.

        Raises:
            PolicyFailed: the server stayed away, gave no answer within the deadline, did not like
                the question, serves another policy, or gives other actions.
        """
        rows = len(next(iter(observations.values())))
        firsts = np.random.SeedSequence(seed).generate_state(rows)
        questions: list[Question] = []
        for row in range(rows):
            message = {name: self._sent(name, value[row]) for name, value in observations.items()}
            questions += self._questions(message, num, int(firsts[row]))
        answers = self.connections.ask(questions)
        self._note(answers[-1])
        made = [
            self._actions(answer, question.message.get(SAMPLES))
            for question, answer in zip(questions, answers, strict=True)
        ]
        if len({actions.shape[1:] for actions in made}) > 1:
            lengths = sorted({actions.shape[1] for actions in made})
            raise self._failed(f"answers chunks of {lengths[0]} and of {lengths[-1]} actions")
        actions = np.concatenate(made)
        return actions.reshape(rows, num, *actions.shape[1:])

    def state(self) -> dict[str, np.ndarray]:
        """What the server says of its policy but its checkpoint, which may change."""
        described = self._told.described()
        return {"described": np.frombuffer(described, np.uint8)} if described else {}

    def remembers(self, observations: Mapping[str, np.ndarray]) -> bool:
        """Whether answers depend on what was asked before on a connection: two new connections
        answer one question, asked several times, with the same series, which is not constant."""
        message = {name: self._sent(name, value[0]) for name, value in observations.items()}
        series = []
        for _ in range(2):
            with self.connections.fresh() as client:
                answers = [client.infer(message) for _ in range(REPEATED)]
            series.append(np.stack([self._actions(answer, None) for answer in answers]))
        constant = bool((series[0] == series[0][:1]).all())
        return not constant and np.array_equal(*series)

    def close(self) -> None:
        """Leaves the server for good."""
        self.connections.close()

    def _sent(self, name: str, value: np.ndarray) -> np.ndarray:
        """An entry of one observation in the shape that the server reads."""
        shape = self._shapes.get(name, value.shape)
        return value.reshape(shape) if value.size == np.prod(shape) else value

    def _questions(self, message: dict[str, Any], num: int, first: int) -> Iterator[Question]:
        """The requests for `num` samples: of several samples each where the server takes that."""
        most = self._told.most_samples
        for start in range(0, num, max(most, 1)):
            seed = (first + start) % 2**32 if self.seeded else None
            several = {SAMPLES: min(most, num - start)} if most else {}
            yield Question(message | several, seed)

    def _actions(self, answer: Mapping[str, Any], samples: int | None) -> np.ndarray:
        """The actions of an answer, [n, h, a] in [-1, 1] or as they are."""
        try:
            actions = np.asarray(answer["actions"], np.float32)
        except (TypeError, ValueError) as error:
            raise self._failed("answers no array of numbers as actions") from error
        one = (None,) if self.units is None else self.units.shape
        lead = actions.shape if samples is not None else (1, *actions.shape)
        fits = len(lead) == 2 + len(one) and lead[0] == (samples or 1)
        if not fits or (self.units is not None and lead[2:] != one):
            raise self._failed(
                f"answers actions of the shape {list(actions.shape)}; [actions of a chunk, "
                f"{'dimensions of an action' if self.units is None else f'*{list(one)}'}] is needed"
            )
        length = max(lead[1], 1) if self.spec is None else self.spec.chunk_length
        if lead[1] < length:
            raise self._failed(
                f"answers chunks of {lead[1]} actions, the run has chunk_length={length}: give "
                f"--chunk-length {max(lead[1], 1)}"
            )
        kept = actions.reshape(*lead[:2], int(np.prod(lead[2:])))[:, :length]
        return kept if self.units is None else self.units.to_unit(kept)

    def _note(self, answer: Mapping[str, Any]) -> None:
        """Looks whether the server still serves what it did.

        Raises:
            PolicyFailed: what its policy takes or gives has changed.
        """
        for metadata in self.connections.metadata:
            if metadata != self._metadata and read_told(metadata, self.address) != self._told:
                raise self._failed("serves another policy than before. Serve the one that it was")
            self._metadata = metadata
        version = checkpoint_of(answer) or checkpoint_of(self._metadata)
        if version != self.version:
            warnings.warn(
                f"the policy server at {self.address} answers from {version} now, before from "
                f"{self.version}: the base policy is another one than the critic knows, and what "
                "follows is not repeated. Serve a finished run, or with --reload-every 0.",
                stacklevel=2,
            )
        self.version = version

    def _failed(self, what: str) -> PolicyFailed:
        return PolicyFailed(f"the policy server at {self.address} {what}.")


def open_ws(rest: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The policy of `ws://HOST:PORT`.

    Raises:
        ConnectionError, TimeoutError, ValueError, ModuleNotFoundError: as `RemotePolicy`.
    """
    return RemotePolicy(f"ws:{rest}", spec=spec, deadline_s=DEADLINE_S)


def open_wss(rest: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The policy of `wss://HOST:PORT`; errors as `open_ws`."""
    return RemotePolicy(f"wss:{rest}", spec=spec, deadline_s=DEADLINE_S)
