"""Observations within Dicts and Tuples: their entries, and the ways to them."""

from typing import Any

Way = tuple[str | int, ...]
"""Keys and numbers that lead to an entry of a nested observation."""


def entry_at(observation: Any, way: Way, name: str) -> Any:
    """What lies at the end of a way.

    Raises:
        ValueError: the observation has no such entry; says its name.
    """
    value = observation
    for part in way:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"the observation lacks {name!r}, which its space has.") from error
    return value
