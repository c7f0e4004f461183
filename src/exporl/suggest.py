"""The answer to a misspelt name."""

import difflib
from collections.abc import Iterable

NEAR = 0.6
"""Likeness from which a name counts as meant, of at most 1: half of the letters in order are not
enough."""


def closest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Sentences for an error message: the closest known name, if one is close, then what else there
    is.

    Args:
        name: what was asked for; capitals do not matter.
        known: what exists.
        otherwise: the last sentence, "" for none; by default it lists all that is known, in
            alphabetical order.
    """
    known = list(known)
    match = nearest(name, known)
    hint = "" if match is None else f"Did you mean {match!r}?"
    rest = f"Known: {', '.join(sorted(known))}." if otherwise is None else otherwise
    return " ".join(sentence for sentence in (hint, rest) if sentence)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that begins with a name, or else is most like it; None if none is near."""
    small = {each.lower(): each for each in reversed(list(known))}
    longer = [each for each in reversed(small) if name and each.startswith(name.lower())]
    found = longer[:1] or difflib.get_close_matches(name.lower(), small, n=1, cutoff=NEAR)
    return small[found[0]] if found else None
