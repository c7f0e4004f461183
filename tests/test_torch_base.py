"""The benchmark of a diffusion policy in PyTorch against the library's: the two are the same
function of their parameters, and successes are compared on the same starts."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.data.episodes import Normalizer
from exporl.policies import BaseConfig, make_base
from exporl.run.config import check
from exporl.spec import Spec

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import torch_base

SPEC = Spec((("state", (5,), "float32"),), action_dim=3, chunk_length=2)
CONFIG = BaseConfig(width=16, num_blocks=2, num_steps=4, time_dim=8)


def test_both_frameworks_compute_the_same_from_the_same_parameters():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch_diffusion import Diffusion

    base, rng = make_base(CONFIG, SPEC), np.random.default_rng(0)
    params = jax.jit(base.init)(jax.random.key(0))
    mean, std = rng.standard_normal(5).astype(np.float32), np.full(5, 2.0, np.float32)
    normalizer = Normalizer({"state": mean}, {"state": std})
    module = Diffusion(SPEC, CONFIG, normalizer)
    module.take(params)
    seen = {"state": 3 * rng.standard_normal((6, 5)).astype(np.float32)}
    noise = rng.standard_normal((6, *base.noise_shape)).astype(np.float32)
    inside = np.asarray(jax.jit(base.decode)(params, normalizer(seen), jnp.asarray(noise)))
    tensors = {"state": torch.from_numpy(seen["state"])}
    with torch.no_grad():
        rows = torch.from_numpy(np.moveaxis(noise, 1, 0).reshape(4, 6, 6))
        made = module.decode(module.features(tensors), rows).unflatten(-1, (2, 3)).numpy()
        samples = module.sample(tensors, 3)
    np.testing.assert_allclose(made, inside, atol=1e-5)
    assert samples.shape == (6, 3, 2, 3) and float(samples.std(dim=1).mean()) > 0
    ours = sum(array.size for array in jax.tree.leaves(params))
    assert ours == sum(parameter.numel() for parameter in module.net.parameters())


def test_every_row_is_a_run():
    for row in torch_base.ROWS:
        config = torch_base.configured(row, 2, Path("data"))
        check(config)
        assert config.seed == 2 and config.data.path == "data/push-v3-mixed.npz"
        assert config.base.learns == (row != "jax") and config.train.online_steps == 0


def test_successes_are_compared_on_the_same_starts():
    def result(row, success):
        rate = sum(success) / len(success)
        return {"row": row, "seed": 0, "success": success, "success_rate": rate, "train_s": 7.2}

    rows = torch_base.table([result("jax", [1, 1, 0, 0]), result("torch", [1, 1, 1, 0])])
    jax_row, torch_row = rows.splitlines()[2:]
    assert "| 50% [" in jax_row and jax_row.endswith("| - | 7 |")
    assert "| 75% [" in torch_row and "| +25 [+0, +75] |" in torch_row
