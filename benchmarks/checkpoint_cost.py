"""What a checkpoint costs as the replay grows: bytes written and seconds, whole and in segments.

    .venv/bin/python benchmarks/checkpoint_cost.py  # everything, about ten minutes, 10 GB of memory
    .venv/bin/python benchmarks/checkpoint_cost.py --cases state --ways segments

For every size the online replay is filled but for the last 5,000 steps (`log.save_every`), a
checkpoint is written, the last steps follow, an episode stays open, and the next checkpoint is
measured: the bytes of files that were not there before, and the seconds until everything is on the
disk. The way "whole" writes all of the replay each time, as versions without segments do, and works
with their sources too (`PYTHONPATH`). Parameters are those of EXPO's preset paper, optimisers and
targets included; the record tells of every episode. Writes benchmarks/results/checkpoint_cost.json;
ways and cases that are not asked for stay in it as they are.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import RESULTS, machine

from exporl.acting.parameters import to_arrays
from exporl.algos import make_algorithm
from exporl.data.columns import Column, proposal_columns
from exporl.data.episodes import Episode
from exporl.data.replay import Replay
from exporl.files import checkpoint
from exporl.policies import make_base
from exporl.run.config import override
from exporl.run.presets import preset_config
from exporl.types import Spec

STATE = Spec((("state", (39,), "float32"),), action_dim=4)
IMAGES = Spec((*STATE.observation, ("image", (84, 84, 3), "uint8")), action_dim=4)
CHUNKS = Spec(STATE.observation, action_dim=4, chunk_length=6)
CASES: dict[str, tuple[Spec, dict[str, Column], tuple[int, ...]]] = {
    "state": (STATE, {}, (10_000, 100_000, 1_000_000)),
    "images": (IMAGES, {}, (10_000, 100_000)),
    "state, cached": (CHUNKS, proposal_columns(8, CHUNKS), (10_000, 100_000, 1_000_000)),
}
"""Observations (of Meta-World; with a camera; with eight kept chunks of six actions), sizes."""
WAYS = ("whole", "segments")
EVERY, LENGTH = 5_000, 200
"""Steps between checkpoints, and of an episode."""


def parameters() -> dict[str, np.ndarray]:
    """All that a learner saves."""
    config = override(
        preset_config("expo", "paper", "probe/bandit"), {"algo.hoist_sampling": False}
    )
    base = make_base(config.base, STATE, config.precision)
    algorithm = make_algorithm("expo", config.algo, STATE, base, config.precision)
    arrays = to_arrays(jax.jit(algorithm.init)(jax.random.key(0)))
    return {name: np.asarray(array) for name, array in arrays.items()}


def episodes(spec: Spec, steps: int, rng: np.random.Generator) -> list[Episode]:
    """Episodes of noise, all of the same pixels where there are any: they are not compressed."""
    made = []
    for start in range(0, steps, LENGTH):
        length = min(LENGTH, steps - start)
        observations = {"state": rng.standard_normal((length + 1, 39)).astype(np.float32)}
        for name, shape, dtype in spec.observation[1:]:
            observations[name] = np.broadcast_to(
                rng.integers(256, size=shape, dtype=dtype), (length + 1, *shape)
            )
        actions = rng.uniform(-1, 1, (length, 4)).astype(np.float32)
        made.append(Episode(observations, actions, np.zeros(length), np.zeros(length, bool), False))
    return made


def add(replay: Replay, steps: int, rng: np.random.Generator, learning: Any) -> None:
    """Steps in whole episodes; a hundred at a time, so that they need no memory of their own."""
    for start in range(0, steps, 100 * LENGTH):
        for episode in episodes(replay.spec, min(100 * LENGTH, steps - start), rng):
            replay.add_episode(episode, float, checked=True)
    if "proposals" in replay.columns.values:  # renewed everywhere between two checkpoints
        replay.column("proposals")[:, : replay.used] = learning.standard_normal()
        replay.column("proposed")[:, : replay.used] += 1


def files_of(folder: Path) -> dict[int, int]:
    """Bytes of every file, by inode."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return {each.st_ino: each.st_size for each in stats}


def measure(case: str, size: int, way: str, learner: dict[str, np.ndarray]) -> dict[str, float]:
    """One checkpoint of a replay of so many steps, after the one before it."""
    spec, columns, _ = CASES[case]
    rng, learning = np.random.default_rng(0), np.random.default_rng(1)
    replay = Replay(spec, size + size // LENGTH + 1_000, columns=columns)
    with tempfile.TemporaryDirectory(prefix="exporl-checkpoints-") as name:
        folder = Path(name) / "checkpoints"
        sealing = None
        if way == "segments":
            from exporl.data.sealing import Sealing  # versions without it write all

            sealing = Sealing(replay, folder)

        def save(step: int) -> None:
            parts = {
                "learner": learner,
                "replay": replay.state() if sealing is None else sealing.seal(),
                "rollout": {"actions/0": np.zeros((LENGTH // 2, 4), np.float32)},
            }
            outcome = [True, 123.456, LENGTH, 0.123456789, "policy"]
            record = {"rollout": {"env_steps": step, "outcomes": [outcome] * (step // LENGTH)}}
            listed = () if sealing is None else ({"replay": sealing.segments},)
            checkpoint.save(folder, step, parts, record, 2, *listed)

        add(replay, size - EVERY, rng, learning)
        save(size - EVERY)
        add(replay, EVERY - LENGTH // 2, rng, learning)
        last = episodes(spec, LENGTH // 2, rng)[0]
        for step in steps_of(last):
            replay.add(step)
        before = files_of(folder)
        began = time.perf_counter()
        save(size)
        seconds = time.perf_counter() - began
        written = sum(size for node, size in files_of(folder).items() if node not in before)
        kept = sum(files_of(folder).values())
    return {"bytes": written, "seconds": seconds, "kept_bytes": kept}


def steps_of(episode: Episode) -> list[Any]:
    """The steps of an episode that goes on."""
    from exporl.types import Step

    return [
        Step(
            {name: values[t] for name, values in episode.observations.items()},
            episode.actions[t],
            0.0,
            False,
            False,
            {name: values[t + 1] for name, values in episode.observations.items()},
        )
        for t in range(len(episode))
    ]


def main() -> None:
    """Measures what is asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--repeats", type=int, default=3, help="of which medians are taken")
    options = parser.parse_args()
    learner = parameters()
    path = RESULTS / "checkpoint_cost.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    result |= {
        "command": "benchmarks/checkpoint_cost.py",
        "steps_between_checkpoints": EVERY,
        "learner_bytes": sum(array.nbytes for array in learner.values()),
    }
    for way in options.ways:
        found = result.setdefault(way, {})
        found["machine"] = machine()
        for case in options.cases:
            sizes = found.setdefault(case, {})
            for size in CASES[case][2]:
                runs = [measure(case, size, way, learner) for _ in range(options.repeats)]
                sizes[str(size)] = {
                    name: statistics.median(run[name] for run in runs) for name in runs[0]
                } | {"all_seconds": [run["seconds"] for run in runs]}
                print(way, case, size, sizes[str(size)], flush=True)
                RESULTS.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
