"""The model card: README.md with the front matter that model hubs read."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporl.acting.interface import Interface
from exporl.acting.policy import Policy
from exporl.bundle.loader import LOADER
from exporl.bundle.results import Results
from exporl.external.torch_files import parts_of
from exporl.files.bundle import ONNX

TAGS = ("exporl", "reinforcement-learning", "robotics", "imitation-learning")


@dataclasses.dataclass(frozen=True)
class About:
    """What a card says."""

    name: str
    part: str
    """"policy", or "base": the base policy alone."""
    licence: str
    """An identifier as hubs know it: mit, apache-2.0, ...; "unknown"."""
    datasets: tuple[str, ...]
    """Names of data sets on the hub."""
    config: Mapping[str, Any]
    """The run's configuration."""
    record: Mapping[str, Any]
    """What the checkpoint keeps beside its arrays."""
    results: Results | None
    onnx: str
    """What there is to say about the ONNX file, a sentence."""
    has_onnx: bool


def model_card(policy: Policy, about: About) -> str:
    """The text of README.md."""
    sections = [
        front_matter(about),
        _head(policy, about),
        results(about),
        training(about),
        _loading(policy, about),
        reads_and_gives(policy.interface),
        licence(about),
    ]
    return "\n".join(sections)


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without what only its machine knows: of the data and of the file of a
    base policy the name."""
    data, base = dict(config.get("data", {})), dict(config.get("base", {}))
    if isinstance(data.get("path"), str):
        data["path"] = Path(data["path"]).name
    if isinstance(base.get("policy"), str):
        base["policy"] = without_folder(base["policy"])
    return {**config, "data": data, "base": base}


def without_folder(name: str) -> str:
    """What a base policy was opened by, of its file the name alone."""
    file, adapter = parts_of(name.removeprefix("torch:"))
    if not name.startswith("torch:") or not file:
        return name
    return ":".join(filter(None, ("torch", Path(file).name, adapter)))


def front_matter(about: About, library: str = "exporl") -> str:
    """YAML; its texts are written as JSON has them, which YAML reads. `library` loads the files."""
    lines = ["---", f"library_name: {library}", "pipeline_tag: robotics"]
    lines.append(f"license: {_text(about.licence)}")
    lines += ["tags:", *(f"- {_text(tag)}" for tag in (*TAGS, _algorithm(about)))]
    if about.datasets:
        lines += ["datasets:", *(f"- {_text(name)}" for name in about.datasets)]
    if about.results is not None:
        last = about.results.rows[-1]
        task = _text(about.config["task"])
        lines += [
            "model-index:",
            f"- name: {_text(about.name)}",
            "  results:",
            "  - task:",
            "      type: robotics",
            "      name: robotics",
            "    dataset:",
            f"      name: {task}",
            f"      type: {task}",
            "    metrics:",
            "    - type: success_rate",
            f"      name: success rate of {len(last.success)} episodes",
            f"      value: {last.rate!r}",
        ]
    return "\n".join([*lines, "---", ""])


def _text(value: str) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _algorithm(about: About) -> str:
    return "behaviour-cloning" if about.part == "base" else str(about.config["algorithm"])


def _head(policy: Policy, about: About) -> str:
    base = about.config["base"]["kind"]
    algorithm = str(about.config["algorithm"])
    if about.part == "base":
        what = f"the {base} base policy alone, as it was after training with {algorithm}"
    elif policy.mode == "base":
        what = f"{algorithm} with a {base} base policy, which acts alone: it was found better"
    elif policy.algorithm.has_base:
        what = f"{algorithm} around a {base} base policy"
    else:
        what = algorithm
    return (
        f"# {about.name}\n\nA policy for `{about.config['task']}`: {what}. Written by [exporl]"
        f"(https://arxiv.org/abs/2507.07986) from {policy.checkpoint_name}.\n"
    )


def results(about: About) -> str:
    """The run's own evaluations."""
    found = about.results
    if found is None:
        return "## Results\n\nThe run has no evaluation of it.\n"
    steps = about.record["rollout"]["env_steps"]
    rows = [f"| {row.who} | {' | '.join(row.cells())} |" for row in found.rows]
    when = (
        f"Before: at environment step {found.before_step:,}. After: at step {found.step:,}; "
        f"the parameters here are those of step {steps:,}."
    )
    table = ["| | success [95%] | mean return [95%] | episodes |", "|---|---|---|---|", *rows]
    reward = f"The return is the sum of rewards in the convention `{about.config['reward']}`."
    return "\n".join(
        ["## Results", "", *table, "", f"{when} {reward}", "", found.gain, ""],
    )


