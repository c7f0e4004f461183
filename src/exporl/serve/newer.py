"""Newer checkpoints of a run that is still trained, for a server that goes on meanwhile."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from exporl.files.checkpoint import MANIFEST, PREFIX
from exporl.files.run_files import CHECKPOINTS
from exporl.serve.batches import compile_calls
from exporl.serve.requests import Served
from exporl.serve.server import Server


class Newer:
    """Looks whether a run has a newer checkpoint, and loads it."""

    def __init__(self, run_dir: Path, load: Callable[[], Served], say: Callable[[str], None]):
        """Looks at nothing yet.

        Args:
            run_dir: the run.
            load: its policy at the newest checkpoint.
            say: told what was loaded, or why something was not, once.
        """
        self._folder, self._load, self._say = Path(run_dir) / CHECKPOINTS, load, say
        self._refused: set[tuple[str, int]] = set()

    def look(self, current: Served) -> Served | None:
        """The policy of a checkpoint newer than the current one's, its calls compiled; None where
        there is none, or none that fits."""
        newest = max(self._newer_than(current.checkpoint_name), default=None)
        if newest is None:
            return None
        try:
            policy = self._load()
            if policy.interface != current.interface:
                raise ValueError("what its policy takes and gives is not what clients were told.")
            compile_calls(policy)
        except (ValueError, OSError, FloatingPointError) as error:
            self._refused.add(newest)
            kept = current.checkpoint_name
            self._say(f"{newest[0]} is not served: {error} Going on with {kept}.")
            return None
        if policy.checkpoint_name <= current.checkpoint_name:
            self._refused.add(newest)
            return None
        self._say(f"serving {policy.checkpoint_name} from now on")
        return policy

    def _newer_than(self, name: str) -> list[tuple[str, int]]:
        """Checkpoints after one that were not refused as they are: name, and when it was written;
        a resumed run may write a refused one anew."""
        found = []
        for path in self._folder.glob(f"{PREFIX}*"):
            if path.name > name and path.name.removeprefix(PREFIX).isdecimal():
                with contextlib.suppress(OSError):  # it was taken away meanwhile
                    found.append((path.name, (path / MANIFEST).stat().st_mtime_ns))
        return [one for one in found if one not in self._refused]

    async def follow(self, server: Server, every_s: float) -> None:
        """Gives a server what is newer, for ever; answers go on while it is loaded."""
        while True:
            await asyncio.sleep(every_s)
            policy = await asyncio.to_thread(self.look, server.batches.policy)
            if policy is not None:
                server.exchange(policy)
