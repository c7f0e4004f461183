"""Which settings serve a policy from outside best on a changed robot? Short runs of one seed.

    .venv/bin/python benchmarks/own_policy_settings.py --policies FOLDER

HalfCheetah with actuators 0.6 times as strong, the policy and its prior data as in own_policy.py;
5,000 environment steps, or `--steps`; three evaluation episodes. EXPO and RLPD: the same trials of
what both have, each with what is its own. One after the other; finished runs are not repeated, and
go on where more steps are asked for. Writes benchmarks/results/own_policy_settings.json.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import own_policy
from common import write_result

from exporl.files.atomic import read_lines
from exporl.files.run_files import CONFIG, EVAL
from exporl.run.config import override
from exporl.run.loop import train
from exporl.speed.tuning import keep_compiled_programs

ROBOT = "cheetah_gears"
FOLDER = Path("runs/own_policy_settings")
SHORT: dict[str, Any] = {
    "eval.every": 2_500,
    "eval.episodes": 3,
    "eval.base": False,
    "log.save_every": 2_500,
}
QUICK: dict[str, Any] = {
    "train.utd_ratio": 4,
    "train.discount": 0.98,
    "data.prior_ratio": 0.25,
    "algo.tau": 0.02,
    "algo.hidden": (128, 128),
    "algo.num_qs": 2,
    "algo.critic_learning_rate": 1e-3,
}
"""Values arrive quickly: with a target that follows at tau per update they need about
1 / (tau (1 - discount)) updates, 2,500 here and 20,000 with 0.005 and 0.99."""
EXPO: dict[str, Any] = QUICK | {
    "algo.initial_temperature": 0.1,
    "algo.target_entropy": "attainable",
    "algo.num_base_samples": 1,
    "algo.num_edit_samples": 1,
    "algo.edit_learning_rate": 1e-3,
    "algo.edit_scale": 1.0,
}
RLPD: dict[str, Any] = QUICK | {
    "algo.initial_temperature": 0.1,
    "algo.target_entropy": "released",
    "algo.policy_learning_rate": 1e-3,
}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "first": ("expo", own_policy.FIRST),
    "quick": ("expo", EXPO),
    "quick, edits of 2": ("expo", EXPO | {"algo.edit_scale": 2.0}),
    "quick, calm": ("expo", EXPO | own_policy.CALM),
    "quick, calm, rlpd": ("rlpd", RLPD | own_policy.CALM),
    "quick, calm, 8 updates": ("expo", EXPO | own_policy.CALM | {"train.utd_ratio": 8}),
    "quick, rlpd": ("rlpd", RLPD),
    "quick, calm, 8 updates, rlpd": ("rlpd", RLPD | own_policy.CALM | {"train.utd_ratio": 8}),
    "quick, calm, edits of 2": ("expo", EXPO | own_policy.CALM | {"algo.edit_scale": 2.0}),
}
"""Setting -> the row of own_policy.py that it changes, and how."""


def folder(setting: str) -> Path:
    """Where its run lives."""
    return FOLDER / setting.replace(", ", "-").replace(" ", "-")


def trained(setting: str, steps: int, policies: Path) -> None:
    """Makes the run of a setting, or goes on with it."""
    row, changed = SETTINGS[setting]
    run, done = folder(setting), evaluations(setting)
    if done and done[-1]["env_steps"] >= steps:
        return
    own_policy.record_prior(ROBOT, policies)
    config = own_policy.configured(ROBOT, row, 0, steps, policies)
    train(override(config, SHORT | changed), run, resume=(run / CONFIG).is_file())


def evaluations(setting: str) -> list[dict[str, Any]]:
    """Those of its run so far."""
    path = folder(setting) / EVAL
    return read_lines(path) if path.is_file() else []


def measured(setting: str) -> dict[str, Any]:
    """What its run has reached."""
    lines = evaluations(setting)
    return {
        "row": SETTINGS[setting][0],
        "setting": setting,
        "env_steps": [line["env_steps"] for line in lines],
        "return": [line["policy"]["return_mean"] for line in lines],
        "train_s": lines[-1]["time/train_s"],
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Mean returns at every evaluation that some run has."""
    steps = sorted({step for result in results for step in result["env_steps"] if step})
    heads = ("algorithm", "setting", *(f"after {step:,}" for step in steps))
    text = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for result in results:
        reached = dict(zip(result["env_steps"], result["return"], strict=True))
        cells = [f"{reached[step]:,.0f}" if step in reached else "-" for step in steps]
        text.append(f"| {' | '.join((result['row'], result['setting'], *cells))} |")
    return "\n".join(text)


def main() -> None:
    """Every setting, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=5_000, help="environment steps per run")
    parser.add_argument("--policies", type=Path, default=Path("../shared/policies"))
    parser.add_argument(
        "--collect", action="store_true", help="train nothing, report what there is"
    )
    options = parser.parse_args()
    keep_compiled_programs()
    for setting in [] if options.collect else options.settings:
        trained(setting, options.steps, options.policies)
        print(measured(setting), flush=True)
    results = [measured(setting) for setting in SETTINGS if evaluations(setting)]
    changes = {name: {"row": row, **own} for name, (row, own) in SETTINGS.items()}
    print(table(results))
    print(write_result("own_policy_settings", {"settings": changes, "results": results}))


if __name__ == "__main__":
    main()
