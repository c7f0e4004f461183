"""Newer checkpoints of a run that is still trained, for a server that goes on meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from exporl.files.checkpoint import PREFIX
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
        self._refused = ""

    def look(self, current: Served) -> Served | None:
        """The policy of a checkpoint newer than the current one's, its calls compiled; None where
        there is none, or none that fits."""
        names = [path.name for path in self._folder.glob(f"{PREFIX}*")]
        newest = max(names, default="")
        if newest <= current.checkpoint_name or newest == self._refused:
            return None
        try:
            policy = self._load()
            if policy.interface != current.interface:
                raise ValueError("what its policy takes and gives is not what clients were told.")
            compile_calls(policy)
        except (ValueError, OSError, FloatingPointError) as error:
            self._refused = newest
            self._say(f"{newest} is not served: {error} Going on with {current.checkpoint_name}.")
            return None
        if policy.checkpoint_name <= current.checkpoint_name:
            self._refused = newest
            return None
        self._say(f"serving {policy.checkpoint_name} from now on")
        return policy

    async def follow(self, server: Server, every_s: float) -> None:
        """Gives a server what is newer, for ever; answers go on while it is loaded."""
        while True:
            await asyncio.sleep(every_s)
            policy = await asyncio.to_thread(self.look, server.batches.policy)
            if policy is not None:
                server.exchange(policy)
