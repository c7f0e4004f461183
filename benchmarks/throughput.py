"""Update speed, compile time, memory, acting latency and a whole training loop, for exact and
accelerated modes.

    .venv/bin/python benchmarks/throughput.py  # everything, about 40 minutes
    .venv/bin/python benchmarks/throughput.py --presets paper --repeats 5
    .venv/bin/python benchmarks/throughput.py --presets tiny --parts update

One update call is one environment step's worth of learning. All variants of a preset are compiled
in one process and then run in turn, so that they share the machine's noise; medians are reported.
The peak is this machine's own, measured on the same matrix products; the floor is the hand-counted
operations (benchmarks/cost.py) at that peak. Memory is what the compiled update needs beside the
replay. Acting and the training loop run in processes of their own, pinned to one core. Writes
benchmarks/results/throughput-<backend>.json.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import LOOP_PARTS, RESULTS, write_result
from cost import update_flops

from exporl.algos import make_algorithm
from exporl.policies import make_base
from exporl.run.config import RunConfig, override
from exporl.run.presets import preset_config
from exporl.types import Batch, Spec

ADROIT = Spec((("state", (45,), "float32"),), 24)
METAWORLD = Spec((("state", (39,), "float32"),), 4)
SPECS = {"paper": ADROIT, "small": METAWORLD, "tiny": METAWORLD}
MODES = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "float32 hoisted": {"algo.hoist_sampling": True},
    "float32 filtered": {"algo.backup": "filtered"},
    "bfloat16 filtered": {"precision": "bfloat16", "algo.backup": "filtered"},
    "float32 cached": {"algo.backup": "cached"},
    "bfloat16 cached": {"precision": "bfloat16", "algo.backup": "cached"},
}
PEAK_SHAPES = ((2048, 256, 1024), (2048, 1024, 256), (4096, 1024, 1024))
MORE = 20
"""Times as many runs of the small presets, whose updates are that much shorter and noisier."""
LOOP_MODES = ("float32", "float32 filtered", "float32 cached")


def configuration(preset: str, kind: str, mode: str) -> RunConfig[Any]:
    """The options of one variant; "rlpd" is the baseline."""
    if mode == "rlpd":
        return preset_config("rlpd", preset, "probe/bandit")
    options = {"base.kind": kind, "algo.hoist_sampling": False} | MODES[mode]
    if kind == "flow":
        options["base.num_steps"] = 5
    return override(preset_config("expo", preset, "probe/bandit"), options)


def random_batches(spec: Spec, config: RunConfig[Any], n: int) -> Batch:
    """Minibatches [u, b, ...] of noise."""
    rng, lead = (
        np.random.default_rng(0),
        (config.train.utd_ratio * config.train.update_every, config.train.batch_size),
    )

    def observation():
        return {k: rng.standard_normal((*lead, *s)).astype(d) for k, s, d in spec.observation}

    chunk = (spec.chunk_length, spec.action_dim)
    uniform = lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)  # noqa: E731
    ones = np.ones(lead, np.float32)
    batches = Batch(
        observation(),
        uniform(*lead, *chunk),
        uniform(*lead),
        0.99 * ones,
        observation(),
        np.ones((*lead, spec.chunk_length), np.float32),
        ones,
        ones,
    )
    extra = {"next_proposals": uniform(*lead, n, *chunk)} if n else {}
    return jax.device_put(dataclasses.replace(batches, extra=extra))


class Variant:
    """One compiled update with its own state."""

    def __init__(self, preset: str, kind: str, mode: str):
        self.name, spec = (preset, kind, mode), SPECS[preset]
        self.config = configuration(preset, kind, mode)
        base = make_base(self.config.base, spec, self.config.precision)
        self.algorithm = make_algorithm(
            self.config.algorithm, self.config.algo, spec, base, self.config.precision
        )
        self.state = jax.jit(self.algorithm.init)(jax.random.key(0))
        self.batches = random_batches(spec, self.config, self.algorithm.needs.proposals)
        began = time.perf_counter()
        key = jax.random.key(1)
        program = self.algorithm.update.lower(
            self.state, self.batches, key, phase="online"
        ).compile()
        self.compile_s = time.perf_counter() - began
        memory = program.memory_analysis()
        self.memory_mb = (
            (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20 if memory else None
        )
        self.program, self.seconds, self.calls = program, [], 0
        self.flops = update_flops(self.config, spec)
        rows = self.algorithm.needs.refresh
        self.refresh = (
            {k: np.zeros((rows, *s), d) for k, s, d in spec.observation} if rows else None
        )
        self.run()
        self.seconds.clear()

    def run(self) -> None:
        """One update call, cached samples renewed first as the training loop does."""
        self.calls += 1
        key = jax.random.fold_in(jax.random.key(2), self.calls)
        jax.block_until_ready(self.state)
        began = time.perf_counter()
        if self.refresh is not None:
            np.asarray(self.algorithm.propose(self.state, self.refresh, key))
        self.state, metrics = self.program(self.state, self.batches, key)
        jax.block_until_ready((self.state, metrics))
        self.seconds.append(time.perf_counter() - began)


def measure_peak(repeats: int = 15) -> dict[str, float]:
    """Best GFLOP/s of a matrix product per precision on this machine, over the shapes of the base
    network."""
    peaks = {}
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        product = jax.jit(
            lambda x, y: jax.lax.dot_general(
                x, y, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
            )
        )
        best = 0.0
        for m, k, n in PEAK_SHAPES:
            x = jax.random.normal(jax.random.key(0), (m, k)).astype(dtype)
            y = jax.random.normal(jax.random.key(1), (k, n)).astype(dtype)
            product(x, y).block_until_ready()
            for _ in range(repeats):
                began = time.perf_counter()
                product(x, y).block_until_ready()
                best = max(best, 2e-9 * m * k * n / (time.perf_counter() - began))
        peaks[name] = best
    return peaks


def measure_updates(presets: list[str], kinds: list[str], repeats: int) -> list[dict[str, Any]]:
    """Every variant's update call, in turn within each preset and base policy."""
    rows = []
    for preset in presets:
        for kind in kinds:
            names = [*MODES, *(["rlpd"] if kind == kinds[0] else [])]
            variants = [Variant(preset, kind, mode) for mode in names]
            peaks = [measure_peak()]
            for _ in range(repeats if preset == "paper" else MORE * repeats):
                for variant in variants:
                    variant.run()
            peaks.append(measure_peak())
            peak = {name: max(p[name] for p in peaks) for name in peaks[0]}
            exact = statistics.median(variants[0].seconds)
            for variant in variants:
                seconds, total = statistics.median(variant.seconds), sum(variant.flops.values())
                precision = variant.config.precision
                rows.append(
                    {
                        "preset": preset,
                        "base": kind,
                        "mode": variant.name[2],
                        "update_s": seconds,
                        "all_s": variant.seconds,
                        "env_steps_per_s": variant.config.train.update_every / seconds,
                        "times_exact_float32": exact / seconds,
                        "compile_s": variant.compile_s,
                        "memory_mb": variant.memory_mb,
                        "gflop": total / 1e9,
                        "gflop_by_part": {k: v / 1e9 for k, v in variant.flops.items()},
                        "gflop_per_s": total / 1e9 / seconds,
                        "peak_gflop_per_s": peak[precision],
                        "share_of_peak": total / 1e9 / seconds / peak[precision],
                        "floor_s": total / 1e9 / peak[precision],
                    }
                )
                print(row_text(rows[-1]), flush=True)
            del variants
    return rows


