"""Every test runs with the key-reuse checker on and with silent rank promotion forbidden."""

import functools
import os
import tempfile
import threading
from pathlib import Path

import jax
import pytest

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling these small programs takes far longer than running them: each is compiled only once, by
# whichever process needs it first. Workers of a parallel run and the processes that tests start
# inherit the variables.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="exporl-test-cache-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
QUICK_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""Half the time to compile, on the pinned version of jax."""
FEW_OPTIMIZATIONS = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
"""A fifth of the time to run, thrice that to compile: for programs that are compiled under
`helpers.compiling.a_little_optimized`. All others have none, by JAX's own setting."""
KEPT = 64
"""Base policies and algorithms that a process of tests keeps."""


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        type=Path,
        default=Path(__file__).parent / "data" / "official_expo.npz",
        help="file of golden numbers in the layout of tests/data/official_expo.npz",
    )
    parser.addoption(
        "--devices",
        type=int,
        default=1,
        help="let the processor look like so many devices; golden numbers are computed on all",
    )
    parser.addoption(
        "--optimized",
        action="store_true",
        help="compile with all optimisations, as users do: several times slower",
    )


def pytest_configure(config):
    quick = not config.getoption("--optimized")
    jax.config.update("jax_disable_most_optimizations", quick)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(quick)
    flags = f"{QUICK_TO_COMPILE} {FEW_OPTIMIZATIONS}"
    if quick and flags not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    if (devices := config.getoption("--devices")) > 1:
        os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"


@pytest.fixture(scope="session", autouse=True)
def records_are_kept():
    """The library keeps the last few algorithms with their compiled programs. Tests use the same
    configurations again and again, with many others between: more of them are kept."""
    from exporl import once  # not before its annotations are checked

    kept = once._kept
    once._kept = functools.lru_cache(KEPT, typed=True)(kept.__wrapped__)
    yield
    once._kept = kept


@pytest.fixture(scope="session")
def golden_path(request) -> Path:
    return request.config.getoption("--golden")


@pytest.fixture(scope="session")
def devices(request) -> int:
    """How many devices the processor looks like."""
    return request.config.getoption("--devices")


@pytest.fixture(scope="module")
def quiet() -> None:
    """Waits for what the runs of other tests are still compiling ahead: it would be measured as
    well."""
    for thread in threading.enumerate():
        if thread.name.startswith("compile"):
            thread.join()
