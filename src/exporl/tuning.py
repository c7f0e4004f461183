"""What is decided per machine: where compiled programs are kept, and by measurement whether to hoist sampling."""

import functools
import os
import time
from pathlib import Path

import jax

GAIN = 1.5
"""Hoisting must be this much faster per row: it holds the candidates of all minibatches in memory."""


def keep_compiled_programs() -> Path | None:
    """Keeps compiled programs between processes, in $XDG_CACHE_HOME/exporl (default: ~/.cache/exporl).

    JAX's own setting (JAX_COMPILATION_CACHE_DIR) wins. Returns the folder, or None where nothing can be written:
    programs are then compiled again by every process.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen:
        return Path(chosen)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exporl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder


@functools.cache
def hoisting_pays(rows: int, minibatches: int, width: int, repeats: int = 3) -> bool:
    """Whether the machine works faster on the rows of all minibatches at once than on one minibatch after the other.

    Times one residual block of the base network, which is nearly all that sampling computes, on `rows` and on
    `minibatches` * `rows` rows. The best of `repeats` counts.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    expand = 0.05 * jax.random.normal(keys[0], (width, 4 * width))
    contract = 0.05 * jax.random.normal(keys[1], (4 * width, width))
    block = jax.jit(lambda x: x + jax.nn.swish(x @ expand) @ contract)

    inputs = [
        jax.random.normal(key, (num, width)) for key, num in zip(keys[2:], (rows, minibatches * rows), strict=True)
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats + 1):
        for x, times in zip(inputs, seconds, strict=True):
            began = time.perf_counter()
            block(x).block_until_ready()
            times.append(time.perf_counter() - began)
    one, all_at_once = (min(times[1:]) for times in seconds)  # the first run compiles
    return minibatches * one > GAIN * all_at_once
