"""An actor: environments, the newest parameters it was given, whole chunks of steps."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from exporl.acting.parameters import from_arrays
from exporl.acting.rollout import Rollout
from exporl.distributed.messages import Chunk, Order
from exporl.files.atomic import write_text
from exporl.files.run_files import STATISTICS, TUNING
from exporl.run.actors import make_actors
from exporl.run.build import Parts, build
from exporl.run.config import from_json, to_json
from exporl.types import Params


class Setup(NamedTuple):
    """What an actor is made from, on whatever machine: plain values."""

    config: dict[str, Any]
    """The run's configuration."""
    files: dict[str, str]
    """Files of the run directory that decide what networks see and how they are built."""


def setup_of(parts: Parts) -> Setup:
    """What actors of a run are made from."""
    names = [name for name in (STATISTICS, TUNING) if (parts.run_dir / name).is_file()]
    return Setup(to_json(parts.config), {n: (parts.run_dir / n).read_text() for n in names})


class ActorService:
    """Steps its environments with the newest parameters that it was given."""

    def __init__(self, rollout: Rollout, template: Params):
        """At the first step of its environments.

        Args:
            rollout: steps them.
            template: acting parameters, of which only structure and shapes are looked at.
        """
        self._rollout, self._template, self._params = rollout, template, template
        self._version = -1
        self._given = 0

    @classmethod
    def of_run(cls, setup: Setup, number: int) -> "ActorService":
        """An actor of a run.

        Args:
            setup: of the run.
            number: no other actor of the run has or had it: no two draw the same.
        """
        config = from_json(setup.config)
        with tempfile.TemporaryDirectory(prefix="exporl-actor-") as folder:
            for name, text in setup.files.items():
                write_text(Path(folder) / name, text)
            parts = build(config, Path(folder), _nothing, learns=False)
        envs = config.num_envs // config.train.actors
        rollout = make_actors(parts, num_envs=envs, actor=number)
        return cls(rollout, parts.learner.acting())

    def collect(self, order: Order, version: int, params: Mapping[str, np.ndarray]) -> Chunk:
        """Makes the steps of an order.

        Args:
            order: how many, and how they are chosen.
            version: of the parameters; those of a version that it has are not looked at.
            params: acting parameters, flat.

        Raises:
            ValueError: an order that does not follow the one before.
            EnvironmentFailed: an environment raised something, or gave what cannot be learnt from.
        """
        if order.first != self._given:
            raise ValueError(f"ordered from step {order.first}, {self._given} were given before.")
        if version != self._version:
            self._params = jax.device_put(from_arrays(self._template, params))
            self._version = version
        ended, steps = len(self._rollout.outcomes), []
        for _ in range(order.steps):
            steps += self._rollout.step(self._params, order.mode)
        self._given += order.steps
        return Chunk(order.first, steps, self._rollout.outcomes[ended:])

    def close(self) -> None:
        """Closes the environments."""
        self._rollout.close()


def _nothing(message: str) -> None:
    """What an actor's parts say, the run has said."""
