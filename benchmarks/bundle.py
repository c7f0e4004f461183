"""Bundles of trained runs: their size, the latency of one decision on one core, and how far the
actions without JAX and exporl lie from those of the run.

    python benchmarks/stable.py --rows edits-act --tasks assembly --seeds 1
    python benchmarks/bundle.py runs/stable/assembly-edits-act-s1

Observations are drawn from the run's own demonstrations. The ONNX file is run by the lines of the
model card in a process that can import neither JAX nor exporl, from the same draws. Latencies are
of whole calls, raw observation in and actions in the environment's units out. Writes
benchmarks/results/bundle.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import write_result

ALONE = """
import sys, time

for name in ("jax", "jaxlib", "flax", "exporl", "safetensors"):
    sys.modules[name] = None  # importing it fails
started = time.perf_counter()
{lines}
loaded = time.perf_counter() - started
data = dict(np.load(sys.argv[1]))
noise = [name for name in data if name.split(".")[0] in draws]
given = [
    ({{n: data[n][i] for n in data if n not in noise}}, {{n: data[n][i] for n in noise}})
    for i in range(len(next(iter(data.values()))))
]
act(*given[0])
played, seconds = [], []
for each in given:
    began = time.perf_counter()
    played.append(act(*each))
    seconds.append(time.perf_counter() - began)
np.savez(sys.argv[2], played=played, seconds=seconds, loaded=loaded)
"""


def main() -> None:
    """Measures every run that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--observations", type=int, default=1000)
    options = parser.parse_args()
    cores = getattr(os, "sched_getaffinity", None)
    if cores is not None:
        os.sched_setaffinity(0, {min(cores(0))})
    found = {}
    for run in options.runs:
        for part in ("policy", "base"):
            found[f"{run.name}, {part}"] = measured(run, part, options.observations)
            print(json.dumps(found[f"{run.name}, {part}"], indent=1))
    result = {"observations": options.observations, "runs": found}
    print(write_result("bundle", result))


def measured(run: Path, part: str, num: int) -> dict:
    """Sizes, latencies and differences of one part of a run."""
    from exporl import load_policy
    from exporl.bundle.deploy import deploy
    from exporl.bundle.export import export_bundle

    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export_bundle(run, bundle, part=part)
        sizes = {path.name: path.stat().st_size for path in sorted(bundle.iterdir())}
        policy, mine = load_policy(run), load_policy(bundle)
        seen = demonstrated(run, num, [name for name, _, _ in policy.interface.spec.observation])
        deployed = deploy(mine)
        draws = [deployed.noise(seed) for seed in range(num)]
        alone = without_jax(bundle, seen, draws)
        observations = [{name: values[i] for name, values in seen.items()} for i in range(num)]
        mode = "base" if part == "base" else None
        theirs = [policy.act(each, seed, mode) for seed, each in enumerate(observations)]
        of_bundle, seconds = [], []
        for seed, each in enumerate(observations):
            began = time.perf_counter()
            of_bundle.append(mine.act(each, seed))
            seconds.append(time.perf_counter() - began)
    apart = np.abs(alone["played"] - np.stack(theirs)).reshape(num, -1).max(axis=1)
    return {
        "mode": policy.mode if mode is None else mode,
        "bytes": sizes,
        "total_bytes": sum(sizes.values()),
        "bundle_with_exporl_max_difference": float(np.abs(np.subtract(of_bundle, theirs)).max()),
        "without_jax_max_difference": float(apart.max()),
        "without_jax_above_1e-5": int((apart > 1e-5).sum()),
        "latency_ms": {
            "with exporl": percentiles(np.array(seconds)),
            "without": percentiles(alone["seconds"]),
        },
        "load_s_without": round(float(alone["loaded"]), 3),
    }


def demonstrated(run: Path, num: int, names: list[str]) -> dict[str, np.ndarray]:
    """Observations of the run's demonstrations, evenly spread."""
    from exporl.data.formats import load_episodes

    episodes = load_episodes(run / "demonstrations.npz")
    every = {n: np.concatenate([e.observations[n] for e in episodes]) for n in names}
    chosen = np.linspace(0, len(every[names[0]]) - 1, num).astype(int)
    return {name: values[chosen] for name, values in every.items()}


def without_jax(bundle: Path, seen: dict, draws: list[dict]) -> dict[str, np.ndarray]:
    """What the lines of the model card make of observations and draws."""
    lines = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)[1]
    lines = lines.replace(
        "InferenceSession(", "InferenceSession(sess_options=ONE_CORE, path_or_bytes="
    )
    lines = lines.replace(
        "import onnxruntime\n",
        "import onnxruntime\n\nONE_CORE = onnxruntime.SessionOptions()\n"
        "ONE_CORE.intra_op_num_threads = ONE_CORE.inter_op_num_threads = 1\n",
    )
    stacked = {name: np.stack([each[name] for each in draws]) for name in draws[0]}
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(inputs, **seen, **stacked)
        command = [sys.executable, "-I", "-c", ALONE.format(lines=lines)]
        subprocess.run([*command, str(inputs), str(outputs)], cwd=bundle, check=True)
        return dict(np.load(outputs))


def percentiles(seconds: np.ndarray) -> dict[str, float]:
    """Milliseconds."""
    return {
        name: round(1000 * float(np.quantile(seconds, q)), 3)
        for name, q in (("p10", 0.1), ("p50", 0.5), ("p99", 0.99))
    }


if __name__ == "__main__":
    main()