def training(about: About) -> str:
    """How it was trained."""
    config, record = about.config, about.record
    data, train = config["data"], config["train"]
    path, demos = data.get("path"), data.get("demos")
    count = "all" if demos is None and path else demos if demos is not None else 20
    source = f"`{Path(path).name}`" if path else "demonstrations collected by the task's own expert"
    rows = {
        "task": f"`{config['task']}`",
        "algorithm": f"{config['algorithm']}, preset `{config.get('preset')}`",
        "data": f"{source}, episodes: {count}{_digest(record)}",
        "imitation steps": f"{train['offline_steps']:,}",
        "environment steps": f"{record['rollout']['env_steps']:,}",
        "update calls": f"{record['updates']:,}, imitation included; {train['utd_ratio']} "
        f"minibatches of {train['batch_size']} rows per environment step",
        "seed": str(config["seed"]),
        "versions": ", ".join(f"{k} {v}" for k, v in config.get("versions", {}).items()),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(
        [
            "## How it was trained",
            "",
            "| | |",
            "|---|---|",
            *lines,
            "",
            "Every option is in `train_config.json`.",
            "",
        ]
    )


def _digest(record: Mapping[str, Any]) -> str:
    """Which data was read, where the checkpoint says it."""
    found = record.get("data")
    return f"; SHA-256 of what was read `{found}`" if isinstance(found, str) else ""


def _loading(policy: Policy, about: About) -> str:
    exporl = (
        "## Act\n\nWith exporl, three lines (`exporl eval` takes the folder too):\n\n"
        "```python\nfrom exporl import load_policy\n\n"
        'policy = load_policy(".")  # where this file lies\n'
        "action = policy.next_action(observation)\n```\n"
    )
    if not about.has_onnx:
        return f"{exporl}\n{about.onnx}\n"
    return (
        f"{exporl}\nWithout exporl and JAX, from `{ONNX}`, with numpy and onnxruntime. {about.onnx}"
        " These lines check nothing: the files are compared with `manifest.json` only by exporl."
        f"\n\n```python\n{LOADER}```\n"
    )


def reads_and_gives(interface: Interface) -> str:
    """What a policy reads and gives, and the bounds of its actions."""
    stated = interface.to_json()
    entries = [
        f"- `{name}`: {entry['dtype']} {list(entry['own_shape'])}"
        for name, entry in stated["observation"].items()
    ]
    low, high = min(stated["action"]["low"]), max(stated["action"]["high"])
    hz = "" if interface.control_hz is None else f", {interface.control_hz:g} a second"
    return (
        "## What it reads and gives\n\nObservations in the environment's own units:\n\n"
        + "\n".join(entries)
        + f"\n\nActions: {stated['action']['dtype']} {list(stated['action']['shape'])} between "
        f"{low:g} and {high:g}; of every chunk of {interface.spec.chunk_length} the first "
        f"{interface.execute_length} are played{hz}. Check these bounds before it moves a robot.\n"
    )


def licence(about: About) -> str:
    """The licence that was stated."""
    if about.licence == "unknown":
        return "## Licence\n\nNone was stated.\n"
    return f"## Licence\n\n`{about.licence}`\n"
