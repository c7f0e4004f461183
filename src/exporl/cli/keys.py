"""Keys that clients send, and hosts that need one."""

import ipaddress
from pathlib import Path

LONGEST_KEY = 4_096
"""Characters of a key."""


def read_key(path: Path) -> str:
    """The key that a file holds.

    Raises:
        ValueError: it cannot be read, there is none, or one that no header can carry.
    """
    try:
        with path.open(errors="replace") as file:
            key = file.read(LONGEST_KEY + 1).strip()
    except OSError as error:
        raise ValueError(f"--key-file {path} cannot be read: {error.strerror}.") from error
    if len(key) > LONGEST_KEY:
        raise ValueError(f"{path} holds more than a key: it has over {LONGEST_KEY} characters.")
    if not (key.isascii() and key.isprintable() and key):
        raise ValueError(f"{path} must hold one key of printable ASCII characters.")
    return key


def check_host(host: str, key: str | None, is_open: bool, what: str) -> None:
    """Refuses to let anybody in by accident.

    Args:
        host: where to listen.
        key: what clients have to send; None: nothing.
        is_open: whether the user said that anybody may come.
        what: what they could do.

    Raises:
        ValueError: other machines reach the host, and no key is wanted; says what to do.
    """
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not here and key is None and not is_open:
        raise ValueError(
            f"whoever reaches {host} could {what}: give --key-file FILE with a key that "
            "clients send, or say --open where the network is yours alone."
        )
