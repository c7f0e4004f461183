"""Algorithms, registered here by name."""

import functools
from typing import Any

from exporl.algos.algorithm import Algorithm, Entry, Measurements, Needs, Preset, compiled
from exporl.algos.bc import BC, BcConfig, bc
from exporl.algos.best_of_n import BEST_OF_N, BestOfNConfig, best_of_n
from exporl.algos.calql import CALQL, CalqlConfig, calql
from exporl.algos.dac import DAC, DacConfig, dac
from exporl.algos.dsrl import DSRL, DsrlConfig, dsrl
from exporl.algos.expo_entry import EXPO, expo
from exporl.algos.expo_options import ExpoConfig
from exporl.algos.fql import FQL, FqlConfig, fql
from exporl.algos.idql import IDQL, IdqlConfig, idql
from exporl.algos.qam import QAM, QamConfig, qam
from exporl.algos.qc import QC, QcConfig, qc
from exporl.algos.qsm import QSM, QsmConfig, qsm
from exporl.algos.residual import RESIDUAL, ResidualConfig, residual
from exporl.algos.rlpd import RLPD, RlpdConfig, rlpd
from exporl.once import made_once
from exporl.options import check_options, option
from exporl.outside import is_outside, load_outside
from exporl.policies import BasePolicy
from exporl.suggest import closest
from exporl.types import Precision, Spec

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "BcConfig",
    "BestOfNConfig",
    "CalqlConfig",
    "DacConfig",
    "DsrlConfig",
    "Entry",
    "ExpoConfig",
    "FqlConfig",
    "IdqlConfig",
    "Measurements",
    "Needs",
    "Preset",
    "QamConfig",
    "QcConfig",
    "QsmConfig",
    "ResidualConfig",
    "RlpdConfig",
    "bc",
    "best_of_n",
    "calql",
    "check_config",
    "closest",
    "compiled",
    "dac",
    "described_metrics",
    "dsrl",
    "expo",
    "find_algorithm",
    "fql",
    "idql",
    "make_algorithm",
    "name_of",
    "option",
    "qam",
    "qc",
    "qsm",
    "residual",
    "rlpd",
]

ALGORITHMS: dict[str, Entry[Any]] = {
    entry.name: entry
    for entry in (EXPO, BEST_OF_N, IDQL, FQL, CALQL, QC, DSRL, DAC, QSM, QAM, RESIDUAL, RLPD, BC)
}
"""Name -> entry of the algorithms that come with the library."""


def find_algorithm(name: str) -> Entry[Any]:
    """The entry of an algorithm: of the library's, or of your own.

    Args:
        name: a key of `ALGORITHMS`, or `module:attribute`: an `Entry`, or a function that returns
            one.

    Raises:
        ValueError: no such algorithm (names the closest), or an attribute that is something else.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if is_outside(name):
        return _outside(name)
    raise ValueError(f"unknown algorithm {name!r}. {closest(name, ALGORITHMS)}")


@functools.cache
def _outside(name: str) -> Entry[Any]:
    found: Any = load_outside(name, "algorithm")
    entry = found() if callable(found) and not isinstance(found, type) else found
    if not isinstance(entry, Entry):
        raise ValueError(
            f"algorithm {name!r} is a {type(entry).__name__}: it must be an exporl Entry, or a "
            "function without arguments that returns one."
        )
    return entry


def name_of(config: object) -> str:
    """The name of the library's algorithm that some options belong to.

    Raises:
        ValueError: options of another algorithm.
    """
    for name, entry in ALGORITHMS.items():
        if type(config) is entry.config:
            return name
    raise ValueError(
        f"{type(config).__name__} belongs to no algorithm of exporl. Say which one: "
        "algorithm='module:attribute'."
    )


def make_algorithm(
    name: str, config: Any, spec: Spec, base: BasePolicy | None, precision: Precision = "float32"
) -> Algorithm:
    """Builds an algorithm by name; the same arguments get the same record, compiled once.

    Args:
        name: a key of `ALGORITHMS`, or `module:attribute` of your own.
        config: an instance of that algorithm's options class.
        spec: the task's shapes.
        base: the base policy; ignored by algorithms that have none.
        precision: of the matrix products that rank candidates.

    Raises:
        ValueError: unknown name, options of another algorithm, or options that contradict each
            other.
    """
    entry = find_algorithm(name)
    check_config(name, config)
    return made_once(entry.make, config, spec, base, precision)


def described_metrics(name: str, algorithm: Algorithm, base: BasePolicy | None) -> dict[str, str]:
    """Name of a metric of an algorithm's updates -> what it is, in a few words.

    Args:
        name: of the algorithm.
        algorithm: its record; one without a base policy logs nothing about any.
        base: the base policy that it was made with.
    """
    of_base = () if base is None or not algorithm.has_base else base.metrics
    return {**find_algorithm(name).metrics, **dict(of_base)}


def check_config(name: str, config: Any) -> None:
    """Checks the options of an algorithm: their ranges, and whether they go together.

    Raises:
        ValueError: options of another algorithm; or names the option, its value and what is
            possible.
    """
    entry = find_algorithm(name)
    if not isinstance(config, entry.config):
        raise ValueError(f"{name} needs a {entry.config.__name__}, got a {type(config).__name__}.")
    check_options(config)
    entry.check(config)
