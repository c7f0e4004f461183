"""Several devices: one update of all equals that of one, runs resume to the bit, seeds are dealt
out. Most of it needs four devices: `test_on_four_devices` runs it in a process that has them."""

import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exporl.algos import make_algorithm
from exporl.cli.train import run_request
from exporl.cli.train_request import parse
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.parallel.processes import Job
from exporl.parallel.seeds import run_together, train_seeds
from exporl.policies import make_base
from exporl.run import memory
from exporl.run.build import build, specs_of
from exporl.run.config import check, override
from exporl.run.directory import load_config, write_config
from exporl.run.learner import Learner
from exporl.run.loop import train
from exporl.run.memory import DevicePlan, check_memory, device_plan, least_bytes
from exporl.run.progress import Silent
from exporl.speed import devices as several
from exporl.speed.compile_ahead import compile_ahead
from exporl.speed.devices import DataParallel, spread
from helpers.batches import distance, random_batch, same, to_device, to_host
from helpers.outside import Learns
from helpers.runs import Heard, newest, tiny

ROWS = 32
"""Of a minibatch: the runs below have the programs of the updates, which take long to compile."""
UNHOISTED = {"algo.hoist_sampling": False}
SPEC = specs_of(tiny(), make_task("probe/delay"))[1]
ROOT = Path(__file__).parent.parent
FILES = ("tests/test_devices.py", "tests/test_golden.py")


@pytest.fixture
def four(devices):
    if devices < 4:
        pytest.skip("needs --devices 4: test_on_four_devices runs it")
    return DataParallel.over(4)


@pytest.mark.slow
def test_on_four_devices(devices):
    """Everything below and the golden numbers of float32, in a process with four devices."""
    if devices > 1:
        pytest.skip("this is the process with several devices")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, "--devices", "4", "-k", "not bfloat16", *FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert "1 skipped" in ran.stdout


# One update.


def config_of(name, **changes):
    return tiny(name, **{"train.batch_size": ROWS} | changes)


def algorithm_of(name, **changes):
    config = config_of(name, **changes)
    base = None if name == "rlpd" else make_base(config.base, SPEC, config.precision)
    return make_algorithm(name, config.algo, SPEC, base, config.precision)


@pytest.mark.parametrize(
    ("name", "changes", "phase"),
    [
        ("expo", UNHOISTED, "online"),
        ("rlpd", {}, "online"),
    ],
)
def test_the_update_is_that_of_one_device(four, name, changes, phase):
    """To float32 rounding; twice the same to the bit; and each device works on a quarter."""
    one = algorithm_of(name, **changes)
    many, batches, key = spread(one, four), random_batch(SPEC, 2, ROWS), jax.random.key(1)
    start = to_host(jax.jit(one.init)(jax.random.key(0)))
    wanted, metrics = to_host(one.update(to_device(start), batches, key, phase=phase))
    ends = []
    for _ in range(2):
        state, key = four.replicate(to_device(start)), jax.random.key(1)
        state, found = many.update(state, four.hand_out(batches), key, phase=phase)
        assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {four.replicated}
        ends.append(to_host((state, found)))
    assert same(*ends)
    assert distance(ends[0][0], wanted) < 2e-5
    for metric, value in metrics.items():
        np.testing.assert_allclose(ends[0][1][metric], value, rtol=1e-3, atol=1e-5, err_msg=metric)
    key = jax.random.key(1)
    work = [each.update.lower(start, batches, key, phase=phase).compile() for each in (one, many)]
    alone, shared = (program.cost_analysis()["flops"] for program in work)
    assert shared < 0.5 * alone


