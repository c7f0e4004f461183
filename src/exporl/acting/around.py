"""Acting around a base policy from outside: it proposes on the host, one compiled call edits, ranks
and chooses."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from exporl.algos import Algorithm
from exporl.data.episodes import Normalizer
from exporl.external import OutsideBase, outside_base
from exporl.policies import BaseConfig
from exporl.types import Decision, KeyArray, Mode, Params, Spec
from exporl.units import ActionUnits

PREFIX = "outside/"
"""What the names of a policy's own arrays begin with, among those of a learner."""


def seed_of(key: KeyArray) -> int:
    """A seed for draws outside JAX, decided by a key that nothing else is drawn with."""
    return int(
        np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist()).generate_state(1)[0]
    )


def split_arrays(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays of a learner's state, and those of the policy from outside around which it is."""
    mine = {name: value for name, value in arrays.items() if not name.startswith(PREFIX)}
    others = {n.removeprefix(PREFIX): v for n, v in arrays.items() if n.startswith(PREFIX)}
    return mine, others


def base_of(
    config: BaseConfig, spec: Spec, given: Any, units: ActionUnits | None
) -> OutsideBase | None:
    """The policy from outside that a run's options name, or that was given; None without. `units`
    are the environment's own; None: its actions are in [-1, 1].

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError: it cannot be had; says why.
    """
    learns, rate = config.learns, config.learning_rate
    return outside_base(config.policy, given, spec, learns=learns, learning_rate=rate, units=units)


class Seen:
    """What networks see of an observation of which the policy from outside sees everything."""

    def __init__(self, spec: Spec, normalizer: Normalizer | None):
        """Of the entries of a spec, normalised by a run's statistics, if it has any."""
        self._names = names = [name for name, _, _ in spec.observation]
        self._normalizer = None
        if normalizer is not None:
            mean = {name: value for name, value in normalizer.mean.items() if name in names}
            std = {name: normalizer.std[name] for name in mean}
            self._normalizer = Normalizer(mean, std, normalizer.clip)

    def __call__(self, observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Their entries, with any leading axes."""
        kept = {name: np.asarray(observation[name]) for name in self._names}
        return kept if self._normalizer is None else self._normalizer(kept)


def around(algorithm: Algorithm, base: OutsideBase, seen: Seen) -> Algorithm:
    """The algorithm, acting on the samples of a policy from outside and on observations as the
    environment shows them.

    Raises:
        ValueError: the algorithm takes no samples from outside.
    """
    num = max(algorithm.needs.proposals, algorithm.needs.attached)
    if not num:
        raise ValueError(
            f"this algorithm draws its own samples or has no base policy: {base.name} has no "
            "effect on it. Leave base.policy out, or train expo or best_of_n around it."
        )

    def act(
        acting: Params,
        observation: Mapping[str, Any],
        key: KeyArray,
        *,
        mode: Mode = "explore",
        proposals: Any = None,
    ) -> Decision:
        if proposals is None:
            alone = mode in ("base", "sample")
            proposals = base.sample(observation, 1 if alone else num, seed_of(key))
        return algorithm.act(acting, seen(observation), key, mode=mode, proposals=proposals)

    def propose(state: Any, observation: Mapping[str, Any], key: KeyArray) -> np.ndarray:
        return base.sample(observation, num, seed_of(key))

    return algorithm._replace(act=act, propose=propose)
