"""Exit statuses of the commands, and notices beside their output."""

import sys

FAILED = 2
"""A mistake in the request, or something that was checked is not in order."""
SOME_FAILED = 1
"""What was asked for was done, but for parts that failed, which are listed."""
STOPPED = 130
"""Stopped by a signal."""


LONGEST = 2000
"""Characters of a line."""


def plain(text: object) -> str:
    """Text without characters that a terminal would obey instead of showing, as names in a file
    from anybody may have them: they are written as escapes. Of endless lines the middle is left
    out."""
    shown = "".join(
        each
        if each.isprintable() or each in "\n\t"
        else each.encode("unicode_escape", "surrogatepass").decode()
        for each in str(text)
    )
    return "\n".join(map(_shortened, shown.split("\n")))


def _shortened(line: str) -> str:
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2
    return f"{line[:half]} ... {line[-half:]}"


def say(text: object) -> None:
    """One line on the output."""
    print(plain(text))


def notice(message: object) -> None:
    """One line on the error stream."""
    print(plain(message), file=sys.stderr)
