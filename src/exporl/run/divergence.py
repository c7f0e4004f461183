"""Training that diverges: noticed in what is learnt before a checkpoint is written, and in values
that no rewards allow."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from exporl.run.callbacks import Callback
from exporl.run.config import RunConfig
from exporl.types import Spec

_LOWEST, _HIGHEST = "critic/q_min", "critic/q_max"
"""Metrics of the critics' extremes over an interval."""


def finite(arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The same arrays, if they may replace those of the last good checkpoint.

    Raises:
        FloatingPointError: an array of what was learnt holds NaN or infinity; names it.
    """
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise FloatingPointError(
                f"{count} of {array.size} numbers of {name} are NaN or infinite: training "
                "diverged, and is not saved. Start anew with lower learning rates."
            )
    return arrays


def value_watch(config: RunConfig[Any], spec: Spec, say: Callable[[str], None]) -> "ValueWatch":
    """What a run watches its critics with. Values that entropy adds to have no known bounds."""
    unknown = getattr(config.algo, "backup_entropy", False)
    return ValueWatch(None if unknown else spec.value_range, config.train.divergence, say)


class ValueWatch(Callback):
    """Compares the critics' values with those that rewards and discount allow.

    Critics err by some of the range of values while they learn; one that leaves it by more than
    its whole width is exploding.
    """

    def __init__(
        self,
        values: tuple[float, float] | None,
        action: Literal["warn", "stop"],
        say: Callable[[str], None],
    ):
        """Has seen nothing yet.

        Args:
            values: least and greatest value; None: unknown, nothing is compared.
            action: "warn": says it once; "stop": ends the run.
            say: told about it.
        """
        self._values, self._action, self._say = values, action, say
        self._warned = False

    def on_log_line(self, line: Mapping[str, Any]) -> None:
        """Looks at the extremes of the critics in a line of metrics.

        Raises:
            FloatingPointError: they explode, and that is to end the run.
        """
        if self._values is None or _LOWEST not in line or _HIGHEST not in line:
            return
        low, high = self._values
        width, lowest, highest = high - low, line[_LOWEST], line[_HIGHEST]
        if lowest >= low - width and highest <= high + width:
            return
        found = (
            f"the critics say values between {lowest:.4g} and {highest:.4g}, while rewards and "
            f"discount allow [{low:g}, {high:g}] only: they diverge. Start anew with lower "
            "learning rates or a lower train.utd_ratio, or with algo.clip_targets=True."
        )
        if self._action == "stop":
            raise FloatingPointError(found)
        if not self._warned:
            self._warned = True
            self._say(f"warning: {found} train.divergence=stop ends such a run.")
