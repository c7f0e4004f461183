"""The robot's side of a policy server. Needs NumPy, websockets and msgpack: no JAX, nor anything
else that exporl trains with."""

import contextlib
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporl.serve.jumps import JumpLimiter
from exporl.serve.messages import LARGEST, MessageError, packed, unpacked

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
"""Between two tries to connect: doubled from one to the other."""
SEED = "expo/seed"
SAMPLES = "expo/samples"
"""In an observation, where the server's "extras" name it: how many decisions are asked for."""
TOO_LONG = 1009
"""Close code of a server that takes no message of this length."""
_FINAL = (401, 403)
"""HTTP answers that trying again does not change."""


class Client:
    """A policy behind `exporl serve`, or behind any server with openpi's protocol.

    It connects when it is made, and again whenever the connection was lost. One client is for one
    robot and one thread.
    """

    def __init__(
        self,
        address: str = "ws://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        deadline_s: float = 10.0,
        most_change: float | Sequence[float] | np.ndarray | None = None,
    ):
        """Waits for the server, and for what it says of its policy.

        Args:
            address: ws://HOST:PORT, or wss:// through a proxy with a certificate.
            api_key: what the server wants to be sent.
            deadline_s: seconds within which a server has to be found, and every answer has to be
                there, reconnections included.
            most_change: largest change of a dimension from one action of `next_action` to the next
                (`JumpLimiter`); None: no limit.

        Raises:
            ConnectionError: no server there within the deadline, or it wants another key; names the
                address.
            TimeoutError: a server that says nothing.
            ValueError: the address is none, what answers there is no policy server, or the deadline
                or limit is not above 0.
            ModuleNotFoundError: websockets or msgpack is missing; says how to install them.
        """
        if not deadline_s > 0:
            raise ValueError(f"deadline_s must be above 0, got {deadline_s}.")
        check_packages()
        self.address, self.deadline_s = address, deadline_s
        self.jumps = None if most_change is None else JumpLimiter(most_change)
        """What holds back jumps of `next_action`; its `limited` counts them."""
        self.metadata: dict[str, Any] = {}
        """What the server said of its policy: `exporl serve` has "action_horizon" and, under
        "expo", shapes, units, chunk length, control rate, candidates and the hash of the
        statistics."""
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._connection: Any = None
        self._opened = contextlib.ExitStack()
        self._left: list[np.ndarray] = []
        self._seed = 0
        self._connect(time.monotonic() + deadline_s)

    def __enter__(self) -> "Client":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes."""
        self.close()

    def infer(self, observation: Mapping[str, Any], seed: int | None = None) -> dict[str, Any]:
        """The server's whole answer about one observation: "actions" [h, *shape], and of
        `exporl serve` "expo/q", "expo/index" and "expo/edited" where the policy ranks candidates,
        "expo/seed" and "expo/checkpoint".

        A connection that is lost meanwhile is made anew, and the question asked again.

        Args:
            observation: the entries that the policy reads, and any others.
            seed: decides every draw. By default 0, 1, 2, ... call by call since the last `reset`,
                where the server knows seeds.

        Raises:
            ValueError: what the server did not like about the observation.
            ConnectionError: the server is down and stayed so until the deadline.
            TimeoutError: no answer within the deadline.
        """
        message = dict(observation)
        if seed is None and SEED in _extras(self.metadata):
            seed, self._seed = self._seed, (self._seed + 1) % 2**32
        if seed is not None:
            message[SEED] = seed
        return self._asked(packed(message))

    def act(self, observation: Mapping[str, Any], seed: int | None = None) -> np.ndarray:
        """The chunk of actions to play, [h, *shape] in the environment's own units, as
        `exporl.Policy.act` gives it. Arguments and errors are those of `infer`."""
        return np.asarray(self.infer(observation, seed)["actions"])

    def next_action(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The next action [*shape] of the chunk that is being played; when it is used up, the
        server is asked about this observation. Jumps are held back by `most_change`.

        Raises:
            ValueError: as `infer`, or an action holds NaN or infinity.
            ConnectionError, TimeoutError: as `infer`.
        """
        if not self._left:
            self._left = list(self.act(observation))
        action = self._left.pop(0)
        return action if self.jumps is None else self.jumps(action)

    def reset(self, seed: int = 0, start: Any = None) -> None:
        """An episode begins: the rest of the chunk is forgotten.

        Args:
            seed: where seeds are counted from now on.
            start: the action that the robot stands at, for `most_change`; None: unknown, and the
                first action is played as it is.
        """
        self._left, self._seed = [], seed
        if self.jumps is not None:
            self.jumps.reset(start)

    def close(self) -> None:
        """Leaves the server. The next question connects again."""
        self._connection = None
        with contextlib.suppress(OSError):
            self._opened.close()

    def _asked(self, message: bytes) -> dict[str, Any]:
        """The answer to a message; it is sent again where the connection was lost."""
        from websockets.exceptions import ConnectionClosed

        end = time.monotonic() + self.deadline_s
        while True:
            try:
                if self._connection is None:
                    self._connect(end)
                connection: Any = self._connection
                connection.send(message)
                return self._read(connection.recv(timeout=max(end - time.monotonic(), 0)))
            except TimeoutError as error:
                self.close()  # an answer that comes later would be taken for that of another
                raise TimeoutError(
                    f"the policy server at {self.address} gave no answer within "
                    f"{self.deadline_s:g} s. Is it too busy, or the link too slow?"
                ) from error
            except ConnectionClosed as error:
                self.close()
                if error.rcvd is not None and error.rcvd.code == TOO_LONG:
                    raise ValueError(
                        f"the policy server at {self.address} takes no message of {len(message)} "
                        "bytes: leave out entries that the policy does not read."
                    ) from error
                if time.monotonic() + FIRST_WAIT_S >= end:
                    raise self._down(error) from error
                time.sleep(FIRST_WAIT_S)

    def _read(self, answer: bytes | str) -> dict[str, Any]:
        if isinstance(answer, str):
            self.close()
            raise ValueError(f"the policy server at {self.address} answered: {answer}")
        found = unpacked(answer)
        actions: Any = found.get("actions") if isinstance(found, dict) else None
        if np.ndim(actions) < 1:
            self.close()
            raise MessageError(
                f"the policy server at {self.address} gave an answer without actions."
            )
        return found

    def _connect(self, end: float) -> None:
        """Connects, trying until a moment."""
        from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException

        wait = FIRST_WAIT_S
        self._check_address()
        while True:
            try:
                return self._try(end)
            except InvalidURI as error:
                raise self._no_address() from error
            except ValueError:  # somebody else answers there
                self.close()
                raise
            except (OSError, WebSocketException) as error:
                self.close()
                status = error.response.status_code if isinstance(error, InvalidStatus) else None
                if status in _FINAL or time.monotonic() + wait >= end:
                    raise self._down(error) from error
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _check_address(self) -> None:
        """Refuses a port that is no number up to 65,535, which the library leaves to the system."""
        try:
            _ = urllib.parse.urlsplit(self.address).port
        except ValueError as error:
            raise self._no_address() from error

    def _no_address(self) -> ValueError:
        return ValueError(f"{self.address!r} is no address such as ws://HOST:PORT.")

    def _try(self, end: float) -> None:
        """Connects once, and keeps what the server says of its policy."""
        from websockets.sync.client import connect

        opening = connect(
            self.address,
            compression=None,
            max_size=LARGEST,
            additional_headers=self._headers,
            open_timeout=max(end - time.monotonic(), 0.01),
            close_timeout=1,
            proxy=None,
        )
        self._connection = self._opened.enter_context(opening)
        greeting = self._connection.recv(timeout=max(end - time.monotonic(), 0.01))
        self._greet(greeting)

    def _greet(self, greeting: bytes | str) -> None:
        """Keeps what a server says of its policy."""
        found = {} if isinstance(greeting, str) else unpacked(greeting)
        if not isinstance(found, dict) or isinstance(greeting, str):
            raise ValueError(f"what answers at {self.address} is no policy server.")
        before, now = _interface(self.metadata), _interface(found)
        if self.metadata and before != now:
            raise ValueError(
                f"the server at {self.address} serves another policy since the connection was "
                "lost: what it takes or gives has changed. Make a new client."
            )
        self.metadata = found

    def _down(self, error: BaseException) -> ConnectionError:
        from websockets.exceptions import InvalidStatus

        if isinstance(error, InvalidStatus):
            body = (error.response.body or b"").decode(errors="replace").strip()
            return ConnectionError(
                f"the policy server at {self.address} refuses this client "
                f"({error.response.status_code}): {body:.200}"
            )
        return ConnectionError(
            f"no policy server answers at {self.address}; tried for {self.deadline_s:g} s "
            f"({str(error) or type(error).__name__}). Is `exporl serve RUN` running there, and can "
            "this machine reach it?"
        )


def _interface(metadata: Mapping[str, Any]) -> Any:
    """What a policy takes and gives, of what a server says."""
    expo = metadata.get("expo")
    names = ("observation", "action", "execute_length")
    return {name: expo.get(name) for name in names} if isinstance(expo, dict) else None


def _extras(metadata: Mapping[str, Any]) -> Sequence[str]:
    """Entries beyond openpi's that a server knows."""
    expo = metadata.get("expo")
    return expo.get("extras", ()) if isinstance(expo, dict) else ()


def check_packages() -> None:
    """Whether what both sides of a connection need is there.

    Raises:
        ModuleNotFoundError: websockets or msgpack is missing; says how to install them.
    """
    try:
        import msgpack  # noqa: F401
        import websockets  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the network needs the package {error.name!r}. Install it with: "
            "pip install 'exporl[serve]', or without JAX: pip install numpy websockets msgpack && "
            "pip install --no-deps exporl"
        ) from error
