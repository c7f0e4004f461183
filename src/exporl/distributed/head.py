"""Whether the head of a Ray cluster is still there. Ray itself waits for it for a minute, and then
ends the process where it stands."""

import socket
import threading

from exporl.acting.failures import EnvironmentFailed

EVERY_S = 2.0
"""Between two tries; and longest wait for an answer to one."""
TRIES = 8
"""Failed tries, one after the other, after which the head is gone: 16 to 32 s, so that a network
may stall for some seconds and a checkpoint is written before Ray's minute is over."""


class HeadWatch:
    """Tries to reach the head again and again, in a thread, until it is closed."""

    def __init__(self, address: str, every_s: float = EVERY_S):
        """Begins to look.

        Args:
            address: of the head, HOST:PORT.
            every_s: seconds between two tries.
        """
        self.address, self._every_s, self._failed = address, every_s, 0
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="head", daemon=True).start()

    def check(self) -> None:
        """Nothing, as long as the head answers.

        Raises:
            EnvironmentFailed: it does not any more.
        """
        if self._failed >= TRIES:
            raise EnvironmentFailed(
                f"the head of the Ray cluster, {self.address}, is gone: it did not answer "
                f"{TRIES} times, one after the other. Start the cluster again (`ray start "
                "--head`), or leave --address out, before you go on."
            )

    def close(self) -> None:
        """Looks no longer."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(self._every_s):
            self._failed = 0 if reachable(self.address, self._every_s) else self._failed + 1


def reachable(address: str, within_s: float) -> bool:
    """Whether anything listens at HOST:PORT."""
    try:
        connection = socket.create_connection(host_and_port(address), within_s)
    except OSError:
        return False
    connection.close()
    return True


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT.

    Raises:
        ValueError: the port is no number.
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
