"""Actors that join a training over the network: who is there, who was lost, what they are asked."""

import contextlib
import http
import shlex
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from exporl.acting.failures import EnvironmentFailed, EnvironmentLost, in_words
from exporl.actor.environment import PROTOCOL
from exporl.actor.joining import LATER, REFUSED
from exporl.distributed.described import Described, described
from exporl.distributed.peers import at_most
from exporl.distributed.place import DEADLINES, Call, Deadlines, Lost, Place
from exporl.serve.admission import has_key, quiet
from exporl.serve.messages import LARGEST

MOST_FAILURES = 3
"""Actors lost one after the other, for each place, without a step of any in between, that end the
run."""
MOST_STRANGERS = 16
"""Connections beside those of the actors that may be open at a time."""
_LOOK_S = 0.2
"""Between two looks whether an idle actor is still there."""


class ActorPool:
    """Listens for actors and keeps their places. As a context it tells them in the end that the
    training is over."""

    def __init__(
        self,
        num_actors: int,
        host: str = "127.0.0.1",
        port: int = 8765,
        *,
        api_key: str | None = None,
        say: Callable[[str], None] = lambda message: None,
        deadlines: Deadlines = DEADLINES,
    ):
        """Listens from now on.

        Args:
            num_actors: places.
            host: where to listen.
            port: 0: any free one.
            api_key: what actors have to send; None: nothing.
            say: told who comes and goes.
            deadlines: how long actors are waited for.

        Raises:
            OSError: nobody can listen there; names the address.
        """
        self.places = [Place(number) for number in range(num_actors)]
        self.deadlines, self._say, self._api_key = deadlines, say, api_key
        self.described: Described | None = None
        """What every actor's environment is like: what the first one said of those that are there,
        and from the beginning of the training on for good."""
        self._begun = False
        self.restarts = self.lost_steps = 0
        """Actors lost so far, and steps they were asked for and did not make."""
        self._in_a_row = 0
        self._last_words = ""
        self._changed = threading.Condition()
        self._closed = False
        self._open: set[int] = set()
        self._server = self._listening(host, port)
        found, self.port = self._server.socket.getsockname()[:2]
        self.address = f"[{found}]:{self.port}" if ":" in found else f"{found}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _listening(self, host: str, port: int) -> Any:
        """The server of the connections."""
        from websockets.sync.server import serve

        try:
            return serve(
                self._welcome,
                host,
                port,
                family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                process_request=self._admit,
                create_connection=at_most(len(self.places) + MOST_STRANGERS),
                origins=[None],  # no page that a browser of this machine shows takes part
                compression=None,
                max_size=LARGEST,
                max_queue=1,
                close_timeout=1,
                server_header=None,
                logger=quiet("exporl.distributed"),
            )
        except OSError as error:
            raise OSError(
                f"cannot listen on {host}:{port}: {error.strerror or error}. Choose another "
                "--listen HOST:PORT."
            ) from error

    def __enter__(self) -> "ActorPool":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes."""
        self.close()

    def close(self) -> None:
        """Tells every actor that the training is over, and listens no longer."""
        with self._changed:
            self._closed = True
        for place in self.places:
            with contextlib.suppress(Lost):
                place.tell_the_end()
        self._server.shutdown()
        self._thread.join()

    def command(self) -> str:
        """What to run on the machine of an actor."""
        key = " --key-file FILE" if self._api_key is not None else ""
        host, _, port = self.address.rpartition(":")
        there = f"THIS_MACHINE:{port}" if host in ("0.0.0.0", "[::]") else self.address
        return f"exporl actor --env module:function --address {shlex.quote(there)}{key}"

    def wait_until_full(self) -> Described:
        """Waits until every place has an actor, and says so; what they say of their environments.

        Raises:
            TimeoutError: not all came within the time.
        """
        end = time.monotonic() + self.deadlines.join_s
        told = -1
        while True:
            with self._changed:
                there = sum(place.present for place in self.places)
                if there == len(self.places) and self.described is not None:
                    self._begun = True
                    return self.described
            if there != told:
                told = there
                self._say(
                    f"waiting for {len(self.places) - there} of {len(self.places)} actors at "
                    f"{self.address}; on a machine with an environment: {self.command()}"
                )
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{there} of {len(self.places)} actors joined at {self.address} within "
                    f"{self.deadlines.join_s:g} s. On a machine with an environment: "
                    f"{self.command()}"
                )
            self.wait(_LOOK_S)

    def wait(self, seconds: float) -> None:
        """Until somebody comes or goes, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def check(self) -> None:
        """Whether the training can go on.

        Raises:
            EnvironmentFailed: nobody has taken a lost actor's place in time, or one is lost after
                the other.
        """
        now, limit = time.monotonic(), self.deadlines.join_s
        last = f" The last one was lost because {self._last_words}" if self._last_words else ""
        if self._in_a_row >= MOST_FAILURES * len(self.places):
            raise EnvironmentFailed(
                f"{self._in_a_row} actors were lost one after the other, without a step of any in "
                f"between.{last}"
            )
        for place in self.places:
            if not place.present and now - place.absent_since > limit:
                raise EnvironmentFailed(
                    f"no actor took the place of actor {place.number}, which was lost, within "
                    f"{limit:g} s.{last}"
                )

    def ask(self, place: Place, joined: int, call: Call, **content: Any) -> Any:
        """An actor's answer to a call.

        Args:
            place: of the actor.
            joined: which of the actors that had the place is meant.
            call: its name.
            content: what goes with it.

        Raises:
            EnvironmentLost: it is lost, and its place is free.
        """
        try:
            answer = place.ask(joined, call, self.deadlines.of(call), **content)
        except Lost as lost:
            place.refuse(joined, str(lost))
            self._lose(place, joined, str(lost))
            raise EnvironmentLost(f"actor {place.number} was lost: {lost}") from lost
        if call == "step":
            self._in_a_row = 0
        return answer

    def give_up(self, place: Place, joined: int, call: Call, why: str) -> EnvironmentLost:
        """The error for an actor whose answer to a call is of no use; it is told why, and lost."""
        place.refuse(joined, why)
        place.waits_for = call  # whose answer is none
        self._lose(place, joined, why)
        return EnvironmentLost(f"actor {place.number} was lost: {why}")

    def take_number(self) -> int:
        """The lowest number that no open environment has."""
        number = next(i for i in range(len(self._open) + 1) if i not in self._open)
        self._open.add(number)
        return number

    def give_number(self, number: int) -> None:
        """An environment is closed."""
        self._open.discard(number)

    def _lose(self, place: Place, joined: int, why: str) -> None:
        with self._changed:
            if not place.leave(joined):
                return
            self.restarts += 1
            self._in_a_row += place.waits_for is not None  # who was asked for nothing broke nothing
            self.lost_steps += place.waits_for == "step"
            if not self._begun and not any(each.present for each in self.places):
                self.described = None
            self._last_words = why
            self._changed.notify_all()
        self._say(f"actor {place.number} was lost: {why} Its place is free: {self.command()}")

    def _admit(self, connection: Any, request: Any) -> Any:
        """None where an actor may come in; else the HTTP answer that it gets."""
        if not has_key(request.headers, self._api_key):
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED,
                "This training needs its API key: Authorization: Api-Key KEY\n",
            )
        if all(place.present for place in self.places):
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"This training has all of its {len(self.places)} actors.\n",
            )
        return None

    def _welcome(self, connection: Any) -> None:
        """One actor, from its first word to its last; in a thread of its own."""
        address = connection.remote_address
        who = f"{address[0]}:{address[1]}" if address else "somebody"
        newcomer = Place(-1)
        joined = newcomer.enter(connection)
        try:
            said = newcomer.ask(joined, "describe", self.deadlines.describe_s, protocol=PROTOCOL)
            found = described(said)
            place = self._place_for(found, connection)
        except (ValueError, Lost) as error:
            self._say(f"{who} was refused: {in_words(error)}")
            newcomer.refuse(joined, in_words(error))
            connection.close(REFUSED, "the message is in the frame before")
            return
        if place is None:
            connection.close(LATER, "all places are taken")
            return
        self._say(f"{who} acts as actor {place.number}")
        joined = place.joined
        while place.has(joined):  # until it is lost, or was told the end
            if connection.close_code is not None:
                self._lose(place, joined, "its connection was closed.")
            place.left.wait(_LOOK_S)

    def _place_for(self, found: Described, connection: Any) -> Place | None:
        """A free place, taken; None: there is none any more.

        Raises:
            ValueError: the environment is another than those of the other actors.
        """
        with self._changed:
            if self.described is not None and found != self.described:
                raise ValueError(
                    "this actor's environment is another than that of the actors before it: "
                    f"{_difference(self.described, found)}."
                )
            place = next((place for place in self.places if not place.present), None)
            if place is not None and not self._closed:
                self.described = found
                place.enter(connection)
                self._changed.notify_all()
                return place
            return None


def _difference(before: Described, now: Described) -> str:
    """The first thing that differs, in words."""
    for name, old, new in zip(Described._fields, before, now, strict=True):
        if old != new:
            return f"{name} is {new!s:.200}, theirs {old!s:.200}"
    return "nothing differs"
