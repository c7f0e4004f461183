"""Run directories whose networks were never trained: all that exporting needs, in a second."""

import json
from pathlib import Path

import jax
import numpy as np

from exporl.acting.interface import Interface, write_interface
from exporl.acting.parameters import to_arrays
from exporl.algos import make_algorithm
from exporl.files import checkpoint
from exporl.policies import make_base
from exporl.run.config import to_json
from exporl.spec import Spec
from exporl.units import ActionUnits
from helpers.runs import tiny

SPEC = Spec((("force", (3,), "float32"), ("pose", (4,), "float32")), action_dim=2, chunk_length=3)
UNITS = ActionUnits((-2.0, 0.0), (1.0, 5.0), (2,), "float32")
STATISTICS = {
    "mean": {"force": [-300.0, -250.0, 1.0], "pose": [40.0, 30.0, 20.0, 0.0]},
    "std": {"force": [50.0, 20.0, 0.5], "pose": [9.0, 3.0, 1.0, 0.01]},
    "clip": 5.0,
}
PLAYED = 2
BEFORE, AFTER, BASE = [True] + [False] * 9, [True] * 9 + [False], [True] * 5 + [False] * 5
"""Successes of the base policy before, of the policy after, of the base policy after."""


def outcomes(success: list[bool]) -> dict:
    returns = [-1.0 if each else -9.0 for each in success]
    return {"success_rate": sum(success) / len(success), "success": success, "returns": returns}


def made_run(
    folder: Path, algorithm: str = "expo", *, deployed: str = "explore", **changes
) -> Path:
    """A run of two checkpoints after 12 and 24 environment steps, with units of its own,
    normalised observations and chunks of 3 of which 2 are played."""
    changes = {"chunk_length": 3, "execute_length": PLAYED} | changes
    config = tiny(algorithm, **changes)
    base = make_base(config.base, SPEC, config.precision)
    made = make_algorithm(algorithm, config.algo, SPEC, base, config.precision)
    folder.mkdir()
    plain = json.loads(json.dumps(to_json(config)))
    (folder / "config.json").write_text(json.dumps(plain | {"versions": {"exporl": "0.1.0"}}))
    (folder / "statistics.json").write_text(json.dumps(STATISTICS))
    shapes = {"pose": (2, 2)}
    interface = Interface("arm:arm", SPEC, shapes, UNITS, PLAYED, 20.0, normalized=True)
    write_interface(folder, interface)
    lines = []
    for number, steps in enumerate((0, 12, 24)):
        line = {"env_steps": steps, "time/train_s": 1.0, "deployed": deployed}
        line |= {"policy": outcomes(AFTER), "base": outcomes(BASE)} if steps else {}
        lines.append(line if steps else line | {w: outcomes(BEFORE) for w in ("policy", "base")})
        if not steps:
            continue
        state = jax.jit(made.init)(jax.random.key(number))
        record = {
            "config": plain,
            "updates": 2 * steps,
            "data": "0" * 64,
            "deployed": deployed,
            "rollout": {"env_steps": steps},
        }
        parts = {"learner": to_arrays(state)}
        checkpoint.save(folder / "checkpoints", 20 + steps, parts, record, keep=2)
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def observations(num: int) -> list[dict[str, np.ndarray]]:
    """In the environment's own units and shapes; some beyond what the statistics clip."""
    rng, result = np.random.default_rng(1), []
    for _ in range(num):
        seen = {}
        for name, shape in (("force", (3,)), ("pose", (2, 2))):
            mean, std = (np.array(STATISTICS[k][name]).reshape(shape) for k in ("mean", "std"))
            seen[name] = (mean + 3 * std * rng.standard_normal(shape)).astype(np.float32)
        result.append(seen)
    return result
