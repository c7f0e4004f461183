"""What several test files need: minibatches, states that survive donation, comparison to the
bit."""

import jax
import jax.numpy as jnp
import numpy as np

from exporl.types import Batch, Spec


def random_batch(spec: Spec, *lead: int, seed: int = 0, discount: float = 0.9) -> Batch:
    """A batch with leading axes (b,) or (u, b): odd rows are prior data, the first half of the rows
    are successes."""
    rng = np.random.default_rng(seed)

    def observation():
        return {
            name: rng.standard_normal((*lead, *shape)).astype(dtype)
            for name, shape, dtype in spec.observation
        }

    row = np.broadcast_to(np.arange(lead[-1]), lead)
    return Batch(
        observation=observation(),
        action=rng.uniform(-1, 1, (*lead, spec.chunk_length, spec.action_dim)).astype(np.float32),
        reward=rng.uniform(-1, 0, lead).astype(np.float32),
        discount=np.where(rng.uniform(size=lead) < 0.2, 0, discount).astype(np.float32),
        next_observation=observation(),
        valid=np.ones((*lead, spec.chunk_length), np.float32),
        prior=(row % 2).astype(np.float32),
        success=(row < lead[-1] // 2).astype(np.float32),
    )


def to_host(tree):
    """A copy in host memory, which no update can donate away."""
    return jax.tree.map(np.array, tree)


def to_device(tree):
    """Fresh device buffers, ready to be donated."""
    return jax.tree.map(jnp.array, tree)


def same(a, b) -> bool:
    """Whether two trees agree in structure and in every bit."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def distance(a, b) -> float:
    """Largest absolute difference between two trees of the same structure."""
    gaps = jax.tree.map(lambda x, y: float(np.abs(np.asarray(x) - np.asarray(y)).max()), a, b)
    return max(jax.tree.leaves(gaps))
