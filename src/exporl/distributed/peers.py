"""Connections that anybody may open: how many at a time, and in how many pieces a message may
come."""

import threading
from collections.abc import Callable
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.sync.server import ServerConnection

MOST_FRAGMENTS = 1000
"""Frames that a message may come in: a piece of no length takes memory as well."""


class Peer(ServerConnection):
    """A connection that ends where a message comes in endless pieces."""

    _pieces = 0

    def process_event(self, event: Any) -> None:
        """One frame that came; see `websockets`."""
        if isinstance(event, Frame):
            self._pieces = self._pieces + 1 if event.opcode == Opcode.CONT else 0
            if self._pieces > MOST_FRAGMENTS:
                self.close_socket()
                return
        super().process_event(event)


def at_most(count: int) -> Callable[..., Peer]:
    """What makes the connections of a server, and no more of them at a time than this.

    The server closes whatever is one too many: a thread and the messages that wait in it are what
    a connection costs, also one that has said nothing yet.
    """
    lock, open_ones = threading.Lock(), set[Peer]()

    def connection(*args: Any, **options: Any) -> Peer:
        with lock:
            for peer in [each for each in open_ones if not each.recv_events_thread.is_alive()]:
                open_ones.discard(peer)
            if len(open_ones) >= count:
                raise ConnectionRefusedError(f"{count} connections are open already.")
            peer = Peer(*args, **options)
            open_ones.add(peer)
            return peer

    return connection
