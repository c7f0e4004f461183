"""Suite files, and runs that end at once: files as a run leaves them, without JAX."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

SUITE = """
folder = "{folder}"
seeds = 2
preset = "tiny"
score = 0.5
options.train.online_steps = 20
options.eval.every = 10

[algorithms.expo]
[algorithms.rlpd]

[tasks."probe/delay"]
"""
CHILD = """
import sys
sys.path.insert(0, {tests!r})
from helpers.suites import {name}
{name}()
"""
"""A child process that writes what `child` says, instead of training."""


def suite_file(folder: Path, text: str = SUITE, **changes: str) -> Path:
    """A suite file; `changes` replaces text in it, old by new under any name."""
    path = folder / "suite.toml"
    for change in changes.values():
        old, new = change.split(" -> ")
        assert old in text
        text = text.replace(old, new)
    path.write_text(text.replace("{folder}", str(folder / "runs")))
    return path


def child_code(name: str = "child") -> str:
    return CHILD.format(tests=str(Path(__file__).parent.parent), name=name)


def evaluation(step: int, rate: float, base: float = 0.25, episodes: int = 20) -> dict[str, Any]:
    """A line of eval.jsonl."""

    def who(rate: float) -> dict[str, Any]:
        solved = round(rate * episodes)
        success = [i < solved for i in range(episodes)]
        returns = [-1.0 + each for each in success]
        return {
            "success_rate": solved / episodes,
            "return_mean": sum(returns) / episodes,
            "success": success,
            "returns": returns,
        }

    times = {"time/train_s": step / 10, "time/eval_s": 1.0}
    return {"env_steps": step, "policy": who(rate), "base": who(base), **times}


def write_run(run_dir: Path, config: dict[str, Any], curve: dict[int, float]) -> dict[str, Any]:
    """A finished run with this success rate at these steps; its summary."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(json.dumps(config))
    lines = [evaluation(step, rate) for step, rate in curve.items()]
    (run_dir / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary: dict[str, Any] = {name: config[name] for name in ("algorithm", "task", "seed")}
    summary["env_steps_per_s"] = None
    for name, line in (("before", lines[0]), ("after", lines[-1])):
        summary[name] = {
            "env_steps": line["env_steps"],
            "policy": line["policy"]["success_rate"],
            "base": line["base"]["success_rate"],
        }
    summary["train_s"] = lines[-1]["time/train_s"]
    (run_dir / "summary.json").write_text(json.dumps(summary))
    return summary


def child() -> None:
    """Reads an order as `parallel.processes` gives it, and ends as the run's discount says: .5
    fails, .6 is killed the first time, .7 waits for the end of its input."""
    order = json.loads(sys.stdin.readline())
    config, run_dir = order["config"], Path(order["run_dir"])
    discount, steps = config["train"]["discount"], config["train"]["online_steps"]
    print(json.dumps({"phase": [config["algorithm"], steps, 0]}), flush=True)
    if discount == 0.5:
        print(json.dumps({"error": "the arm fell off"}))
        return
    if discount == 0.6 and not order["resume"]:
        (run_dir / "config.json").write_text(json.dumps(config))
        os.kill(os.getpid(), signal.SIGKILL)
    if discount == 0.7:
        (run_dir / "config.json").write_text(json.dumps(config))
        os.read(0, 1)
        return
    rate = 0.9 if config["algorithm"] == "expo" else 0.6
    curve = {0: 0.25, steps // 2: rate - 0.1 * config["seed"], steps: rate}
    print(json.dumps({"summary": write_run(run_dir, config, curve)}))


def search_child() -> None:
    """Reads an order as `parallel.processes` gives it, and evaluates as a run of a search does:
    success rises to what the update-to-data ratio and the noise are worth. By the run's discount,
    .5: trial 1 fails; .7: the first run of trial 2 first waits for the end of its input, once; .9:
    runs of ratio 1 of trial 3 or later wait in their middle for the end of their input."""
    order = json.loads(sys.stdin.readline())
    config, run_dir = order["config"], Path(order["run_dir"])
    train, number = config["train"], int(run_dir.parent.name.split("-t")[1][:3])
    (run_dir / "config.json").write_text(json.dumps(config))
    if train["discount"] == 0.5 and number == 1:
        print(json.dumps({"error": "the arm fell off"}))
        return
    first = config["seed"] == 0 and not order["resume"]
    if train["discount"] == 0.7 and number == 2 and first:
        os.read(0, 1)
        return
    steps, every = train["online_steps"], config["eval"]["every"]
    worth = {1: 0.1, 2: 0.6, 4: 1.0}[train["utd_ratio"]] - abs(config["data"]["demo_noise"] - 0.1)
    curve = {step: max(worth, 0.0) * step / steps for step in range(0, steps + 1, every)}
    with (run_dir / "eval.jsonl").open("w") as file:
        for step, rate in curve.items():
            file.write(json.dumps(evaluation(step, rate)) + "\n")
            file.flush()
            print(json.dumps({"evaluated": step}), flush=True)
            bad = train["discount"] == 0.9 and train["utd_ratio"] == 1 and number >= 3
            if bad and 2 * step >= steps:
                os.read(0, 1)
                return
    print(json.dumps({"summary": write_run(run_dir, config, curve)}))
