"""The policy server: openpi's WebSocket protocol over batched calls.

On connecting, a client is sent what there is to know of the policy; then every message asks about
one observation and gets one answer. A request that cannot be answered gets a sentence in a text
frame, and its connection is closed with 1011.
"""

import asyncio
import contextlib
import dataclasses
import http
import time
from collections.abc import Callable
from typing import Any

from exporl.acting.failures import in_words
from exporl.serve.admission import has_key, quiet
from exporl.serve.batches import Answered, Batches
from exporl.serve.messages import LARGEST, MessageError, packed, unpacked
from exporl.serve.requests import Served, answer, answer_many, metadata, read_request

MOST_FRAGMENTS = 1000
"""Frames that a message may come in."""
FAILED = 1011
"""Close code after an error."""
HEALTH = "/healthz"
"""Asked over plain HTTP, with or without a key."""


@dataclasses.dataclass(frozen=True)
class Listening:
    """Where a server listens, and what it bears."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free one."""
    api_key: str | None = None
    """What clients have to send; None: nothing."""
    deadline_s: float = 10.0
    """Seconds within which an observation is answered, or refused."""
    most_clients: int = 64
    """Connections at a time."""
    largest_message: int = LARGEST
    """Bytes of an observation."""


class Server:
    """Serves one policy, which may be exchanged for a newer one while it does."""

    def __init__(
        self,
        policy: Served,
        listening: Listening = Listening(),
        *,
        statistics: str | None = None,
        say: Callable[[str], None] = lambda message: None,
    ):
        """Listens to nothing yet.

        Args:
            policy: what decides; its calls should have been compiled (`batches.compile_calls`).
            listening: where, and for whom.
            statistics: SHA-256 of its file of statistics, for the clients.
            say: told who comes and goes, and what went wrong.
        """
        self.listening, self.batches = listening, Batches(policy)
        self.answers = 0
        """Observations that were answered."""
        self._statistics, self._say = statistics, say
        self.connected = 0
        """Clients that are there."""

    def exchange(self, policy: Served) -> None:
        """From the next call on another policy decides, with the same interface. No connection
        notices but by the checkpoint that answers name."""
        self.batches.policy = policy

    async def run(self, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
        """Serves until `stop` is set; then every connection is closed with 1001.

        Args:
            stop: ends it.
            ready: told the address, once clients may come.

        Raises:
            OSError: nobody can listen there; names the address.
        """
        from websockets.asyncio.server import serve

        at = self.listening
        try:
            server = await serve(
                self._connection,
                at.host,
                at.port,
                process_request=self._admit,
                compression=None,
                max_size=at.largest_message,
                max_queue=1,
                close_timeout=2,
                server_header=None,
                logger=quiet("exporl.serve"),
            )
        except OSError as error:
            raise OSError(
                f"cannot listen on {at.host}:{at.port}: {error.strerror or error}. Choose another "
                "--host or --port."
            ) from error
        try:
            async with server:
                host, port = next(iter(server.sockets)).getsockname()[:2]
                ready(f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}")
                await stop.wait()
        finally:
            self.batches.close()

    def _admit(self, connection: Any, request: Any) -> Any:
        """None where a client may come in; else the HTTP answer that it gets."""
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        key = self.listening.api_key
        if not has_key(request.headers, key):
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED,
                "This server needs its API key: Authorization: Api-Key KEY\n",
            )
        if self.connected >= self.listening.most_clients:
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"This server has {self.connected} clients already, as many as it takes.\n",
            )
        return None

    async def _connection(self, connection: Any) -> None:
        """One client, from its first word to its last."""
        from websockets.exceptions import ConnectionClosed

        who = _name(connection)
        self.connected += 1
        gone = asyncio.ensure_future(connection.wait_closed())
        try:
            with contextlib.suppress(ConnectionClosed):
                await self._converse(connection, gone, who)
        finally:
            self.connected -= 1
            gone.cancel()

    async def _converse(self, connection: Any, gone: "asyncio.Future[None]", who: str) -> None:
        from websockets.exceptions import ConnectionClosed

        await connection.send(packed(metadata(self.batches.policy, self._statistics)))
        count, timing = 0, {}
        while True:
            try:
                data = await _received(connection)
                began = time.monotonic()
                found = await self._answer(data, count, gone)
            except ConnectionClosed:
                raise
            except Exception as error:  # whatever it is, the client is told, and nobody else
                self._say(f"{who}: {in_words(error)}")
                await connection.send(in_words(error))
                await connection.close(FAILED, "the message is in the frame before")
                return
            if found is None:
                return
            timing["infer_ms"] = 1000 * (time.monotonic() - began)
            await connection.send(packed(found | {"server_timing": timing}))
            timing = {"prev_total_ms": 1000 * (time.monotonic() - began)}
            self.answers += 1
            count += 1

    async def _answer(
        self, data: bytes, count: int, gone: "asyncio.Future[None]"
    ) -> dict[str, Any] | None:
        """The answer to the client's request number `count`; None where the client has left."""
        interface = self.batches.policy.interface
        request = read_request(interface, unpacked(data), count)
        deciding: asyncio.Task[list[Answered]] = asyncio.create_task(
            self.batches.decide_each(request)
        )
        try:
            await asyncio.wait(
                {deciding, gone},
                timeout=self.listening.deadline_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if deciding.done():
                decided, checkpoints = zip(*deciding.result(), strict=True)
                if request.samples is None:
                    return answer(interface, decided[0], request.seed, checkpoints[0])
                return answer_many(interface, decided, request.seed, checkpoints[-1])
        finally:
            deciding.cancel()
        if gone.done():
            return None
        raise TimeoutError(
            f"no decision within {self.listening.deadline_s:g} s: the machine is too busy, or has "
            "too many clients. --deadline sets how long the server tries."
        )


async def _received(connection: Any) -> bytes:
    """The next message of a client.

    Raises:
        MessageError: it is text, or comes in endless pieces.
        ConnectionClosed: the client has left, or sent more than it may.
    """
    parts = []
    async with contextlib.aclosing(connection.recv_streaming()) as pieces:
        async for part in pieces:
            if isinstance(part, str):
                raise MessageError(
                    "the message is text; an observation is a binary message (msgpack)."
                )
            parts.append(part)
            if len(parts) > MOST_FRAGMENTS:
                raise MessageError(f"the message comes in more than {MOST_FRAGMENTS} pieces.")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _name(connection: Any) -> str:
    """Where a client is, for people."""
    address = connection.remote_address
    return f"client {address[0]}:{address[1]}" if address else "client"