def row_text(row: dict[str, Any]) -> str:
    """One line of the table."""
    memory = "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
    return (
        f"{row['preset']:6s} {row['base']:10s} {row['mode']:18s} {1e3 * row['update_s']:9.1f} ms "
        f"{row['env_steps_per_s']:8.2f} steps/s {row['times_exact_float32']:6.2f}x "
        f" {100 * row['share_of_peak']:4.0f}% of peak  compile {row['compile_s']:5.1f} s "
        f" {memory:>5s} MB"
    )


def measure_acting(repeats: int) -> list[dict[str, Any]]:
    """Latency of one acting call, from a NumPy observation to a NumPy action; run pinned to one
    core."""
    rows = []
    for preset, kind, mode in [
        ("paper", "diffusion", "float32"),
        ("paper", "flow", "float32"),
        ("paper", "flow", "bfloat16"),
        ("tiny", "flow", "float32"),
    ]:
        config, spec = configuration(preset, kind, mode), SPECS[preset]
        base = make_base(config.base, spec, config.precision)
        algorithm = make_algorithm(config.algorithm, config.algo, spec, base, config.precision)
        acting = algorithm.acting(jax.jit(algorithm.init)(jax.random.key(0)))
        for num in (1, 16):
            observation = {"state": np.zeros((num, *spec.observation[0][1]), np.float32)}
            times = []
            for i in range(repeats + 1):
                began = time.perf_counter()
                jax.device_get(algorithm.act(acting, observation, jax.random.key(i)).action)
                times.append(1e3 * (time.perf_counter() - began))
            p50, p99 = (float(np.quantile(times[1:], q)) for q in (0.5, 0.99))
            rows.append(
                {
                    "preset": preset,
                    "base": kind,
                    "mode": mode,
                    "observations": num,
                    "p50_ms": p50,
                    "p99_ms": p99,
                }
            )
    return rows


