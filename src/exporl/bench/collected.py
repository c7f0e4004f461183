"""The finished runs of a suite in one small file: what its tables need, without the runs. Nothing
here needs JAX."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporl.bench.prints import read_print
from exporl.bench.results import WHO, Result, Results
from exporl.bench.suite import AskedRun, Suite
from exporl.files.reading import read_object
from exporl.report.reading import read_configuration

ENDS = (0, -1)
"""Evaluations of which every episode is kept: the first and the last."""


def collected_text(results: Results) -> str:
    """The runs as JSON, a line each.

    Per run: what it was asked to be and its whole configuration as digests, its code and machine as
    places in lists, seconds, and the curves of all who were evaluated; of the first and the last
    evaluation also every episode, "1" a success, on paired starts.
    """
    codes = sorted(frozenset[str]().union(*(run.code for run in results.runs)))
    of_runs = [_machine(run) for run in results.runs]
    machines = sorted(set(of_runs))
    lines = [
        json.dumps(_plain(results.suite, run, codes, machines.index(machine)))
        for run, machine in zip(results.runs, of_runs, strict=True)
    ]
    about = {
        "command": f"exporl bench {results.suite.path.as_posix()}",
        "measure": results.suite.measure,
        "runs_of_the_suite": len(results.suite.runs),
        "machines": machines,
        "codes": codes,
    }
    head = json.dumps(about, indent=1).removesuffix("\n}")
    return head + ',\n "runs": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def read_collected(suite: Suite, path: Path) -> Results:
    """The runs of a suite that a file holds.

    Runs that the suite does not have, or has with other options now, are left out and named.

    Raises:
        ValueError: the file cannot be read, or was made for another measure.
    """
    found = read_object(path)
    if found.get("measure") != suite.measure:
        raise ValueError(
            f"{path} holds {found.get('measure')!r}, and {suite.path} is about {suite.measure!r}: "
            f"write it anew with exporl bench {suite.path} --json --output {path}."
        )
    try:
        return _results(suite, found)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path} is no file of collected runs ({error!r}): write it anew with exporl bench "
            f"{suite.path} --json --output {path}."
        ) from error


def asked_digest(asked: AskedRun) -> str:
    """What a suite asks a run to be, in one word."""
    return _digest(asked.plain())


def _results(suite: Suite, found: Mapping[str, Any]) -> Results:
    asked = {(run.label, run.task, run.seed): run for run in suite.runs}
    runs, problems = [], []
    for each in found["runs"]:
        name = each["algorithm"], each["task"], each["seed"]
        if name not in asked:
            problems.append(f"{name[0]} on {name[1]}, seed {name[2]}: the suite has no such run.")
        elif each["asked"] != asked_digest(asked[name]):
            problems.append(f"{asked[name].name}: the suite asks for other options now.")
        else:
            code = frozenset(found["codes"][i] for i in each["code"])
            runs.append(Result(asked[name], _lines(each), each["starts"], code))
    order = {name: i for i, name in enumerate(asked)}
    runs.sort(key=lambda run: order[run.asked.label, run.asked.task, run.asked.seed])
    missing = len(suite.runs) - len(runs)
    if missing:
        problems.insert(0, f"{missing} of {len(suite.runs)} runs are not there yet.")
    codes = frozenset[str]().union(*(run.code for run in runs))
    if len(codes) > 1:
        problems.append(f"These runs were made with {len(codes)} versions of the code.")
    return Results(suite, tuple(runs), tuple(problems))


def _lines(each: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Evaluations as eval.jsonl has them; without episodes in between, and one time for all."""
    lines: list[dict[str, Any]] = [{"env_steps": step} for step in each["env_steps"]]
    for who, rates in each["success_rate"].items():
        for line, rate in zip(lines, rates, strict=True):
            line[who] = {"success_rate": rate}
    for who, means in each.get("return_mean", {}).items():
        for line, mean in zip(lines, means, strict=True):
            line[who]["return_mean"] = mean
    for end, found in zip(ENDS, each["episodes"], strict=True):
        for who, bits in found.items():
            lines[end][who]["success"] = [bit == "1" for bit in bits]
    if "returns" in each:
        lines[-1]["policy"]["returns"] = each["returns"]
    lines[-1] |= {"time/train_s": each["train_s"], "time/eval_s": each["eval_s"]}
    return lines


def _plain(suite: Suite, run: Result, codes: Sequence[str], machine: int) -> dict[str, Any]:
    lines, made = run.evaluations, read_print(suite.folder, run.asked.run_dir)
    whole = None if made is None else _digest(made["configuration"])
    who = [name for name in WHO if all(name in line for line in lines)]
    plain: dict[str, Any] = {
        "algorithm": run.asked.label,
        "task": run.asked.task,
        "seed": run.asked.seed,
        "asked": asked_digest(run.asked),
        "configuration": whole,
        "code": sorted(codes.index(code) for code in run.code),
        "machine": machine,
        "starts": run.starts,
        "train_s": round(lines[-1]["time/train_s"], 1),
        "eval_s": round(sum(line.get("time/eval_s", 0.0) for line in lines), 1),
        "env_steps": [line["env_steps"] for line in lines],
        "success_rate": {
            name: [round(line[name]["success_rate"], 4) for line in lines] for name in who
        },
        "episodes": [{name: _bits(lines[end][name]["success"]) for name in who} for end in ENDS],
    }
    if suite.measure == "return":
        means = {name: [round(line[name]["return_mean"], 4) for line in lines] for name in who}
        plain |= {"return_mean": means, "returns": run.episodes("return")}
    return plain


def _machine(run: Result) -> str:
    """What a run was made on, by its config.json."""
    about = read_configuration(run.asked.run_dir).get("versions", {})
    return str(about.get("machine", "a machine that nobody noted"))


def _bits(success: Sequence[bool]) -> str:
    return "".join("1" if each else "0" for each in success)


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
