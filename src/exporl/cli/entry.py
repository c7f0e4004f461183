"""The command from its first moment on: before `exporl.cli.main` is imported, nothing else answers
Ctrl-C in words."""

import sys
from typing import NoReturn

STOPPED = 130
"""As in `cli/status.py`, which is still being imported where this is needed."""


def command() -> NoReturn:
    """`exporl` in a shell."""
    try:
        from exporl.cli.main import command as run

        run()
    except KeyboardInterrupt:
        print("stopped at once.", file=sys.stderr)
        sys.exit(STOPPED)
