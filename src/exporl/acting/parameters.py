"""Trees of arrays as flat arrays named by their path, and back: how a checkpoint keeps them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """All leaves in host memory, by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def from_arrays(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A tree of the same structure with saved leaves. Inverse of `to_arrays`.

    Args:
        tree: leaves with the shapes and types that are wanted; only those are looked at.
        arrays: the saved leaves.

    Raises:
        ValueError: an array is missing, left over, or has another shape; names its path.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    different = sorted(set(wanted) ^ set(arrays))
    if different:
        raise ValueError(
            f"saved state and configuration disagree about {different[0]} (and "
            f"{len(different) - 1} more)."
        )
    for name, leaf in wanted.items():
        if arrays[name].shape != leaf.shape:
            raise ValueError(
                f"saved {name} has shape {arrays[name].shape}, the configuration needs "
                f"{leaf.shape}."
            )
    restored = [np.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()]
    return jax.tree_util.tree_unflatten(structure, restored)
