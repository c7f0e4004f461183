"""The answer to a misspelt name."""

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Sentences for an error message: the closest known name, if one is close, then what else there
    is.

    Args:
        name: what was asked for.
        known: what exists.
        otherwise: the last sentence, "" for none; by default it lists all that is known, in
            alphabetical order.
    """
    known = list(known)
    longer = [each for each in known if name and each.startswith(name)]
    match = longer[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"Did you mean {match[0]!r}?" if match else ""
    rest = f"Known: {', '.join(sorted(known))}." if otherwise is None else otherwise
    return " ".join(sentence for sentence in (hint, rest) if sentence)
