"""What is decided per machine: where compiled programs are kept, and by measurement whether to
hoist sampling."""

import functools
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from exporl.files.atomic import write_text
from exporl.speed.cores import usable_cores

GAIN = 1.05
"""Hoisting must be this much faster per row: it holds the candidates of all minibatches in
memory."""

ROWS = 8192
"""Rows at most that are timed at once: enough to show which way is faster, few enough not to be
waited for."""

SECONDS = 0.3
"""At least so long is measured, whatever the size."""

MEASURED = "hoisting.json"
"""Measurements of earlier processes, beside the compiled programs."""


def keep_compiled_programs(say: Callable[[str], object] | None = None) -> Path | None:
    """Keeps compiled programs between processes, in $XDG_CACHE_HOME/exporl (default:
    ~/.cache/exporl).

    JAX's own setting (JAX_COMPILATION_CACHE_DIR) wins. Returns the folder, or None where nothing
    can be written: programs are then compiled again by every process.

    Args:
        say: told why none are kept.
    """
    if chosen := programs_folder():
        return chosen
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exporl"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows the home directory
        if say is not None:
            say(
                f"compiled programs are not kept ({error}): every process compiles them again. Set "
                "XDG_CACHE_HOME to a folder that can be written."
            )
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder


def programs_folder() -> Path | None:
    """Where compiled programs are kept, and measurements beside them; None: nowhere."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    return Path(folder) if folder else None


@functools.cache
def hoisting_pays(rows: int, minibatches: int, width: int) -> bool:
    """Whether the machine works faster on the rows of all minibatches at once than on one minibatch
    after the other.

    Measured once per machine and size where compiled programs are kept, else once per process.
    """
    what = f"{machine()}: {minibatches} x {rows} rows, width {width}"
    folder = programs_folder()
    known = measurements(folder / MEASURED) if folder else {}
    if what not in known:
        known[what] = hoisting_gain(rows, minibatches, width)
        if folder:
            keep_measurements(folder / MEASURED, known)
    return known[what] > GAIN


def hoisting_gain(rows: int, minibatches: int, width: int, repeats: int = 5) -> float:
    """Seconds for minibatches [u, rows] one after the other, divided by those for [u * rows] at
    once.

    Times one residual block of the base network, which is nearly all that sampling computes, in
    turn, at least `repeats` times; the best counts. At most `ROWS` rows are timed at once, but
    never fewer than two minibatches.
    """
    rng, num = np.random.default_rng(0), max(2, min(minibatches, ROWS // rows))

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(0.05 * rng.standard_normal(shape, np.float32))

    expand, contract, apart = draw(width, 4 * width), draw(4 * width, width), draw(num, rows, width)

    def block(x: jax.Array) -> jax.Array:
        return x + jax.nn.swish(x @ expand) @ contract

    runs = [
        (jax.jit(functools.partial(jax.lax.map, block)), apart),
        (jax.jit(block), apart.reshape(-1, width)),
    ]
    seconds: list[list[float]] = [[], []]
    for program, x in runs:
        program(x).block_until_ready()  # compiled
    while len(seconds[0]) < repeats or sum(map(sum, seconds)) < SECONDS:
        for (program, x), times in zip(runs, seconds, strict=True):
            began = time.perf_counter()
            program(x).block_until_ready()
            times.append(time.perf_counter() - began)
    one_by_one, at_once = map(min, seconds)
    return one_by_one / at_once


def machine() -> str:
    """What a measurement holds for."""
    device = jax.devices()[0].device_kind
    cores = len(usable_cores())
    return (
        f"{platform.node()}, {jax.device_count()} x {device}, {cores} cores, jax {jax.__version__}"
    )


def measurements(path: Path) -> dict[str, float]:
    """What is on file, by name; nothing where it cannot be read, for it can be measured again."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return (
        {k: v for k, v in found.items() if isinstance(v, float)} if isinstance(found, dict) else {}
    )


def keep_measurements(path: Path, measured: dict[str, float]) -> None:
    """Puts measurements on file for later processes."""
    try:
        write_text(path, json.dumps(measured, indent=1))
    except OSError:  # a cache that cannot be written only costs the next process a measurement
        return