def test_what_is_compiled_ahead_is_what_runs(four):
    # no test before this one has made such an update
    names, parallel = [], spread(algorithm_of("rlpd", **{"algo.hidden": (13,)}), four)

    def listen(event: str, seconds: float, **about) -> None:
        if event.endswith("backend_compile_duration"):
            names.append(about.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        ahead = compile_ahead(parallel, SPEC, [("online", 2)], ROWS, {})
        state = four.replicate(jax.jit(ahead.init)(jax.random.key(0)))
        batches = four.hand_out(random_batch(SPEC, 2, ROWS))
        for _ in range(2):
            state, _ = ahead.update(state, batches, jax.random.key(1), phase="online")
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len([name for name in names if "update" in name]) == 1


def test_an_update_of_several_devices_is_made_once(four):
    one, again = (spread(algorithm_of("rlpd"), DataParallel.over(4)) for _ in range(2))
    assert one.update is again.update
    assert spread(algorithm_of("rlpd"), DataParallel.over(2)).update is not one.update


def test_what_acts_lies_on_one_device(four):
    params = {"weights": four.replicate(to_device(np.arange(6.0, dtype=np.float32)))}
    found = four.on_one(params)["weights"]
    assert found.devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(found, np.arange(6.0))
    assert four.on_one({"steps": 3}) == {"steps": 3}


def test_each_device_is_sent_its_rows(four):
    batches = random_batch(SPEC, 2, ROWS)
    sent = four.hand_out(batches)
    shards = sent.action.addressable_shards
    assert [shard.data.shape for shard in shards] == [(2, 8, 1, 1)] * 4
    assert len({shard.device for shard in shards}) == 4
    assert same(to_host(sent), batches)


# Runs.


def saved(run):
    return checkpoint.load(newest(run))[0]


def same_arrays(one, two, **tolerance):
    for part in ("learner", "replay", "rollout"):
        left, right = one[part], two[part]
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_allclose(
                left[name], right[name], err_msg=f"{part} {name}", **tolerance
            )


def halves(run, config, *, steps, devices):
    """A run in two halves, each on so many devices."""
    train(override(config, {"train.online_steps": steps, "train.devices": devices[0]}), run)
    train(override(config, {"train.devices": devices[1]}), run, resume=True)


def test_two_halves_are_a_whole(four, tmp_path):
    changes = {"train.devices": 4, "train.online_steps": 16} | UNHOISTED
    config, heard = config_of("expo", **changes), Heard()
    train(config, tmp_path / "whole", heard)
    (line,) = [said for said in heard.said if said.startswith("devices:")]
    assert line.startswith("devices: 4 x (") and "8 of 32 rows each), in host memory" in line
    halves(tmp_path / "halves", config, steps=8, devices=(4, 4))
    same_arrays(saved(tmp_path / "whole"), saved(tmp_path / "halves"), rtol=0, atol=0)


def test_a_run_goes_on_with_another_number_of_devices(four, tmp_path):
    config = config_of("rlpd", **{"train.devices": 4, "train.online_steps": 12})
    train(config, tmp_path / "whole")
    halves(tmp_path / "halves", config, steps=8, devices=(4, 1))
    whole, other = saved(tmp_path / "whole"), saved(tmp_path / "halves")
    same_arrays(whole, other, rtol=1e-4, atol=1e-5)


def test_learning_beside_acting_on_several_devices(four, tmp_path):
    changes = {"train.devices": 4, "train.asynchronous": True}
    config = config_of("expo", **changes | UNHOISTED)
    summary = train(config, tmp_path / "run")
    assert summary["after"]["env_steps"] == 24
    assert checkpoint.load(newest(tmp_path / "run"))[1]["updates"] == 21


def test_around_a_policy_from_outside(four, tmp_path):
    """Its samples and its imitation are made on the host, from whole minibatches."""
    ends = []
    for devices in (1, 4):
        config = override(
            tiny("best_of_n", **{"train.devices": devices, "train.online_steps": 8}),
            {"base.learns": True, "train.offline_steps": 10},
        )
        train(config, tmp_path / str(devices), base=Learns())
        ends.append(saved(tmp_path / str(devices)))
    same_arrays(*ends, rtol=1e-4, atol=1e-5)


# Seeds.


@pytest.fixture
def no_key_checker():
    """It takes keys inside `vmap` for a reuse (jax 0.10): off for that."""
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", True)


def test_seeds_are_dealt_out_to_devices(four, tmp_path, monkeypatch, no_key_checker):
    """What a seed computes lies on its device, and devices wait for their own seeds only."""
    where, alone = {}, threading.Event()

    def one_run(config, run_dir, row, *, share, **options):
        algorithm = share(algorithm_of("rlpd"))
        where[config.seed] = jnp.zeros(()).devices()
        if config.seed == 0:  # the only seed of its device to act while seed 1 waits
            acting = algorithm.acting(jax.jit(algorithm.init)(jax.random.key(0)))
            algorithm.act(acting, {"state": np.zeros((1, 2), np.float32)}, jax.random.key(1))
            alone.set()
        assert alone.wait(120)
        return {}

    monkeypatch.setattr("exporl.parallel.seeds.train", one_run)
    jobs = [Job(tiny(seed=seed), tmp_path / f"s{seed}", False) for seed in range(2)]
    ended = run_together(jobs, [Silent()] * 2, threading.Event(), devices=2)
    assert ended == [({}, None)] * 2
    assert where == {seed: {jax.devices()[seed]} for seed in range(2)}


def test_seeds_on_devices_equal_single_runs(four, tmp_path, monkeypatch, no_key_checker):
    """And the folder remembers the devices, which its runs do not."""
    config = config_of("rlpd", seed=3, **{"train.devices": 2, "train.online_steps": 12})
    results = train_seeds(config, tmp_path / "many", 2)
    assert [result.error for result in results] == [None, None]
    alone = override(config, {"train.devices": 1})
    train(override(alone, {"seed": 4}), tmp_path / "alone")
    same_arrays(saved(tmp_path / "many" / "s4"), saved(tmp_path / "alone"), rtol=1e-4, atol=1e-5)
    assert load_config(tmp_path / "many" / "s4").train.devices == 1
    asked = []
    monkeypatch.setattr(
        "exporl.cli.train.train_many", lambda config, *_, **__: asked.append(config) or 0
    )
    run_request(parse(["--resume", str(tmp_path / "many")]))
    assert asked[0].train.devices == 2 and asked[0].seed == 3


# What is refused, and what is planned.


def test_the_short_option():
    request = parse(["expo", "--task", "probe/delay", "--devices", "4"])
    assert request.options == ("--train.devices", "4")


def test_a_batch_that_devices_cannot_share_equally():
    message = (
        r"train.batch_size=250 rows cannot be split over train.devices=4: 2 are left over. "
        "Set train.batch_size to 248 or 252."
    )
    with pytest.raises(ValueError, match=message):
        check(tiny(**{"train.batch_size": 250, "train.devices": 4}))
    with pytest.raises(ValueError, match=r"3 are left over. Set train.batch_size to 4\."):
        check(tiny(**{"train.batch_size": 3, "train.devices": 4, "data.prior_ratio": 0.5}))
    check(tiny(**{"train.batch_size": 252, "train.devices": 4}))


def test_more_devices_than_there_are(tmp_path, devices):
    message = rf"train.devices=8, and JAX has {devices} here \(cpu\). Set it to at most {devices}"
    with pytest.raises(ValueError, match=message):
        train(tiny(**{"train.devices": 8}), tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        train_seeds(tiny(**{"train.devices": 8}), tmp_path / "many", 8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("auto", "train.devices=4 for 2 seeds: a seed is on one device. Set it to at most 2"),
        ("processes", "train.devices=4 share seeds of one program: choose the mode vmap"),
    ],
)
def test_seeds_that_cannot_be_dealt_out(tmp_path, mode, message):
    with pytest.raises(ValueError, match=message):
        train_seeds(tiny(**{"train.devices": 4}), tmp_path / "many", 2, mode=mode)


def test_a_policy_is_evaluated_on_a_machine_with_fewer_devices(tmp_path):
    config = tiny("bc", **{"train.devices": 8})
    write_config(config, tmp_path)
    assert build(config, tmp_path, str, learns=False).learner.devices == 1


def test_the_plan_of_devices_in_words():
    plan = DevicePlan(learner_bytes=50_000_000, batch_bytes=8_000_000, batch_size=64)
    words = "devices: 50.0 MB learner + 8.0 MB minibatches = 58.0 MB at least, in host memory"
    assert str(plan) == words
    plan.check()
    plan = DevicePlan(50_000_000, 8_000_000, 64, devices=4, memory=10**9)
    assert str(plan) == (
        "devices: 4 x (50.0 MB learner + 2.0 MB minibatches = 52.0 MB at least, 16 of 64 rows "
        "each), in 1.0 GB each"
    )
    plan.check()
    with pytest.raises(ValueError, match=r"in 51.0 MB each: that does not fit. Lower algo.hidden"):
        DevicePlan(50_000_000, 8_000_000, 64, devices=4, memory=51_000_000).check()


def test_the_plan_counts_what_is_there(monkeypatch):
    """Twice the minibatches of an update call, where the next are drawn ahead."""
    config, learner = tiny(), Learner(algorithm_of("rlpd"), 0)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(learner.state))
    row = 4 * (2 * 2 + 1 + 1 + 4)  # two observations, an action, its validity, four numbers
    plan = device_plan(config, learner, SPEC, {})
    assert plan.learner_bytes == size and plan.batch_bytes == 20 * 8 * row
    later = override(config, {"train.offline_steps": 0, "train.prefetch": False})
    assert device_plan(later, learner, SPEC, {}).batch_bytes == 2 * 8 * row
    ahead = override(config, {"train.offline_steps": 0})
    assert device_plan(ahead, learner, SPEC, {}).batch_bytes == 2 * 2 * 8 * row
    monkeypatch.setattr(memory, "device_memory", lambda: 10**9)
    assert device_plan(config, learner, SPEC, {}).memory == 10**9


def test_every_copy_of_the_networks_needs_host_memory(monkeypatch):
    config = tiny(**{"base.width": 1024})
    one = sum(least_bytes(config, SPEC).values())
    check_memory(config, SPEC, one)
    with pytest.raises(ValueError, match=r"Most of it, .*, are the networks"):
        check_memory(override(config, {"train.devices": 4}), SPEC, one)
    assert several.copies_in_host_memory(4) == 4
    monkeypatch.setattr(several, "device_memory", lambda: 10**9)
    assert several.copies_in_host_memory(4) == 1
