"""Every test runs with the key-reuse checker on and with silent rank promotion forbidden."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        type=Path,
        default=Path(__file__).parent / "data" / "official_expo.npz",
        help="file of golden numbers in the layout of tests/data/official_expo.npz",
    )


@pytest.fixture(scope="session")
def golden_path(request) -> Path:
    return request.config.getoption("--golden")
