"""Joining a training elsewhere: connects, answers its calls, and comes back where the connection
was lost. Needs NumPy, websockets and msgpack: no JAX."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from exporl.actor.environment import PROTOCOL, ActorEnvironment
from exporl.serve.client import FIRST_WAIT_S, LONGEST_WAIT_S
from exporl.serve.messages import LARGEST, MessageError, packed, unpacked

LATER = 1013
"""Close code of a training that has all of its actors."""
REFUSED = 1011
"""Close code after a sentence that says what was wrong."""
_FINAL = (401, 403)
"""HTTP answers that trying again does not change."""
_CALLS = ("describe", "reset", "step", "observation", "close")
_HANDSHAKE_S = 10.0
"""That a connection has at least once it is begun: its answer says more than a cut one."""
_GREETING_S = 30.0
"""Longest wait for the first call."""


class EnvironmentBroke(RuntimeError):
    """The environment raised something; the training was told."""


class Joining:
    """An environment's place in a training."""

    def __init__(
        self,
        env: ActorEnvironment,
        address: str,
        *,
        api_key: str | None = None,
        wait_s: float = 600.0,
        say: Callable[[str], None] = lambda message: None,
    ):
        """Connects to nothing yet.

        Args:
            env: what answers.
            address: HOST:PORT of the training, or ws:// or wss:// with it.
            api_key: what the training wants to be sent.
            wait_s: seconds within which the training has to be found, and found again.
            say: told of connections.

        Raises:
            ValueError: the address is none.
        """
        from websockets.exceptions import InvalidURI
        from websockets.uri import parse_uri

        self._env, self._wait_s, self._say = env, wait_s, say
        self._address = address if "://" in address else f"ws://{address}"
        try:
            parse_uri(self._address)
        except (InvalidURI, ValueError) as error:
            raise ValueError(f"{address!r} is no address such as HOST:PORT.") from error
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._why = ""
        self._end = 0.0

    def run(self) -> None:
        """Answers until the training closes the environment, which is closed in any case.

        Raises:
            ConnectionError: no training there within the time, or it wants another key.
            ValueError: the training did not like this actor; says what it said.
            EnvironmentBroke: the environment raised something.
        """
        failed = None
        try:
            self._until_the_end()
        except BaseException as error:
            failed = error
            raise
        finally:
            self._close(failed)

    def _until_the_end(self) -> None:
        end = time.monotonic() + self._wait_s
        wait, told = FIRST_WAIT_S, False
        while not self._ended(end):
            if self._end > end:  # it was connected meanwhile
                end, wait, told = self._end, FIRST_WAIT_S, False
            if not told:
                self._say(
                    f"waiting up to {self._wait_s:g} s for a training with room at "
                    f"{self._address} ({self._why})"
                )
            told = True
            if time.monotonic() + wait >= end:
                raise self._nobody()
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _close(self, failed: BaseException | None) -> None:
        """Closes the environment; what it raises is said beside what has failed before."""
        try:
            self._env.close()
        except Exception as error:  # whatever the environment raises
            said = f"the environment's close raised {type(error).__name__}: {error}."
            if failed is None:
                raise EnvironmentBroke(said) from error
            failed.add_note(said)

    def _ended(self, end: float) -> bool:
        """Connects once and answers while the connection lasts; whether the training is over. Sets
        until when to try again."""
        from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
        from websockets.sync.client import connect

        self._end = end
        try:
            with connect(
                self._address,
                compression=None,
                max_size=LARGEST,
                max_queue=1,
                additional_headers=self._headers,
                open_timeout=max(end - time.monotonic(), _HANDSHAKE_S),
                close_timeout=1,
                proxy=None,
            ) as connection:
                return self._answering(connection)
        except InvalidStatus as error:
            body = (error.response.body or b"").decode(errors="replace").strip()
            self._why = f"it answered {error.response.status_code}: {body:.200}"
            if error.response.status_code in _FINAL:
                raise ConnectionError(
                    f"the training at {self._address} refuses this actor "
                    f"({error.response.status_code}): {body:.200}"
                ) from error
        except ConnectionClosed as error:
            self._why = str(error)
        except (OSError, WebSocketException) as error:
            self._why = str(error) or type(error).__name__
        return False

    def _nobody(self) -> ConnectionError:
        return ConnectionError(
            f"no training has room for this actor at {self._address}; tried for {self._wait_s:g} s "
            f"({self._why}). Is `exporl train ... --listen` running there, and can this machine "
            "reach it?"
        )

    def _answering(self, connection: Any) -> bool:
        """Answers call by call; whether the last one was to close."""
        greeted = False
        while True:
            data = connection.recv(timeout=None if greeted else _GREETING_S)
            call = self._read(data)
            if call["call"] == "close":
                self._say(f"the training has ended, after {self._env.steps} steps here")
                return True
            connection.send(self._answer(connection, call))
            if not greeted:
                self._say(f"connected to the training at {self._address}")
            greeted = True
            self._end = time.monotonic() + self._wait_s

    def _read(self, data: bytes | str) -> Mapping[str, Any]:
        if isinstance(data, str):
            raise ValueError(f"the training at {self._address} answered: {data:.1000}")
        found = unpacked(data)
        if not isinstance(found, dict) or found.get("call") not in _CALLS:
            raise MessageError(f"what answers at {self._address} is no training of exporl.")
        if found["call"] == "describe" and found.get("protocol") != PROTOCOL:
            raise MessageError(
                f"the training at {self._address} speaks version {found.get('protocol')!r} of the "
                f"calls, this actor {PROTOCOL}: install the same version of exporl on both."
            )
        return found

    def _answer(self, connection: Any, call: Mapping[str, Any]) -> bytes:
        """The answer to a call; where the environment raises, the training is told first."""
        from websockets.exceptions import ConnectionClosed

        try:
            return packed({"number": call.get("number"), **self._asked(call)})
        except Exception as error:  # whatever the environment raises
            said = f"the environment's {call['call']} raised {type(error).__name__}: {error}"
            with contextlib.suppress(ConnectionClosed):
                connection.send(packed({"number": call.get("number"), "error": said}))
            raise EnvironmentBroke(f"{said}. The training was told.") from error

    def _asked(self, call: Mapping[str, Any]) -> dict[str, Any]:
        if call["call"] == "describe":
            return self._env.describe()
        if call["call"] == "reset":
            return self._env.reset(call.get("seed"))
        if call["call"] == "observation":
            return self._env.observation()
        return self._env.step(call.get("action"))
