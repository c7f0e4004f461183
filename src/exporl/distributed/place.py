"""One actor's place in a training, and the calls to whoever has it."""

import contextlib
import dataclasses
import threading
import time
from typing import Any, Literal

from exporl.serve.messages import MessageError, packed, unpacked

Call = Literal["describe", "reset", "step", "observation"]


class Lost(Exception):
    """The actor does not answer, or not as it should; says why."""


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """How long actors are waited for, in seconds."""

    join_s: float = 600.0
    """Until all have joined, and until another one takes a lost one's place."""
    describe_s: float = 10.0
    """For who says what it is."""
    step_s: float = 60.0
    """For a step or an observation."""
    reset_s: float = 600.0
    """For a reset: where people put objects back."""

    def of(self, call: Call) -> float:
        """The deadline of a call."""
        return {"reset": self.reset_s, "describe": self.describe_s}.get(call, self.step_s)


DEADLINES = Deadlines()


class Place:
    """Has an actor or waits for one. One thread at a time asks it."""

    def __init__(self, number: int):
        """Waits for its first actor.

        Args:
            number: of the place, for messages.
        """
        self.number = number
        self.joined = 0
        """Actors that had the place so far: the number of the one that has it."""
        self.user: object = None
        """The environment whose episode it plays."""
        self.waits_for: Call | None = None
        """The call that its actor has not answered."""
        self.absent_since = time.monotonic()
        self.left = threading.Event()
        """Set when the actor is lost."""
        self._connection: Any = None
        self._asked = 0

    @property
    def present(self) -> bool:
        """Whether it has an actor."""
        return self._connection is not None

    def has(self, joined: int) -> bool:
        """Whether it has this one of its actors."""
        return self.present and self.joined == joined

    def enter(self, connection: Any) -> int:
        """An actor takes the place: its number."""
        self.user, self.waits_for, self.left = None, None, threading.Event()
        self.joined += 1  # first: whoever asks the one before must not reach this one
        self._connection = connection
        return self.joined

    def leave(self, joined: int) -> bool:
        """An actor is lost; whether it had the place until now."""
        if not self.has(joined):
            return False
        connection, self._connection = self._connection, None
        self.absent_since = time.monotonic()
        self.left.set()
        # in a thread: whoever hangs does not answer that, either
        threading.Thread(target=connection.close, daemon=True).start()
        return True

    def ask(self, joined: int, call: Call, deadline_s: float, **content: Any) -> dict[str, Any]:
        """The answer to a call.

        Raises:
            Lost: there is none; says why.
        """
        from websockets.exceptions import ConnectionClosed

        connection = self._connection
        if connection is None or self.joined != joined:
            raise Lost("its connection was closed.")
        self._asked, self.waits_for = self._asked + 1, call
        message = {"call": call, "number": self._asked, **content}
        try:
            connection.send(packed(message))
            found = self._read(connection.recv(timeout=deadline_s))
            self.waits_for = None
            return found
        except TimeoutError as error:
            raise Lost(f"it gave no answer to {call!r} within {deadline_s:g} s.") from error
        except MessageError as error:
            raise Lost(str(error)) from error
        except (ConnectionClosed, OSError) as error:
            raise Lost(f"its connection was closed ({error}).") from error

    def _read(self, data: bytes | str) -> dict[str, Any]:
        if isinstance(data, str):
            raise MessageError("an actor answers with binary messages, and this one sent text.")
        found = unpacked(data)
        number = found.get("number") if isinstance(found, dict) else None
        if type(number) is not int or number != self._asked:
            raise MessageError(
                f"call {self._asked} was not answered: this is no actor. On a robot's machine: "
                "exporl actor --env module:function --address HOST:PORT"
            )
        if "error" in found:
            raise Lost(f"{found['error']!s:.500}.".replace("..", "."))
        return found

    def refuse(self, joined: int, sentence: str) -> None:
        """Tells an actor why it is not wanted."""
        from websockets.exceptions import ConnectionClosed

        if self.has(joined):
            with contextlib.suppress(ConnectionClosed, OSError):
                self._connection.send(sentence)

    def tell_the_end(self) -> None:
        """Tells the actor that the training is over."""
        from websockets.exceptions import ConnectionClosed

        connection = self._connection
        if connection is not None:
            with contextlib.suppress(ConnectionClosed, OSError):
                connection.send(packed({"call": "close"}))
            self.leave(self.joined)
