"""Connections that anybody may open: how many at a time, and in how many pieces a message may
come."""

import threading
from typing import Any

MOST_FRAGMENTS = 1000
"""Frames that a message may come in: a piece of no length takes memory as well."""


def at_most(count: int) -> Any:
    """What makes the connections of a server, and no more of them at a time than this.

    A connection costs a thread and the messages that wait in it, also one that has said nothing
    yet: the server closes whatever is one too many. One ends where a message comes in endless
    pieces.
    """
    from websockets.frames import DATA_OPCODES, Frame, Opcode
    from websockets.sync.server import ServerConnection

    class Peer(ServerConnection):
        pieces = 0

        def process_event(self, event: Any) -> None:
            if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
                self.pieces = self.pieces + 1 if event.opcode is Opcode.CONT else 1
                if self.pieces > MOST_FRAGMENTS:
                    self.close_socket()
                    return
            super().process_event(event)

    lock, there = threading.Lock(), set[Peer]()

    def connection(*args: Any, **options: Any) -> Peer:
        with lock:
            for peer in [each for each in there if not each.recv_events_thread.is_alive()]:
                there.discard(peer)
            if len(there) >= count:
                raise ConnectionRefusedError(f"{count} connections are open already.")
            peer = Peer(*args, **options)
            there.add(peer)
            return peer

    return connection
