"""Actors in processes of their own in which nothing but NumPy, websockets and msgpack can be
imported, and in threads."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from exporl.actor.environment import ActorEnvironment
from exporl.actor.joining import Joining

WITHOUT_JAX = """
import sys

class Only:
    def find_spec(self, name, path=None, target=None):
        known = {"exporl", "helpers", "numpy", "websockets", "msgpack"} | sys.stdlib_module_names
        if name.split(".")[0] not in known:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Only())
from exporl.cli.main import command
command()
"""


def actor_process(address: str, env: str = "Arm", *options: str, **variables: str):
    """`exporl actor` on its own, with its error stream to be read."""
    command = [sys.executable, "-c", WITHOUT_JAX, "actor", "--env", f"helpers.robots:{env}"]
    command += ["--address", address, "--wait", "60", *options]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@contextlib.contextmanager
def actor_threads(pool, *robots, **options) -> Iterator[list[BaseException]]:
    """Actors in threads of this process, until the block ends, which has to end them; what they
    raised."""
    raised: list[BaseException] = []

    def act(robot) -> None:
        try:
            env = ActorEnvironment(robot)
            Joining(env, pool.address, **{"wait_s": 20.0, **options}).run()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=act, args=(robot,)) for robot in robots]
    for thread in threads:
        thread.start()
    try:
        yield raised
    finally:
        pool.close()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
