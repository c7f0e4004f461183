"""The parser of every command: its errors are one sentence."""

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Reads options by their full names; a mistake is a ValueError, which the command line answers
    as any other."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises ValueError: the command line cannot be read."""
        raise ValueError(f"{message}. `{self.prog} --help` shows what there is.")
