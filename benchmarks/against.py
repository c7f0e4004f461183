"""Is this version as fast as another one? Both at the same time, sharing one core.

    git worktree add ../before <commit>
    .venv/bin/python benchmarks/against.py ../before --rounds 5

Each round runs benchmarks/throughput.py of the other checkout and of this one beside each other,
with the packages installed here, at one preset: updates in every mode, and the whole training loop.
The two take turns on the core many times a second, and both clocks count the CPU seconds of their
own process: whatever else slows the machine slows both alike. Where one waits for something other
than the core, that does not count. Reported are the ratios this version / the other of every round,
and their median: above 1 is faster. What does not depend on the machine's mood stands beside them:
the instructions, operations and bytes of every compiled update. Writes
benchmarks/results/against.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import write_result

HERE = Path(__file__).parent.parent
RAW = "against-raw"
"""Name of the result that a checkout writes, and that is removed again."""
CLOCK = "import time\n\ntime.perf_counter = time.process_time\n"
"""What Python runs at the start of every process here: benchmarks then count CPU seconds."""


PROGRAMS = """
import json, re, sys
sys.path.insert(0, "benchmarks")
import throughput
found = {}
for mode in [*throughput.MODES, "rlpd"]:
    program = throughput.Variant(sys.argv[1], "flow", mode).program
    cost = program.cost_analysis()
    found[mode] = {
        "instructions": len(re.findall(r" = ", program.as_text())),
        "flops": cost["flops"],
        "bytes": cost["bytes accessed"],
    }
print(json.dumps(found))
"""
"""What a checkout runs to describe its compiled updates."""


def programs(checkout: Path, preset: str) -> dict[str, dict[str, float]]:
    """Mode -> what its compiled update consists of."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", PROGRAMS, preset]
    done = subprocess.run(
        command, cwd=checkout, env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def start(checkout: Path, arguments: list[str], clock: Path) -> subprocess.Popen[bytes]:
    """A checkout's own benchmark, on the core that this process may use."""
    environment = os.environ | {"PYTHONPATH": f"{clock}{os.pathsep}{checkout / 'src'}"}
    command = [sys.executable, "benchmarks/throughput.py", *arguments, "--output", RAW]
    return subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)


def speeds(checkout: Path) -> dict[str, float]:
    """What -> how often per CPU second, from the result that a checkout has just written."""
    path = checkout / "benchmarks" / "results" / f"{RAW}.json"
    result = json.loads(path.read_text())
    path.unlink()
    found = {
        f"update {row['base']} {row['mode']}": 1 / row["update_s"]
        for row in result.get("updates", ())
    }
    found |= {f"loop {row['mode']}": row["env_steps_per_s"] for row in result.get("loop", ())}
    return found


def both(checkouts: dict[str, Path], arguments: list[str]) -> dict[str, dict[str, float]]:
    """Side -> its speeds, by one round of both beside each other."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(CLOCK)
        running = {
            side: start(checkout, arguments, Path(folder)) for side, checkout in checkouts.items()
        }
        for side, process in running.items():
            if process.wait():
                raise SystemExit(f"benchmarks/throughput.py of {checkouts[side]} failed, see above")
    return {side: speeds(checkout) for side, checkout in checkouts.items()}


def main() -> None:
    """All rounds, then the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="a checkout of the other version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0, help="the core that both share")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument(
        "--parts", nargs="+", default=["update", "loop"], choices=["update", "loop"]
    )
    parser.add_argument("--loop-steps", type=int, default=1_000)
    options = parser.parse_args()
    steps = str(options.loop_steps)
    arguments = ["--presets", options.preset, "--bases", "flow", "--parts", *options.parts]
    arguments += ["--rounds", "1", "--loop-steps", steps]
    sides = {"other": options.other.resolve(), "this": HERE.resolve()}
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    os.sched_setaffinity(0, {options.core})
    for _ in range(options.rounds):
        for side, found in both(sides, arguments).items():
            for what, speed in found.items():
                measured[what][side].append(speed)
    rows: list[dict[str, Any]] = []
    for what, by_side in measured.items():
        if len(by_side) < 2:
            continue
        ratios = [new / old for new, old in zip(by_side["this"], by_side["other"], strict=True)]
        rows.append({"what": what, "ratio": statistics.median(ratios), **by_side})
        print(f"{what}: {rows[-1]['ratio']:.3f} ({', '.join(f'{r:.3f}' for r in ratios)})")
    compiled = {side: programs(checkout, options.preset) for side, checkout in sides.items()}
    for mode in compiled["this"]:
        this, other = compiled["this"][mode], compiled["other"][mode]
        print(f"program {mode}: {'the same' if this == other else f'{other} -> {this}'}")
    commit = ["git", "-C", str(options.other), "rev-parse", "--short", "HEAD"]
    other = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
    command = f"benchmarks/against.py OTHER --rounds {options.rounds} --preset {options.preset}"
    command += f" --parts {' '.join(options.parts)} --loop-steps {steps}"
    result = {"command": command, "other": other, "results": rows, "programs": compiled}
    print(write_result("against", result))


if __name__ == "__main__":
    main()
