"""Compiling ahead: the right programs, each once, with the same results, and errors where they
belong."""

import functools
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl import override
from exporl.algos import make_algorithm
from exporl.cli.main import command
from exporl.data.columns import proposal_columns
from exporl.data.mixture import Mixture
from exporl.data.replay import Replay
from exporl.policies import make_base
from exporl.run.phases import programs
from exporl.run.progress import Silent
from exporl.run.trainer import Trainer
from exporl.speed.compile_ahead import compile_ahead, empty_batches
from exporl.types import Spec, Step
from helpers.runs import run_all, tiny

CONFIG = tiny(
    **{
        "algo.hidden": (16,),
        "algo.num_qs": 2,
        "train.offline_steps": 10,
        "train.critic_pretrain_steps": 2,
        "train.online_steps": 4,
        "train.update_after": 0,
        "train.critic_warmup_steps": 0,
        "eval.every": 100,
        "eval.episodes": 1,
        "eval.num_envs": 1,
        "data.demos": 3,
    }
)
"""No other test compiles these programs."""
PROGRAMS = programs(CONFIG.train)


@pytest.fixture
def compiled(quiet):
    """The names of the programs compiled (or fetched from the cache) so far."""
    names: list[str] = []

    def listen(event: str, seconds: float, **about) -> None:
        if event.endswith("backend_compile_duration"):
            names.append(about.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, [("pretrain", 10), ("critic_pretrain", 2), ("online", 2)]),
        (
            {"train.offline_steps": 1234, "train.critic_pretrain_steps": 0},
            [("pretrain", 100), ("online", 2)],
        ),
        (
            {"train.offline_steps": 0, "train.update_every": 3},
            [("critic_pretrain", 6), ("online", 6)],
        ),
        ({"train.online_steps": 0}, [("pretrain", 10), ("critic_pretrain", 2)]),
    ],
)
def test_the_programs_are_those_that_the_run_needs(changes, wanted):
    assert programs(override(CONFIG, changes).train) == wanted


@pytest.mark.parametrize("num_proposals", [0, 3])
@pytest.mark.parametrize("h", [1, 2])
def test_shapes_are_those_of_a_sample(h, num_proposals):
    spec = Spec((("goal", (2,), "float32"), ("pixels", (4, 4, 3), "uint8")), 5, h)
    columns = proposal_columns(num_proposals, spec)
    replay = Replay(spec, 20, columns=columns)
    seen = {name: np.ones(shape, dtype) for name, shape, dtype in spec.observation}
    for _ in range(6):
        replay.add(Step(seen, np.zeros(5, np.float32), 0.0, False, False, seen))
    sample = Mixture([(replay, 1.0)]).sample(np.random.default_rng(0), 3, 4, discount=0.9)
    describe = lambda batch: jax.tree.map(lambda x: (x.shape, x.dtype), vars(batch))  # noqa: E731
    empty = empty_batches(spec, 3, 4, columns)
    assert describe(empty) == describe(sample)
    assert all(set(x.strides) == {0} for x in jax.tree.leaves(empty))


@pytest.mark.slow
def test_every_update_is_compiled_once_and_before_it_is_needed(tmp_path, compiled):
    trainer = Trainer(CONFIG, tmp_path, Silent(), resume=False)
    run_all(trainer)
    assert compiled.count("jit(update)") == 3


@pytest.mark.slow
def test_an_update_that_was_compiled_ahead_is_the_same():
    base = make_base(CONFIG.base, SPEC, CONFIG.precision)
    make = functools.partial(make_algorithm, "expo", CONFIG.algo, SPEC, base, CONFIG.precision)
    zeros = empty_batches(SPEC, 2, 8, {})
    batches = jax.tree.map(
        lambda x: jnp.linspace(-1, 1, x.size, dtype=x.dtype).reshape(x.shape), zeros
    )
    init, results = jax.jit(make().init), []
    for algorithm in (make(), compile_ahead(make(), SPEC, PROGRAMS, 8, {})):
        state = init(jax.random.key(0))
        results.append(algorithm.update(state, batches, jax.random.key(1), phase="online"))
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_error_of_compiling_is_raised_by_the_update():
    class Broken:
        def lower(self, *args, **options):
            raise RuntimeError("does not compile")

    base = make_base(CONFIG.base, SPEC, CONFIG.precision)
    algorithm = make_algorithm("expo", CONFIG.algo, SPEC, base, CONFIG.precision)._replace(
        update=Broken()
    )
    with pytest.raises(RuntimeError, match="does not compile"):
        compile_ahead(algorithm, SPEC, PROGRAMS, 8, {}).update(
            None, empty_batches(SPEC, 2, 8, {}), None, phase="online"
        )


SPEC = Spec((("state", (3,), "float32"),), 2)


LEAVES_WHILE_COMPILING = """
import sys, time
from exporl.cli import main
from exporl.speed import compile_ahead

class Slow:
    def lower(self, *args, **options):
        time.sleep(60)

def fails(args):
    class Algorithm(dict):
        update, init = Slow(), staticmethod(lambda key: {})
        def _replace(self, **changes):
            return self
    columns = {}
    spec = compile_ahead.Spec((("state", (2,), "float32"),), 1)
    compile_ahead.compile_ahead(Algorithm(), spec, [("online", 1)], 2, columns)
    while not compile_ahead.compiling():
        time.sleep(0.01)
    print("said before")
    raise ValueError("the reason")

main.fails, main.COMMANDS["train"] = fails, "exporl.cli.main:fails"
sys.argv = ["exporl", "train"]
main.command()
"""


def test_a_command_that_ends_does_not_wait_for_a_program_that_is_being_compiled():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_WHILE_COMPILING], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "said before\n",
        "error: the reason\n",
    )
    assert time.monotonic() - began < 50


def test_a_command_that_compiles_nothing_ends_as_usual(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["exporl", "--version"])
    monkeypatch.setattr("exporl.cli.main.ignore_signals", lambda: None)
    with pytest.raises(SystemExit) as left:
        command()
    assert left.value.code == 0