def measure_loop(mode: str, steps: int) -> dict[str, Any]:
    """Training on Meta-World with the tiny preset, simulator included, and where the time goes;
    pinned to one core."""
    from exporl.run.progress import Silent
    from exporl.run.trainer import Trainer

    spent = dict.fromkeys(LOOP_PARTS, 0.0)

    def timed(part: str, function: Any, wait: bool = False) -> Any:
        def wrapper(*args: Any, **options: Any) -> Any:
            began, inner = time.perf_counter(), sum(spent.values())
            result = function(*args, **options)
            if wait:
                jax.block_until_ready(result)
            spent[part] += time.perf_counter() - began - (sum(spent.values()) - inner)
            return result

        return wrapper

    options = {
        "train.online_steps": steps + 300,
        "train.offline_steps": 200,
        "train.critic_warmup_steps": 0,
        "train.update_after": 100,
        "eval.every": 10**9,
        "eval.episodes": 1,
        "eval.num_envs": 1,
        "log.every": 100,
        "log.save_every": 10**9,
    } | MODES[mode]
    config = override(preset_config("expo", "tiny", "metaworld/peg-insert-side-v3"), options)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Path(folder), Silent(), False)
        trainer.pretrain()
        trainer.last_eval = 0
        for when in (300, steps + 300):  # compiled and warm after the first 300 steps
            trainer.config = override(config, {"train.online_steps": when})
            if when > 300:
                trainer.actors._decide = timed("act", trainer.actors._decide, wait=True)
                env: Any = trainer.actors.envs[0]
                env.step, env.reset = timed("env", env.step), timed("env", env.reset)
                trainer.mixture.sample = timed("sample", trainer.mixture.sample)
                trainer.in_step.draw = timed("transfer", trainer.in_step.draw, wait=True)
                trainer.learner.update = timed("update", trainer.learner.update, wait=True)
                trainer.metrics.flush = timed("log", trainer.metrics.flush)
                trainer.learner.propose = timed("update", trainer.learner.propose)
            for name in spent:
                spent[name] = 0.0
            trainer.last_eval = when  # no evaluation inside the measurement
            began = time.perf_counter()
            trainer.online()
            wall = time.perf_counter() - began
        trainer.close()
    spent["other"] = wall - sum(spent.values())
    overhead = sum(spent[part] for part in ("sample", "transfer", "log", "other")) / wall
    return {
        "mode": mode,
        "task": config.task,
        "preset": "tiny",
        "steps": steps,
        "env_steps_per_s": steps / wall,
        "share": {part: spent[part] / wall for part in LOOP_PARTS},
        "host_overhead": overhead,
    }


