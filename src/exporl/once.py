"""Records of pure functions are made once: whoever asks again for the same gets the same record,
and with it the programs that were compiled for it."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

MadeT = TypeVar("MadeT")
KEPT = 8
"""Records that are kept: the last ones asked for, with their compiled programs."""


def made_once(make: Callable[..., MadeT], *arguments: Any) -> MadeT:
    """make(*arguments), or what it returned before for equal arguments.

    Args:
        make: a pure function; what it returns is shared.
        arguments: where one of them cannot be hashed, a new record is made each time.
    """
    try:
        hash(arguments)
    except TypeError:
        return make(*arguments)
    return _kept(make, *arguments)


@functools.lru_cache(KEPT, typed=True)
def _kept(make: Callable[..., Any], *arguments: Hashable) -> Any:
    return make(*arguments)
