"""Acting in several observations that have nothing to do with each other, in one compiled call."""

import functools
from typing import Any

import jax

from exporl.algos.algorithm import Act
from exporl.types import Decision, Mode, Params


@functools.lru_cache(8)
def act_each(act: Act, mode: Mode) -> Any:
    """(parameters, observation [b, ...], keys [b]) -> decision [b, ...], compiled: every
    observation with its own key, as if it were alone."""

    def one(parameters: Params, observation: Any, key: Any) -> Decision:
        alone = jax.tree.map(lambda entry: entry[None], observation)
        return jax.tree.map(lambda x: x[0], act(parameters, alone, key, mode=mode))

    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))


def ranked(options: Any, mode: Mode) -> int | None:
    """Actions that an algorithm ranks per observation, by its options: base samples, and edits of
    them where edits act. None: it ranks none."""
    num = getattr(options, "num_base_samples", None)
    if num is None:
        return None
    if mode == "base":
        return 1
    num = 1 if getattr(options, "filter_acting", False) else num
    edits_act = getattr(options, "edits_act", "always") == "always"
    return num + (min(getattr(options, "num_edit_samples", 0), num) if edits_act else 0)
