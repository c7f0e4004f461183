"""Messages, bytes and seconds of actors on Ray, one of everything, to plan for many of them.

    .venv/bin/python benchmarks/actors_plan.py

Needs Ray (pip install 'exporl[ray]'). Learner's books, replay and Ray are those of a run; the
actors are real processes whose steps are made by hand, in the shapes of the task: no simulator, no
networks. Seconds are medians, after a warm-up: the processor's, of all threads of one process, so
that waiting and other work on the machine do not count; `wall` beside them is the clock's. Writes
benchmarks/results/actors_plan.json; the tables extrapolate from it (actors_extrapolated.py).
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import write_result

from exporl.acting.parameters import from_arrays, to_arrays
from exporl.algos import Algorithm, make_algorithm
from exporl.data.columns import needed_columns
from exporl.data.replay import Replay
from exporl.distributed import ray_actors
from exporl.distributed.actor_service import ActorService, Setup
from exporl.distributed.cluster import connect, load_ray
from exporl.distributed.learner_service import CHUNK_STEPS, LearnerService
from exporl.distributed.messages import Chunk, Order
from exporl.envs.registry import make_task
from exporl.policies import make_base
from exporl.run.build import specs_of
from exporl.run.config import RunConfig, from_json, override, to_json
from exporl.run.presets import preset_config
from exporl.types import Params, Spec, Step

TASK = "robomimic/can"
PRESETS = ("paper", "small")
CHUNKS, ROWS = 20, 50_000
"""Chunks that are timed together; and rows of each stream of the replay."""
WARM_UP = 3
"""Blocks of chunks, and versions, that are not counted."""


def configuration(preset: str, actors: int) -> RunConfig[Any]:
    """A preset with one environment per actor, as it is measured by throughput.py."""
    options: dict[str, Any] = {"train.actors": actors, "num_envs": actors}
    options |= {"train.online_steps": 10**9, "algo.hoist_sampling": False}
    return override(preset_config("expo", preset, TASK), options)


def networks(config: RunConfig[Any]) -> tuple[Spec, Algorithm]:
    """What the task shows, and the algorithm."""
    shown, seen = specs_of(config, make_task(config.task, config.reward))
    base = make_base(config.base, seen, config.precision)
    return shown, make_algorithm(config.algorithm, config.algo, seen, base, config.precision)


class HandMadeSteps:
    """In place of an actor's `Rollout`: steps of noise, as those of simulators share what they
    see after one step and before the next one."""

    def __init__(self, spec: Spec, envs: int):
        """Before the first step."""
        self._spec, self._rng = spec, np.random.default_rng(0)
        self._seen = [self._observation() for _ in range(envs)]
        self.outcomes: list[Any] = []

    def _observation(self) -> dict[str, np.ndarray]:
        return {
            name: self._rng.standard_normal(shape).astype(dtype)
            for name, shape, dtype in self._spec.observation
        }

    def step(self, acting: Params, mode: str) -> list[tuple[int, Step]]:
        """One step of every environment."""
        steps = []
        for env, seen in enumerate(self._seen):
            action = self._rng.uniform(-1, 1, self._spec.action_dim).astype(np.float32)
            after = self._seen[env] = self._observation()
            steps.append((env, Step(seen, action, -1.0, False, False, after)))
        return steps


class HandMadeActor:
    """In place of `RemoteActor`: an `ActorService` around steps made by hand."""

    def __init__(self, setup: Setup, number: int):
        """As `RemoteActor`."""
        jax.config.update("jax_platforms", "cpu")
        config = from_json(setup.config)
        spec, algorithm = networks(config)
        state = jax.eval_shape(algorithm.init, jax.random.key(0))
        self._template = jax.eval_shape(algorithm.acting, state)
        steps: Any = HandMadeSteps(spec, config.num_envs // config.train.actors)
        self._service = ActorService(steps, self._template)

    def collect(self, order: Order, version: int, params: dict[str, np.ndarray]) -> Chunk:
        """As `RemoteActor.collect`."""
        return self._service.collect(order, version, params)

    def fetch(self, references: list[Any]) -> tuple[float, float]:
        """Seconds to fetch a version and to give it to JAX."""
        ray = load_ray("benchmarks/actors_plan.py")

        def whole() -> None:
            fetched = from_arrays(self._template, ray.get(references[0]))
            jax.block_until_ready(jax.device_put(fetched))

        return timed(whole)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds of this process, and seconds of the clock."""
    began = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - began[0], time.perf_counter() - began[1]


def medians(name: str, timings: list[tuple[float, float]]) -> dict[str, float]:
    """Of both."""
    processor, wall = zip(*timings, strict=True)
    return {f"{name}_s": statistics.median(processor), f"{name}_wall_s": statistics.median(wall)}


