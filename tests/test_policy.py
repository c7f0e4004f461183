"""A policy apart from its run: what it reads and gives, its seeds, and the files it is made of."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from exporl.acting.evaluate import evaluate
from exporl.acting.interface import Interface
from exporl.acting.policy import load_policy
from exporl.data.episodes import Episode
from exporl.data.formats import save_npz
from exporl.envs.custom import custom_task
from exporl.files import checkpoint
from exporl.randomness import env_seed
from exporl.run.loop import train
from exporl.run.progress import Silent
from exporl.run.session import load_run
from exporl.units import ActionUnits
from helpers.runs import newest, tiny

LOW, HIGH = np.array([-2.0, 0.0]), np.array([1.0, 5.0])


class Arm(gymnasium.Env):
    """Two observation entries in metres and newtons, actions between -2 and 1 and 0 and 5."""

    observation_space = gymnasium.spaces.Dict(
        pose=Box(-np.inf, np.inf, (2, 2)), force=Box(-np.inf, np.inf, (3,))
    )
    action_space = Box(LOW.astype(np.float32), HIGH.astype(np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}

    def seen(self):
        return {
            "pose": 40 + self.np_random.normal(0, 9, (2, 2)),
            "force": self.np_random.normal(-300, 50, 3),
        }

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        return self.seen(), 0.0, self.steps == 6, False, {"success": action[0] > 0}


def arm():
    return custom_task(Arm, name="arm:arm", max_episode_steps=9, control_hz=20.0)


def recorded(num):
    rng, episodes = np.random.default_rng(0), []
    for seed in range(num):
        env = Arm()
        seen, actions = [env.reset(seed=seed)[0]], rng.uniform(LOW, HIGH, (6, 2))
        seen += [env.step(action.astype(np.float32))[0] for action in actions]
        observations = {name: np.stack([each[name] for each in seen]) for name in seen[0]}
        episodes.append(
            Episode(observations, actions, np.zeros(6), np.arange(6) == 5, terminated=True)
        )
    return episodes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in an environment with units of its own, chunks of 3 of which 2 are played."""
    folder = tmp_path_factory.mktemp("arm")
    save_npz(folder / "arm.npz", recorded(4))
    changes = {"chunk_length": 3, "execute_length": 2, "data.path": str(folder / "arm.npz")}
    train(tiny(task="arm:arm", **changes), folder / "run", task=arm())
    (folder / "arm.npz").unlink()
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def observations(num):
    env, result = Arm(), []
    for seed in range(num):
        result.append(env.reset(seed=seed)[0])
    return result


def stacked(several):
    return {name: np.stack([each[name] for each in several]) for name in several[0]}


@pytest.mark.slow
def test_a_chunk_in_the_environments_own_units(run):
    policy, seen = load_policy(run), observations(8)
    chunk = policy.act(seen[0])
    assert chunk.shape == (2, 2) and chunk.dtype == np.float32
    many = policy.act(stacked(seen))
    assert many.shape == (8, 2, 2)
    assert (many >= LOW - 1e-5).all() and (many <= HIGH + 1e-5).all()
    assert many[..., 1].max() > 2, "the second action goes to 5, not to 1"
    assert policy.execute_length == 2 and policy.control_hz == 20


@pytest.mark.slow
def test_it_is_what_the_run_plays_in_its_task(run):
    """The same draws: the policy in the raw environment, the run in its normalised task."""
    policy, session = load_policy(run), load_run(run, task=arm())
    env, played = session.parts.make_env(), []

    class Recorder(gymnasium.Wrapper):
        def step(self, action):
            played.append(action)
            return super().step(action)

    inner = env
    while not isinstance(inner.env, Arm):
        inner = inner.env
    inner.env = Recorder(inner.env)
    evaluate(
        [env],
        session.algorithm.act,
        session.learner.acting(),
        session.task.reward,
        episodes=1,
        seed=0,
        execute_length=2,
    )
    raw, mine = Arm(), []
    seen, over = raw.reset(seed=env_seed(0, 0))[0], False
    policy.reset(seed=1)  # evaluation numbers its draws from 1
    while not over:
        mine.append(policy.next_action(seen))
        seen, _, over, _, _ = raw.step(mine[-1])
    np.testing.assert_array_equal(mine, played)


