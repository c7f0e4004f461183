"""Update calls on several devices: seconds, what one device computes and what it needs.

    .venv/bin/python benchmarks/devices.py                  # the processor looks like four devices
    .venv/bin/python benchmarks/devices.py --preset paper --devices 1 2 4 8  # on accelerators

Every number of devices makes the same update calls on the same minibatches from host memory, in
turn, so that they share the machine's noise; medians are reported. Devices of a processor share its
cores: they show what splitting costs, not what it brings. Operations and memory are what the
compiler counts for one device. Writes benchmarks/results/devices-<backend>.json.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from common import write_result
from throughput import SPECS, configuration, random_batches

from exporl.algos import make_algorithm
from exporl.policies import make_base
from exporl.run.learner import Learner
from exporl.speed.devices import DataParallel, spread


def learner_on(num: int, preset: str) -> tuple[Learner, Any]:
    """A learner of the preset on so many devices, and its compiled update."""
    spec, config = SPECS[preset], configuration(preset, "diffusion", "float32")
    base = make_base(config.base, spec, config.precision)
    algorithm = make_algorithm("expo", config.algo, spec, base, config.precision)
    parallel = DataParallel.over(num)
    algorithm = spread(algorithm, parallel)
    learner = Learner(algorithm, 0, None, parallel)
    batches = random_batches(spec, config, 0)
    lowered = algorithm.update.lower(learner.state, batches, jax.random.key(0), phase="online")
    return learner, lowered.compile()


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Measures, prints, writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=SPECS, default="tiny")
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    # heeded where the devices are the processor's
    forced = f"--xla_force_host_platform_device_count={max(options.devices)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip()
    config = configuration(options.preset, "diffusion", "float32")
    batches = jax.device_get(random_batches(SPECS[options.preset], config, 0))
    made = {num: learner_on(num, options.preset) for num in options.devices}

    def update(learner: Learner) -> None:
        jax.block_until_ready(learner.update(learner.handed(batches, "online"), "online"))

    taken: dict[int, list[float]] = {num: [] for num in made}
    for repeat in range(options.repeats + 1):
        for num, (learner, _) in made.items():
            seconds = timed(lambda learner=learner: update(learner))
            if repeat:  # the first call fetches the program
                taken[num].append(seconds)
    rows = []
    for num, (_, program) in made.items():
        median = statistics.median(taken[num])
        row = {
            "devices": num,
            "rows_per_device": config.train.batch_size // num,
            "ms": 1000 * median,
            "updates_per_s": 1 / median,
            "flops_per_device": program.cost_analysis()["flops"],
            "temporary_bytes_per_device": program.memory_analysis().temp_size_in_bytes,
            "all_ms": [1000 * seconds for seconds in taken[num]],
        }
        rows.append(row)
        print({name: value for name, value in row.items() if name != "all_ms"}, flush=True)
    result = {
        "command": "benchmarks/devices.py " + " ".join(sys.argv[1:]),
        "preset": options.preset,
        "kind": jax.devices()[0].device_kind,
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "results": rows,
    }
    print(write_result(f"devices-{jax.default_backend()}", result))


if __name__ == "__main__":
    main()
