"""Is this version as fast as another one? Both in turn, in one go, on one machine.

    git worktree add ../before <commit>
    .venv/bin/python benchmarks/against.py ../before --rounds 4

Each round runs benchmarks/throughput.py of the other checkout and of this one, with the packages
installed here, at one preset: updates in every mode, and the whole training loop on one core.
Reported are the ratios this version / the other of every round, and their median: above 1 is
faster. Where the rounds differ by more than the ratio, the machine is too noisy to say.
Writes benchmarks/results/against.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from common import write_result

HERE = Path(__file__).parent.parent
RAW = "against-raw"
"""Name of the result that a checkout writes, and that is removed again."""


def speeds(checkout: Path, arguments: list[str]) -> dict[str, float]:
    """What -> how often a second, by one process of a checkout's own benchmark."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "benchmarks/throughput.py", *arguments, "--output", RAW]
    subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    path = checkout / "benchmarks" / "results" / f"{RAW}.json"
    result = json.loads(path.read_text())
    path.unlink()
    found = {
        f"update {row['base']} {row['mode']}": 1 / row["update_s"]
        for row in result.get("updates", ())
    }
    found |= {f"loop {row['mode']}": row["env_steps_per_s"] for row in result.get("loop", ())}
    return found


def main() -> None:
    """All rounds, then the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="a checkout of the other version")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--loop-steps", type=int, default=1_000)
    options = parser.parse_args()
    steps = str(options.loop_steps)
    arguments = ["--presets", options.preset, "--bases", "flow", "--parts", "update", "loop"]
    arguments += ["--rounds", "1", "--loop-steps", steps]
    sides = {"other": options.other.resolve(), "this": HERE.resolve()}
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(options.rounds):
        for side in ("other", "this") if number % 2 == 0 else ("this", "other"):
            for what, speed in speeds(sides[side], arguments).items():
                measured[what][side].append(speed)
    rows: list[dict[str, Any]] = []
    for what, by_side in measured.items():
        if len(by_side) < 2:
            continue
        ratios = [new / old for new, old in zip(by_side["this"], by_side["other"], strict=True)]
        rows.append({"what": what, "ratio": statistics.median(ratios), **by_side})
        print(f"{what}: {rows[-1]['ratio']:.3f} ({', '.join(f'{r:.3f}' for r in ratios)})")
    commit = ["git", "-C", str(options.other), "rev-parse", "--short", "HEAD"]
    other = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
    command = f"benchmarks/against.py OTHER --rounds {options.rounds} --preset {options.preset}"
    print(write_result("against", {"command": command, "other": other, "results": rows}))


if __name__ == "__main__":
    main()