def median_loop(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of median speed, with the speeds of all."""
    speeds = [run["env_steps_per_s"] for run in runs]
    middle = sorted(runs, key=lambda run: run["env_steps_per_s"])[len(runs) // 2]
    return middle | {"all_env_steps_per_s": speeds}


def on_one_core(*args: str) -> Any:
    """Runs a part of this script in a process of its own, pinned to one core where the system
    allows it."""
    code = (
        "import os, sys\nif hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, "
        "{max(os.sched_getaffinity(0))})\nsys.path.insert(0,"
        f" {str(Path(__file__).parent)!r})\nimport throughput\nthroughput.child({list(args)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(args: list[str]) -> None:
    """What a process of its own measures; prints JSON."""
    result = (
        measure_acting(int(args[1])) if args[0] == "act" else measure_loop(args[1], int(args[2]))
    )
    print(json.dumps(result))


def main() -> None:
    """Measures, prints a table, writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--presets", nargs="+", default=["paper", "small", "tiny"], choices=list(SPECS)
    )
    parser.add_argument(
        "--bases", nargs="+", default=["diffusion", "flow"], choices=["diffusion", "flow"]
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=7,
        help="runs of every variant at the paper preset (default 7)",
    )
    parser.add_argument(
        "--parts", nargs="+", default=["update", "act", "loop"], choices=["update", "act", "loop"]
    )
    parser.add_argument("--loop-steps", type=int, default=1_500)
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="runs of acting, and of every mode's loop in turn (default 3)",
    )
    parser.add_argument("--output", help="name of the result file (default: throughput-<backend>)")
    options = parser.parse_args()
    result: dict[str, Any] = {"command": "benchmarks/throughput.py " + " ".join(sys.argv[1:])}
    result |= {
        "backend": jax.default_backend(),
        "load_before": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    if "act" in options.parts:
        rounds = [on_one_core("act", "300") for _ in range(options.rounds)]

        def medians(rows):
            return {k: statistics.median(row[k] for row in rows) for k in ("p50_ms", "p99_ms")}

        result["acting"] = [rows[0] | medians(rows) for rows in zip(*rounds, strict=True)]
        for row in result["acting"]:
            print(
                f"act {row['preset']} {row['base']} {row['mode']} {row['observations']:2d} "
                f"observations: p50 {row['p50_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms"
            )
    if "loop" in options.parts:
        rounds = [
            {mode: on_one_core("loop", mode, str(options.loop_steps)) for mode in LOOP_MODES}
            for _ in range(options.rounds)
        ]
        result["loop"] = [median_loop([each[mode] for each in rounds]) for mode in LOOP_MODES]
        for row in result["loop"]:
            share = ", ".join(f"{part} {100 * value:.0f}%" for part, value in row["share"].items())
            print(
                f"loop {row['mode']}: {row['env_steps_per_s']:.1f} env steps/s on one core; "
                f"{share}; host overhead {100 * row['host_overhead']:.1f}%"
            )
    if "update" in options.parts:
        result["updates"] = measure_updates(options.presets, options.bases, options.repeats)
    result["load_after"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    name = options.output or f"throughput-{jax.default_backend()}"
    before = RESULTS / f"{name}.json"
    if before.is_file():  # parts that were not asked for stay as they were measured
        old = json.loads(before.read_text())
        kept = {
            part: old[part]
            for part in ("acting", "loop", "updates")
            if part in old and part not in result
        }
        if kept:
            result |= kept | {
                "earlier": {name: old[name] for name in ("command", "machine", "load_before")}
            }
    print(write_result(name, result))


if __name__ == "__main__":
    main()
