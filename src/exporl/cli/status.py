"""Exit statuses of the commands."""

FAILED = 2
"""A mistake in the request, or something that was checked is not in order."""
STOPPED = 130
"""Stopped by a signal."""
