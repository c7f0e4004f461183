"""What a run would hold and send, on however many machines, in words: nothing is started, collected
or compiled, and the accelerators need not be there."""

import math
import sys
from typing import Any, NamedTuple

import jax
import numpy as np

from exporl.algos import Algorithm, Measurements, find_algorithm, make_algorithm
from exporl.data.columns import needed_columns, proposal_columns
from exporl.data.memory import ReplayPlan, row_bytes, size
from exporl.distributed.learner_service import CHUNK_STEPS
from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.policies import make_base
from exporl.randomness import INIT, run_key
from exporl.run import memory
from exporl.run.build import specs_of
from exporl.run.config import RunConfig, check
from exporl.run.pace import expected_seconds
from exporl.run.plan import never_happens, plan
from exporl.spec import Spec

try:
    import resource
except ImportError:  # a system without it (Windows): the memory of a process is not known
    resource = None

FLOAT, FLAG = 4, 1
"""Bytes of a reward, and of a truth value."""


class Sizes(NamedTuple):
    """Bytes of what a run holds and sends."""

    learner: int
    """Parameters, targets and the state of optimisers: on every device."""
    batches: int
    """Minibatches that are held at a time: of all devices together."""
    acting: int
    """The parameters that acting needs: one version of them."""
    step: int
    """A step as an actor sends it: observations before and after it, action, reward, ends and
    success."""
    row: int
    """A step as the replay keeps it."""


def dry_run(config: RunConfig[Any]) -> list[str]:
    """The plan of a run, a line each.

    Args:
        config: of the run.

    Raises:
        ValueError: contradictory options, an unknown task, or a policy from outside, whose size
            nobody knows.
    """
    check(config)
    if config.base.policy is not None:
        raise ValueError(
            f"--dry-run does not know what base.policy={config.base.policy} holds: leave one of "
            "them out."
        )
    task = make_task(config.task, config.reward)
    shown, seen = specs_of(config, task)
    algorithm = _algorithm(config, seen)
    sizes = _sizes(config, algorithm, shown, seen)
    lines = [plan(config, algorithm, expected_seconds(config)), *never_happens(config)]
    lines += [_replay(config, shown, sizes), _learner(config, sizes)]
    return lines + (_of_actors(config, task, sizes) if config.train.actors else [])


def _algorithm(config: RunConfig[Any], seen: Spec) -> Algorithm:
    """The algorithm, with what a measurement decides left at one of its choices: both are as
    large."""
    resolve = find_algorithm(config.algorithm).resolve
    options = resolve(config.algo, Measurements(lambda samples: False))
    base = make_base(config.base, seen, config.precision)
    return make_algorithm(config.algorithm, options, seen, base, config.precision)


def _sizes(config: RunConfig[Any], algorithm: Algorithm, shown: Spec, seen: Spec) -> Sizes:
    needs = algorithm.needs
    columns = needed_columns(needs.columns, needs.proposals, shown, config.train.discount)
    drawn = columns | proposal_columns(needs.attached, seen)
    state = jax.eval_shape(algorithm.init, run_key(config.seed, INIT))
    entries = [(shape, dtype) for _, shape, dtype in shown.observation]
    observation = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in entries)
    return Sizes(
        learner=_bytes(state),
        batches=memory.batch_bytes(config, seen, drawn),
        acting=_bytes(jax.eval_shape(algorithm.acting, state)),
        step=2 * observation + FLOAT * shown.action_dim + FLOAT + 3 * FLAG,
        row=row_bytes(shown, columns),
    )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _replay(config: RunConfig[Any], shown: Spec, sizes: Sizes) -> str:
    rows, in_files = memory.online_rows(config), memory.mapped_row_bytes(config, shown)
    return f"{ReplayPlan(sizes.row, 0, rows, config.num_envs, in_files)}, and prior data besides"


def _learner(config: RunConfig[Any], sizes: Sizes) -> str:
    train = config.train
    share = sizes.batches // train.devices
    rows = train.batch_size // train.devices
    each = f"each of {train.devices} devices" if train.devices > 1 else "the device"
    return (
        f"learner: one process; {each} holds {size(sizes.learner)} of parameters, targets and "
        f"optimisers + {size(share)} of minibatches ({rows} of {train.batch_size} rows) = "
        f"{size(sizes.learner + share)}, and what the compiled update needs"
    )


def _of_actors(config: RunConfig[Any], task: Task, sizes: Sizes) -> list[str]:
    """Processes, memory and messages of the actors."""
    actors = config.train.actors
    each = config.num_envs // actors
    steps = CHUNK_STEPS * each
    chunk = steps * sizes.step
    lines = [
        f"actors: {actors} processes with {each} of {config.num_envs} environments and a CPU each, "
        f"{actors + 1} CPUs with the learner's; {_memory(actors)}, and their simulators besides",
        f"object store: {size(sizes.acting)} per version of the acting parameters; at most one "
        f"version per actor at a time, {size(actors * sizes.acting)}, and a chunk of each, "
        f"{size(actors * chunk)}",
        f"messages: an order and a chunk of {steps} steps per actor, {size(chunk)}, with a new "
        f"version at most: {size(sizes.step)} of steps and up to {size(sizes.acting / steps)} of "
        "parameters per environment step",
    ]
    if task.control_hz is None:
        return lines
    rate = task.control_hz * config.num_envs
    calls = rate / config.train.update_every
    return [
        *lines,
        f"load where every environment runs in its real time, {task.control_hz:g} Hz: {rate:,.0f} "
        f"steps/s in {rate / steps:,.0f} messages/s, {size(rate * sizes.step)}/s of steps, up to "
        f"{size(rate / steps * sizes.acting)}/s of parameters, and {calls:,.0f} update calls of "
        f"{config.train.utd_ratio * config.train.update_every} minibatches per second due; the "
        "actors wait where the learner makes fewer",
    ]


def _memory(actors: int) -> str:
    """Memory of the actors' programs: as much as of this process, which has loaded the same."""
    if resource is None:
        return "memory for Python, JAX and exporl in each"
    unit = 1 if sys.platform == "darwin" else 1024
    loaded = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"about {size(loaded)} of memory each for Python, JAX and exporl, {size(actors * loaded)}"
    )
