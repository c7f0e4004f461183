"""A diffusion policy trained in PyTorch against the library's own, on the same demonstrations: do
they play the same?

    .venv/bin/python benchmarks/torch_base.py --data FOLDER          # needs torch and metaworld

Meta-World `push-v3`, 50 recorded episodes of its scripted expert with noise
(`FOLDER/push-v3-mixed.npz`). `jax`: the built-in diffusion. `torch`: the same network, schedule,
loss and optimiser in PyTorch (torch_diffusion.py), trained through the imitation of a base policy
from outside, on the same minibatches in the same order. `example`: the small flow of
examples/torch_policy.py, as it is. Weights, noise of the loss and draws while acting are
each framework's own. Then each plays alone, from the same starts for all. What has been measured
is not measured again. Writes benchmarks/results/torch_base.json.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from common import RESULTS, write_result

from exporl.data.episodes import Episode, Normalizer
from exporl.data.formats import load_episodes
from exporl.envs.registry import make_task
from exporl.external import GIVEN
from exporl.run.config import RunConfig, override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.run.session import load_run
from exporl.spec import Spec
from exporl.speed.tuning import keep_compiled_programs
from exporl.stats.over_seeds import over_seeds, success_over_seeds

EXAMPLES = Path(__file__).parent.parent / "examples"
FOLDER = Path("runs/torch_base")
TASK, FILE = "metaworld/push-v3", "push-v3-mixed.npz"
ROWS = {
    "jax": "the library's diffusion",
    "torch": "the same in PyTorch",
    "example": "flow of examples/torch_policy.py",
}
"""Row -> what a line of the table says."""
EPISODES, START = 200, 2_000_003
"""Of the evaluation, and the seed of its starts."""
OPTIONS: dict[str, Any] = {
    "base.kind": "diffusion",
    "base.width": 128,
    "base.num_blocks": 2,
    "base.num_steps": 10,
    "base.learning_rate": 1e-3,
    "base.decay_steps": 0,
    "chunk_length": 4,
    "algo.acting_base": "live",
    "train.batch_size": 256,
    "train.offline_steps": 5_000,
    "train.online_steps": 0,
    "eval.episodes": 1,
}
"""Of all rows; with `acting_base` live what acts is no average of weights, in either framework."""


def configured(row: str, seed: int, data: Path) -> RunConfig[Any]:
    """What one run is."""
    options = OPTIONS | {"data.path": str(data / FILE)}
    options |= {} if row == "jax" else {"base.learns": True, "base.policy": GIVEN}
    config = override(preset_config("best_of_n", "small", TASK), options)
    return dataclasses.replace(config, seed=seed)


def policy(row: str, seed: int, spec: Spec, config: RunConfig[Any], data: Path) -> Any:
    """The module of a row, with new weights; None for the library's own."""
    if row == "jax":
        return None
    import torch

    if row == "example":
        sys.path.insert(0, str(EXAMPLES))
        import torch_policy

        return torch_policy.load(spec)
    from torch_diffusion import Diffusion

    torch.manual_seed(seed)
    return Diffusion(spec, config.base, Normalizer.fit(demonstrations(data)))


def demonstrations(data: Path) -> list[Episode]:
    """What is imitated."""
    task = make_task(TASK)
    return load_episodes(data / FILE, spec=task.spec, adapt=task.adapt, paid=task.reward_range)


def measured(row: str, seed: int, data: Path) -> dict[str, Any]:
    """Success of one run, trained unless it is there."""
    run, config, shapes = FOLDER / f"{row}-s{seed}", configured(row, seed, data), make_task(TASK)
    spec = Spec(shapes.spec.observation, shapes.spec.action_dim, config.chunk_length)
    if not (run / "summary.json").is_file():
        train(config, run, base=policy(row, seed, spec, config, data))
    session = load_run(run, base=policy(row, seed, spec, config, data))
    result = session.evaluate(base=True, episodes=EPISODES, seed=START)
    summary = json.loads((run / "summary.json").read_text())
    return {
        "row": row,
        "seed": seed,
        "success_rate": result.success_rate,
        "success": [int(each) for each in result.success],
        "train_s": summary["train_s"],
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Success of every row, and its difference to the library's own on the same starts."""
    text = ["| base policy | success [95%] | each seed | - the library's [95%] | training, s |"]
    text.append("|---|---|---|---|---|")
    own = {each["seed"]: each["success"] for each in results if each["row"] == "jax"}
    for row, said in ROWS.items():
        group = sorted((r for r in results if r["row"] == row), key=lambda each: each["seed"])
        if not group:
            continue
        rates = ", ".join(f"{100 * each['success_rate']:.0f}%" for each in group)
        pairs = [(r["success"], own[r["seed"]]) for r in group if r["seed"] in own]
        apart = over_seeds([[float(a - b) for a, b in zip(*pair, strict=True)] for pair in pairs])
        seconds = sum(each["train_s"] for each in group) / len(group)
        mean, low, high = success_over_seeds([list(map(bool, each["success"])) for each in group])
        against = "-" if row == "jax" else "{:+.0f} [{:+.0f}, {:+.0f}]".format(
            *(100 * end for end in apart)
        )  # fmt: skip
        text.append(
            f"| {said} | {100 * mean:.0f}% [{100 * low:.0f}, {100 * high:.0f}] | {rates} | "
            f"{against} | {seconds:.0f} |"
        )
    return "\n".join(text)


def measured_before() -> list[dict[str, Any]]:
    """What has been measured."""
    path = RESULTS / "torch_base.json"
    return json.loads(path.read_text())["results"] if path.is_file() else []


def main() -> None:
    """Measures what is missing, and writes the result after every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/metaworld"))
    options = parser.parse_args()
    keep_compiled_programs()
    for seed, row in product(options.seeds, options.rows):
        before = measured_before()
        if any((each["row"], each["seed"]) == (row, seed) for each in before):
            continue
        found = measured(row, seed, options.data)
        print(row, seed, found["success_rate"], f"{found['train_s']:.0f} s", flush=True)
        results = sorted([*before, found], key=lambda each: (each["row"], each["seed"]))
        record = {"command": "benchmarks/torch_base.py", "task": TASK, "demonstrations": FILE}
        record |= {"options": OPTIONS, "episodes": EPISODES, "results": results}
        write_result("torch_base", record)
    if measured_before():
        print(table(measured_before()))


if __name__ == "__main__":
    main()