@pytest.mark.slow
def test_seeds_decide_every_draw(run):
    policy, (seen, other) = load_policy(run), observations(2)
    counted = [policy.act(seen) for _ in range(3)]
    assert not np.array_equal(counted[0], counted[1])
    for seed, chunk in enumerate(counted):
        np.testing.assert_array_equal(policy.act(seen, seed=seed), chunk)
    np.testing.assert_array_equal(policy.act(seen), load_policy(run).act(seen, seed=3))
    assert not np.array_equal(policy.act(other, seed=0), counted[0])
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"at least 0 and below 2\\*\\*32, got {seed}"):
            policy.act(seen, seed=seed)


@pytest.mark.slow
def test_chunks_are_played_one_action_at_a_time(run):
    policy, seen = load_policy(run), observations(6)
    played = [policy.next_action(each) for each in seen]
    fresh = load_policy(run)
    expected = [action for each in seen[::2] for action in fresh.act(each)]
    np.testing.assert_array_equal(played, expected)
    policy.next_action(seen[0])
    policy.reset()  # an episode ends in the middle of a chunk
    np.testing.assert_array_equal(policy.next_action(seen[5]), fresh.act(seen[5], seed=4)[0])
    policy.reset(seed=0)
    np.testing.assert_array_equal(policy.next_action(seen[0]), played[0])
    with pytest.raises(ValueError, match=r"next_action plays in one environment.*use act"):
        policy.next_action(stacked(seen))


@pytest.mark.slow
def test_what_there_is_to_say_about_a_decision(run):
    policy, seen = load_policy(run), observations(3)
    decision = policy.decide(stacked(seen), seed=7)
    assert decision.action.shape == (3, 3, 2), "the whole chunk, played or not"
    np.testing.assert_array_equal(decision.action[:, :2], policy.act(stacked(seen), seed=7))
    assert set(decision.info) == {"q", "index", "edited"}
    assert all(type(value) is np.ndarray and len(value) == 3 for value in decision.info.values())
    one = policy.decide(seen[0], seed=7)
    assert one.action.shape == (3, 2) and np.isfinite(one.info["q"]) and one.info["q"].shape == ()


@pytest.mark.slow
def test_modes(run):
    policy, seen = load_policy(run), stacked(observations(5))
    base = policy.decide(seen, seed=0, mode="base")
    assert base.info == {}
    np.testing.assert_array_equal(
        policy.act(seen, seed=0), policy.act(seen, seed=0, mode="evaluate")
    )
    assert not np.array_equal(policy.act(seen, seed=0), base.action[:, :2])
    with pytest.raises(ValueError, match=r"unknown mode 'evalute'\. Did you mean 'evaluate'\?"):
        policy.act(seen, mode="evalute")


@pytest.mark.slow
def test_a_policy_without_a_base(tmp_path):
    train(tiny("rlpd"), tmp_path / "run")
    policy = load_policy(tmp_path / "run")
    assert policy.act([0.0, 0.0]).shape == (1, 1), "a bare array: there is one entry"
    assert policy.decide([0.0, 0.0]).info == {}
    with pytest.raises(ValueError, match="mode 'base' needs a base policy, and this one has none"):
        policy.act([0.0, 0.0], mode="base")


@pytest.mark.slow
def test_who_is_deployed_acts(copy):
    """The guard of the run found the base policy better: that is what its policy is."""
    parts, record = checkpoint.load(newest(copy))
    step = int(newest(copy).name.split("-")[1])
    checkpoint.save(copy / "checkpoints", step, parts, record | {"deployed": "base"}, 1)
    policy, seen = load_policy(copy), stacked(observations(4))
    np.testing.assert_array_equal(policy.act(seen, seed=0), policy.act(seen, seed=0, mode="base"))


def changed(seen, **entries):
    return {**seen, **entries}


