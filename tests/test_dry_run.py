"""The plan of a run that is not started: its numbers are those of a run that is."""

import json
import re
import sys

import jax
import pytest

from exporl.acting.parameters import to_arrays
from exporl.cli.main import main
from exporl.distributed.dry_run import _algorithm, _sizes, dry_run
from exporl.run.actors import make_actors
from exporl.run.build import build, replays, specs_of
from exporl.run.memory import device_plan
from exporl.run.pace import PACES, kind
from exporl.run.presets import preset_config
from helpers.runs import SMALL, tiny


@pytest.mark.parametrize("algorithm", ["expo", pytest.param("fql", marks=pytest.mark.slow), "rlpd"])
def test_the_sizes_are_those_of_a_run(tmp_path, algorithm):
    config = tiny(algorithm, num_envs=2)
    parts = build(config, tmp_path, lambda _: None)
    shown, seen = specs_of(config, parts.task)
    sizes = _sizes(config, _algorithm(config, seen), shown, seen)
    real = device_plan(config, parts.learner, parts.network_spec, parts.columns)
    assert (sizes.learner, sizes.batches) == (real.learner_bytes, real.batch_bytes)
    acting = parts.learner.acting()
    assert sizes.acting == sum(value.nbytes for value in to_arrays(acting).values())
    rollout = make_actors(parts)
    ((_, step), _) = rollout.step(acting)
    rollout.close()
    arrays = jax.tree.leaves((step.observation, step.next_observation, step.action))
    assert sizes.step == sum(each.nbytes for each in arrays) + 4 + 3
    said = []
    replays(parts, said.append)
    assert f"x {sizes.row} B" in next(line for line in said if line.startswith("replay:"))


def test_many_actors_and_devices_are_planned_where_there_are_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    options = [*SMALL, "--num-envs", "128", "--actors", "64", "--devices", "8", "--dry-run"]
    assert main(["train", "expo", "--task", "probe/delay", *options]) == 0
    said = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert "each of 8 devices holds" in said and "(1 of 8 rows)" in said
    assert "64 processes with 2 of 128 environments and a CPU each, 65 CPUs" in said
    each, all_of_them = re.findall(
        r"object store: (.*?) per version.*? at a time, (.*?), and", said
    )[0]
    assert _bytes(all_of_them) == pytest.approx(64 * _bytes(each), rel=0.05)
    assert "a chunk of 20 steps per actor" in said


def test_the_plan_says_how_long_once_a_run_of_the_kind_has_finished(tmp_path, monkeypatch, capsys):
    """As the run itself says it: who acts until when, the updates, the expected time."""
    command = ["train", "expo", "--task", "probe/delay", "--preset", "stable", "--dry-run"]
    monkeypatch.setattr("exporl.run.pace.programs_folder", lambda: tmp_path)
    assert main(command) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(
        "plan: 4,000 imitation steps; 5,000 environment steps: the base policy "
    )
    assert "alone until step 1,000, then whichever of base and policy does better" in first
    assert "2,400 update calls of 6 minibatches from step 202 on" in first
    assert first.endswith("how long is not known until a run of this kind has finished here")
    config = preset_config("expo", "stable", "probe/delay")
    parts = {"before": 100.0, "step": 0.1, "episode": 0.0}
    paces = {f"{kind(config)} {part}": seconds for part, seconds in parts.items()}
    (tmp_path / PACES).write_text(json.dumps(paces))
    assert main(command) == 0
    assert "about 10 min in all" in capsys.readouterr().out.splitlines()[0]


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(ValueError, match=r"--dry-run does not know what base\.policy=a:b holds"):
        dry_run(tiny(**{"base.policy": "a:b"}))
    with pytest.raises(ValueError, match="num_envs=1 environments cannot be shared"):
        dry_run(tiny(**{"train.actors": 2}))
    assert not any(line.startswith("actors") for line in dry_run(tiny()))


def _bytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