def versions(ray: Any, preset: str, repeats: int) -> dict[str, Any]:
    """A version of the acting parameters: published by the learner, fetched by an actor."""
    config = configuration(preset, 1)
    algorithm = networks(config)[1]
    acting = algorithm.acting(jax.jit(algorithm.init)(jax.random.key(0)))
    updated = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    books = LearnerService(1, 1, 10, lambda: 0, lambda _: None)
    actor = ray.remote(num_cpus=1)(HandMadeActor).remote(Setup(to_json(config), {}), 0)
    taken, put, fetched = [], [], []
    for _ in range(WARM_UP + repeats):
        acting = jax.block_until_ready(updated(acting))
        taken.append(timed(lambda acting=acting: books.publish(acting)))
        references: list[Any] = []
        put.append(timed(lambda: references.append(ray.put(books.params))))  # noqa: B023
        fetched.append(ray.get(actor.fetch.remote(references)))
    ray.kill(actor)
    arrays = to_arrays(acting)
    both = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(taken, put, strict=True)]
    result: dict[str, Any] = {"preset": preset, "base": config.base.kind, "repeats": repeats}
    result |= {"bytes": sum(each.nbytes for each in arrays.values()), "arrays": len(arrays)}
    for name, timings in (
        ("take", taken),
        ("put", put),
        ("publish", both),
        ("fetch", fetched),
    ):
        result |= medians(name, timings[WARM_UP:])
    options = config.train
    return result | {"utd_ratio": options.utd_ratio, "update_every": options.update_every}


def chunks(ray: Any, actors: int, blocks: int, folder: Path) -> dict[str, Any]:
    """Chunks that the learner orders, receives and adds to the replay, without new parameters."""
    config = configuration("paper", actors)
    spec, algorithm = networks(config)
    acting = algorithm.acting(jax.jit(algorithm.init)(jax.random.key(0)))
    needs = algorithm.needs
    columns = needed_columns(needs.columns, needs.proposals, spec, config.train.discount)
    replay = Replay(spec, ROWS, num_streams=actors, columns=columns)
    parts: Any = SimpleNamespace(config=config, run_dir=folder, learner=SimpleNamespace(updates=0))
    crew = ray_actors.RayActors(
        parts, replay.cut, ray=ray, say=print, address=None, deadline_s=ray_actors.START_S
    )

    def receive(count: int) -> None:
        end = crew.service.env_steps + count * CHUNK_STEPS
        while crew.service.env_steps < end:
            for stream, step in crew.step(acting):
                replay.add(step, stream)

    try:
        while not all(place.given for place in crew.service.places):
            receive(1)
        timings = [timed(lambda: receive(CHUNKS)) for _ in range(WARM_UP + blocks)][WARM_UP:]
    finally:
        crew.close()
    each = [(processor / CHUNKS, wall / CHUNKS) for processor, wall in timings]
    restarts = {"restarts": crew.service.restarts}
    return {"actors": actors, "chunks": blocks * CHUNKS, **medians("chunk", each), **restarts}


def message(ray: Any) -> dict[str, Any]:
    """Bytes of an order and of a chunk: of its arrays, and as Ray keeps it."""
    spec = networks(configuration("paper", 1))[0]
    made = HandMadeSteps(spec, 1)
    steps = [pair for _ in range(CHUNK_STEPS) for pair in made.step(None, "policy")]
    arrays = jax.tree.leaves([step for _, step in steps])

    def kept(value: Any) -> int:
        reference = ray.put(value)
        return ray.experimental.get_object_locations([reference])[reference]["object_size"]

    return {
        "task": TASK,
        "control_hz": make_task(TASK).control_hz,
        "chunk_steps": CHUNK_STEPS,
        "array_bytes": sum(each.nbytes for each in arrays if isinstance(each, np.ndarray)),
        "chunk_bytes": kept(Chunk(0, steps, [])),
        "order_bytes": kept(Order("policy", CHUNK_STEPS, 0)),
    }


def main() -> None:
    """Measures everything, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=100, help="versions of the parameters")
    parser.add_argument("--blocks", type=int, default=50, help=f"of {CHUNKS} chunks each")
    given = parser.parse_args()
    ray = load_ray("benchmarks/actors_plan.py")
    # members of this program, so that Ray sends them to its processes
    replacement: Any = HandMadeActor
    ray_actors.RemoteActor = replacement
    connect(ray, None, num_cpus=1, store_bytes=ray_actors.STORE_BYTES)
    about = message(ray)
    published = [versions(ray, preset, given.repeats) for preset in PRESETS]
    ray.shutdown()
    received = []
    with tempfile.TemporaryDirectory() as folder:
        for actors in given.actors:
            received.append(chunks(ray, actors, given.blocks, Path(folder)))
            print(received[-1], flush=True)
    result = {"load": os.getloadavg(), "ray": ray.__version__, "message": about}
    write_result("actors_plan", result | {"versions": published, "chunks": received})


if __name__ == "__main__":
    main()