WRONG = {
    "missing": (
        lambda seen: {"pose": seen["pose"], "forse": seen["force"]},
        r"the observation lacks 'force'; it has \['forse', 'pose'\]\. Did you mean 'forse'\? The "
        r"policy reads pose, force\.",
    ),
    "bare": (
        lambda seen: seen["pose"],
        r"reads the entries 'pose', 'force': give a dictionary of them, not one ndarray",
    ),
    "the pair of reset": (lambda seen: (seen, {}), r"\(observation, info\) that reset\(\) returns"),
    "shape": (
        lambda seen: changed(seen, force=np.zeros(4)),
        r"observation 'force' has shape \(4,\); the policy needs \(3,\) for one observation, or "
        r"\(b, 3\) for b of them",
    ),
    "own shape": (
        lambda seen: changed(seen, pose=np.zeros((2, 3))),
        r"observation 'pose' has shape \(2, 3\); the policy needs \(2, 2\) for one observation, or "
        r"\(b, 2, 2\)",
    ),
    "none of many": (
        lambda seen: {"pose": np.zeros((0, 2, 2)), "force": np.zeros((0, 3))},
        r"observation 'pose' has shape \(0, 2, 2\)",
    ),
    "one and many": (
        lambda seen: changed(seen, pose=np.zeros((5, 2, 2))),
        r"must hold equally many observations: 'pose' has 5, 'force' has one",
    ),
    "many and more": (
        lambda seen: {"pose": np.zeros((5, 2, 2)), "force": np.zeros((4, 3))},
        r"'pose' has 5, 'force' has 4",
    ),
    "NaN": (
        lambda seen: changed(seen, pose=np.array([[0, 1], [np.nan, 0]])),
        r"observation 'pose' holds NaN or infinity, at \[1, 0\] first.*Hold the last good value",
    ),
    "infinity": (lambda seen: changed(seen, force=np.full(3, np.inf)), r"'force' holds NaN"),
    "words": (lambda seen: changed(seen, force=["a", "b", "c"]), r"'force' is not an array of num"),
    "ragged": (lambda seen: changed(seen, pose=[[1], [1, 2]]), r"'pose' is not an array of num"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_an_observation_that_does_not_fit(run, name):
    change, message = WRONG[name]
    policy = load_policy(run)
    for act in (policy.act, policy.decide, policy.next_action):
        with pytest.raises(ValueError, match=message):
            act(change(observations(1)[0]))
    np.testing.assert_array_equal(  # a refused observation uses up no seed
        policy.act(observations(1)[0]), load_policy(run).act(observations(1)[0])
    )


@pytest.mark.slow
def test_what_is_not_read_and_other_types_and_shapes_do_no_harm(run):
    policy, seen = load_policy(run), observations(1)[0]
    expected = policy.act(seen, seed=0)
    flat = {"pose": seen["pose"].reshape(4), "force": seen["force"].tolist()}
    for same in (flat, changed(seen, camera=np.zeros((4, 4, 3), np.uint8), pose=seen["pose"])):
        np.testing.assert_array_equal(policy.act(same, seed=0), expected)
    one_of_many = {name: value[None] for name, value in seen.items()}
    np.testing.assert_allclose(policy.act(one_of_many, seed=0)[0], expected, atol=1e-6)


@pytest.mark.slow
def test_a_run_with_images_acts_on_its_states(tmp_path):
    config = tiny(task="probe/image")
    train(config, tmp_path / "run")
    policy = load_policy(tmp_path / "run")
    assert [name for name, _, _ in policy.interface.spec.observation] == ["state"]
    assert policy.act(np.zeros(2)).shape == (1, 1)


def test_units_round_trip():
    units = ActionUnits((-2.0, 0.0), (1.0, 5.0), (2, 1), "float64")
    unit = np.random.default_rng(0).uniform(-1, 1, (7, 2))
    own = units.to_own(unit)
    assert own.shape == (7, 2, 1) and own.dtype == np.float64
    np.testing.assert_allclose(units.to_unit(own.reshape(7, 2)), unit, atol=1e-6)
    np.testing.assert_array_equal(units.to_own(np.array([-9.0, 9.0])).ravel(), [-2, 5])
    with pytest.raises(ValueError, match=r"\[-inf, 5\]; they must be finite, low below high"):
        ActionUnits((-np.inf,), (5.0,), (1,), "float32")
    with pytest.raises(ValueError, match=r"have 1 and 1 entries, an action of shape \(2,\) has 2"):
        ActionUnits((-1.0,), (1.0,), (2,), "float32")


@pytest.mark.slow
def test_the_interface_survives_its_file(run):
    data = json.loads((run / "policy.json").read_text())
    assert data["action"]["low"] == [-2, 0] and data["action"]["high"] == [1, 5]
    assert data["observation"]["pose"] == {
        "shape": [4],
        "dtype": "float32",
        "own_shape": [2, 2],
    }
    assert (data["control_hz"], data["execute_length"], data["chunk_length"]) == (20, 2, 3)
    assert json.loads(json.dumps(Interface.from_json(data).to_json())) == data


# A run directory alone.

ALONE = """
import sys
from pathlib import Path

for name in ("gymnasium", "tyro", "mujoco", "metaworld", "h5py", "arm", "exporl.envs"):
    sys.modules[name] = None  # importing it fails
import numpy as np
from exporl import load_policy

policy = load_policy(Path("copy"))
seen = {name: value for name, value in np.load("seen.npz").items()}
np.save("act.npy", policy.act(seen, seed=5))
np.save("decide.npy", policy.decide(seen, seed=5, mode="base").action)
one = {name: value[0] for name, value in seen.items()}
np.save("next.npy", [policy.next_action(one) for _ in range(3)])
wanted = {"exporl.run", "exporl.envs", "exporl.data.replay", "gymnasium"}
print(sorted(name for name in wanted if sys.modules.get(name)))
"""


@pytest.mark.slow
def test_it_acts_where_there_is_nothing_but_the_run(run, copy, tmp_path):
    """No task, no data, no simulator, no gymnasium; not even the rest of the checkpoint."""
    for name in ("metrics.jsonl", "eval.jsonl", "summary.json", "report.html"):
        (copy / name).unlink(missing_ok=True)
    for part in newest(copy).glob("*.safetensors"):
        if part.name != "learner.safetensors":
            part.unlink()
    seen = stacked(observations(4))
    np.savez(tmp_path / "seen.npz", **seen)
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    policy = load_policy(run)
    one = {name: value[0] for name, value in seen.items()}
    np.testing.assert_array_equal(np.load(tmp_path / "act.npy"), policy.act(seen, seed=5))
    base = policy.decide(seen, seed=5, mode="base").action
    np.testing.assert_array_equal(np.load(tmp_path / "decide.npy"), base)
    expected = [policy.next_action(one) for _ in range(3)]
    np.testing.assert_array_equal(np.load(tmp_path / "next.npy"), expected)


@pytest.mark.slow
def test_places_that_are_no_run(tmp_path, run):
    with pytest.raises(ValueError, match=r"is not a run directory: it has no config\.json"):
        load_policy(tmp_path)
    shutil.copytree(run, tmp_path / "seeds" / "s3")
    with pytest.raises(ValueError, match=r"is a folder of 1 runs: load one of them, such as .*s3"):
        load_policy(tmp_path / "seeds")
    assert load_policy(str(tmp_path / "seeds" / "s3")).execute_length == 2


@pytest.mark.slow
def test_no_checkpoint(copy):
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(
        ValueError, match=r"no checkpoint yet\. Let it train first.*copy the folder"
    ):
        load_policy(copy)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_an_older_one_used_only_while_saying_so(copy):
    seen, (older, latest) = observations(1)[0], sorted((copy / "checkpoints").iterdir())
    shutil.rmtree(latest)
    with pytest.warns(UserWarning, match="newer ones were removed"):
        expected = load_policy(copy)
    parts, record = checkpoint.load(older)
    checkpoint.save(copy / "checkpoints", int(latest.name.split("-")[1]), parts, record, 2)
    damage(latest / "learner.safetensors")
    message = f"{latest.name}: learner.safetensors was altered.*Acting with the older {older.name}"
    with pytest.warns(UserWarning, match=message):
        policy = load_policy(copy)
    assert policy.checkpoint_name == older.name and older.name in repr(policy)
    np.testing.assert_array_equal(policy.act(seen), expected.act(seen))
    damage(older / "learner.safetensors")
    both = f"no intact checkpoint is left: {latest.name}: learner.*{older.name}: learner"
    with pytest.raises(ValueError, match=both):
        load_policy(copy)


@pytest.mark.slow
def test_evaluation_says_that_a_checkpoint_is_damaged(copy):
    class Said(Silent):
        def __init__(self):
            self.lines = []

        def say(self, message):
            self.lines.append(message)

    older, latest = sorted((copy / "checkpoints").iterdir())
    damage(latest / "learner.safetensors")
    said = Said()
    load_run(copy, said, task=arm())
    assert any(
        f"skipped a damaged checkpoint: {latest.name}: learner" in line and older.name in line
        for line in said.lines
    )


FILES = {
    "no statistics": (
        lambda run: (run / "statistics.json").unlink(),
        "statistics.json is missing, and this policy was trained on normalised observations",
    ),
    "statistics of something else": (
        lambda run: (run / "statistics.json").write_text('{"mean": {}, "std": {}, "clip": 5.0}'),
        r"statistics.json was changed since checkpoint-\d+ was written: mean.pose is gone",
    ),
    "statistics cut off": (
        lambda run: (run / "statistics.json").write_text('{"mean": {'),
        "statistics.json is not valid JSON",
    ),
    "interface cut off": (
        lambda run: (run / "policy.json").write_text("{"),
        "policy.json is not valid JSON",
    ),
    "interface of something else": (
        lambda run: (run / "policy.json").write_text('{"observation": 3}'),
        r"policy.json was changed since checkpoint-\d+ was written: task is gone",
    ),
    "configuration of something else": (
        lambda run: (run / "config.json").write_text('{"algorithm": "expo"}'),
        "config.json lacks 'algo': it is not the configuration of a run",
    ),
    "interface gone, and the task with it": (
        lambda run: (run / "policy.json").unlink(),
        r"has no policy.json, as runs of earlier versions have none, and its task cannot be made "
        r"here: .* names code that does not come with exporl: task 'arm:arm'.*exporl eval",
    ),
}


def forget(run: Path) -> None:
    """As runs of earlier versions: checkpoints remember nothing of the files beside them."""
    parts, record = checkpoint.load(newest(run))
    step = int(newest(run).name.split("-")[1])
    checkpoint.save(run / "checkpoints", step, parts, record | {"beside": {}}, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "statistics.json",
            '{"mean": {}, "std": {}, "clip": 5.0}',
            "statistics.json does not hold the statistics of pose, force",
        ),
        (
            "policy.json",
            '{"observation": 3}',
            "policy.json does not say what a policy takes and gives",
        ),
    ],
)
def test_files_of_something_else_are_named(copy, name, content, message):
    forget(copy)
    (copy / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_policy(copy)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_missing_or_damaged_are_named(copy, name):
    change, message = FILES[name]
    change(copy)
    with pytest.raises(ValueError, match=message):
        load_policy(copy)


@pytest.mark.slow
def test_a_run_is_evaluated_without_its_demonstrations(run, tmp_path):
    """The data file was deleted when training ended, and the run is somewhere else."""
    copy = Path(shutil.copytree(run, tmp_path / "elsewhere"))
    session = load_run(copy, task=arm())
    result = session.evaluate(episodes=4, seed=3)
    assert result == load_run(run, task=arm()).evaluate(episodes=4, seed=3)
    assert result.lengths == [6] * 4
    (copy / "statistics.json").unlink()
    with pytest.raises((ValueError, OSError), match="no data file at"):
        load_run(copy, task=arm())


@pytest.mark.slow
def test_evaluation_writes_the_interface_of_runs_that_have_none(copy):
    expected = json.loads((copy / "policy.json").read_text())
    (copy / "policy.json").unlink()
    load_run(copy, task=arm())
    assert json.loads((copy / "policy.json").read_text()) == expected
