"""Who may come in, for every server here."""

import hmac
import logging
from typing import Any


def has_key(headers: Any, key: str | None) -> bool:
    """Whether a request has the key that is wanted, and no other beside it.

    Args:
        headers: of the request, as websockets has them.
        key: what is wanted; None: nothing.
    """
    if key is None:
        return True
    given = headers.get_all("Authorization")
    wanted = f"Api-Key {key}".encode()
    return len(given) == 1 and hmac.compare_digest(
        given[0].encode(errors="surrogateescape"), wanted
    )


def quiet(name: str) -> logging.Logger:
    """A logger that says nothing: what a client does wrong is told in a sentence of ours."""
    logger = logging.getLogger(name)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
