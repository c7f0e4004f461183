"""Exit statuses of the commands, and notices beside their output."""

import sys

FAILED = 2
"""A mistake in the request, or something that was checked is not in order."""
SOME_FAILED = 1
"""What was asked for was done, but for parts that failed, which are listed."""
STOPPED = 130
"""Stopped by a signal."""


def notice(message: str) -> None:
    """One line on the error stream."""
    print(message, file=sys.stderr)
