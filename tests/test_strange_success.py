"""What counts as success where a file does not record it, and what becomes of a success in a last
row without an outcome: nothing is guessed from the sign of a reward, nothing is lost in silence."""

import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data.episodes import validate_episodes
from exporl.data.formats import load_episodes, load_npz, save_npz
from exporl.data.formats.success import from_rewards
from exporl.data.from_arrays import from_arrays
from exporl.spec import Spec
from helpers.recordings import (
    ROWS,
    flat,
    heard,
    leading_on,
    marks,
    steps,
    write_dataset,
    write_hdf5,
    write_lerobot,
    write_npz,
    write_robomimic,
)

pytest.importorskip("h5py")
pytest.importorskip("pyarrow")
SPEC = Spec((("state", (2,), "float32"),), action_dim=1)

ASKED = {
    "a distance": [-3.0, -2.0, -1.0, 0.0],
    "a distance that is never zero": [-3.0, -2.0, -1.0, -0.5],
    "a kernel of the distance": [0.3, 0.5, 0.7, 0.9],
    "a bonus for being alive": [1.0, 1.0, 1.0, 1.0],
    "minus one per step": [-1.0, -1.0, -1.0, 0.0],
    "one half at the end": [0.0, 0.0, 0.0, 0.5],
    "one hundred at the end": [0.0, 0.0, 0.0, 100.0],
    "subtasks": [0.0, 1.0, 0.0, 1.0],
    "contact": [0.0, 1.0, 1.0, 0.0],
    "stages": [0.0, 1.0, 2.0, 3.0],
    "a cost and a bonus": [-0.1, -0.1, -0.1, 1.0],
    "tiny": [0.0, 1e-9, 0.0, 0.0],
}
TOLD = {"at the end": [0, 0, 0, 1], "on the way": [0, 1, 0, 0], "never": [0, 0, 0, 0]}


@pytest.mark.parametrize("name", ASKED)
def test_dense_rewards_are_no_guess_in_any_format(tmp_path, name):
    rewards = np.array(ASKED[name], np.float32)
    one = {
        "observations": steps((4,)),
        "next_observations": steps((4,)) + 1,
        "rewards": rewards,
        "actions": np.zeros((4, 1), np.float32),
        "terminals": [0, 0, 0, 1],
    }
    found = [
        load_episodes(write_npz(tmp_path / "a.npz", one | {"episode_ends": [4]})),
        load_episodes(write_hdf5(tmp_path / "a.hdf5", one)),
        load_episodes(write_dataset(tmp_path / "a-v0", rewards=rewards, infos=None)),
        load_episodes(
            write_lerobot(
                tmp_path / "l",
                next__reward=rewards,
                next__done=[0, 0, 0, 1],
                next__truncated=[0, 0, 0, 0],
            )
        ),
        from_arrays(one | {"episode_ends": [4]}),
    ]
    if not set(ASKED[name]) <= {0, 1}:  # robomimic promises that 1 is success, in every step of it
        path = write_robomimic(tmp_path / "r.hdf5", rewards=rewards, terminated=[0, 0, 0, 1])
        found.append(load_episodes(path))
    for episodes in found:
        assert not episodes[0].success and len(episodes[0]) == 4
        assert "success is not recorded, and the rewards do not tell it" in episodes[0].question
        assert f"in {int((rewards > 0).sum())} of 4 steps" in episodes[0].question
        if episodes[0].actions.shape[1] == 1 and "state" in episodes[0].observations:
            with pytest.raises(ValueError, match=r"a\.npz, episode 0: success is not recorded"):
                validate_episodes(episodes, SPEC, "a.npz")


@pytest.mark.parametrize("name", TOLD)
def test_a_single_reward_of_one_is_a_success(tmp_path, name):
    rewards = np.array(TOLD[name], np.float32)
    for episode in (
        from_arrays(
            flat(
                observations=steps((4,)),
                actions=np.zeros((4, 1)),
                rewards=rewards,
                terminals=np.zeros(4),
                next_observations=steps((4,)) + 1,
                episode_ends=[4],
            )
        )[0],
        load_episodes(write_dataset(tmp_path / "a-v0", rewards=rewards, infos=None))[0],
    ):
        assert episode.successes.astype(int).tolist() == TOLD[name] and not episode.question


def test_robomimic_promises_that_one_is_success(tmp_path):
    stays = load_episodes(
        write_robomimic(tmp_path / "a.hdf5", rewards=[0, 1, 1, 1], dones=[0, 1, 1, 1])
    )
    assert stays[0].successes.tolist() == [False, True, True, True] and stays[0].terminated
    assert from_rewards(np.array([0.0, 1.0, 1.0]), several=True)[1] == ""


FLAGS = {
    "successes": ({"successes": [0, 0, 1, 0]}, {}),
    "success per step": ({"success": [0, 0, 1, 0]}, {}),
    "is_success": ({"is_success": [False, False, True, False]}, {}),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_demonstrations_are_believed(tmp_path, name):
    changes, attributes = FLAGS[name]
    path = write_robomimic(
        tmp_path / "a.hdf5", attributes=attributes, rewards=[0.1, 0.2, 0.3, 0.4], **changes
    )
    episode = load_episodes(path)[0]
    assert episode.successes.tolist() == [False, False, True] and not episode.question


def test_a_demonstration_that_its_file_calls_a_success_ends_in_one(tmp_path):
    path = write_robomimic(tmp_path / "a.hdf5", attributes={"success": True}, rewards=None)
    episode = load_episodes(path)[0]
    assert episode.successes.tolist() == [False] * 3 + [True] and episode.terminated
    path = write_robomimic(
        tmp_path / "b.hdf5", attributes={"success": False}, rewards=[1, 1, 1, 0.5]
    )
    failed = load_episodes(path)[0]
    assert not failed.success and not failed.question and len(failed) == 3


def test_what_is_not_known_is_written_as_not_known(tmp_path):
    """A question survives every format: it must not come back as a failure."""
    asked = from_arrays(
        flat(
            rewards=np.linspace(0.1, 0.9, ROWS),
            timeouts=marks(3, 11),
            next_observations=leading_on(),
        )
    )
    save_npz(tmp_path / "a.npz", asked)
    assert main(["data", "convert", str(tmp_path / "a.npz"), str(tmp_path / "b.hdf5")]) == 0
    assert main(["data", "convert", str(tmp_path / "a.npz"), str(tmp_path / "c-v0")]) == 0
    for path in ("a.npz", "b.hdf5", "c-v0"):
        assert all("do not tell it" in e.question for e in load_episodes(tmp_path / path)), path
    known = from_arrays(
        flat(
            rewards=np.linspace(0.1, 0.9, ROWS),
            successes=marks(7),
            timeouts=marks(3, 11),
            next_observations=leading_on(),
        )
    )
    save_npz(tmp_path / "both.npz", [*asked, *known])
    back = load_npz(tmp_path / "both.npz")
    assert [bool(e.question) for e in back] == [True] * 3 + [False] * 3 and back[4].success


def test_inspect_and_validate_say_what_is_not_known(tmp_path, capsys):
    path = str(
        write_npz(tmp_path / "a.npz", flat(rewards=np.full(ROWS, 0.5), timeouts=marks(3, 11)))
    )
    assert main(["data", "inspect", path]) == 0
    out = capsys.readouterr().out
    assert "0 of 3 (0%); not recorded in 3, whose rewards do not tell it" in out
    assert "custom_task(..., success=function of (reward, terminated, info))" in out
    assert main(["data", "validate", path]) == 0
    assert "note: 3 x, first in episode 0: success is not recorded" in capsys.readouterr().out


# The last row.


def lost(tmp_path, **changes):
    return heard(write_npz(tmp_path / "a.npz", flat(**changes)))


def test_a_true_end_in_the_last_row_is_kept(tmp_path):
    """Nothing is bootstrapped from a true end, so its own observation may stand for the outcome."""
    arrays = {"rewards": marks(7).astype(np.float32), "timeouts": marks(3, 11)}
    for write, name in ((write_npz, "a.npz"), (write_hdf5, "a.hdf5")):
        episodes = load_episodes(write(tmp_path / name, flat(**arrays)))
        assert [len(e) for e in episodes] == [3, 4, 3] and [e.success for e in episodes] == [
            0,
            1,
            0,
        ]
        np.testing.assert_array_equal(episodes[1].observations["state"][-2:], [[103, 3], [103, 3]])


LOST = "the last step is left out: the observation after it is not recorded, and with it a success"


def test_what_had_to_be_left_out_is_said(tmp_path, capsys):
    arrays = flat(rewards=marks(3, 11).astype(np.float32), timeouts=marks(3, 11))
    for write, name in ((write_npz, "a.npz"), (write_hdf5, "a.hdf5")):
        path = write(tmp_path / name, arrays)
        _, said = heard(path)
        assert f"2 x, first in episode 0: {LOST}" in said
        assert main(["data", "inspect", str(path)]) == 0
        out = capsys.readouterr().out
        assert "0 of 3 (0%); 2 more in last steps that had to be left out" in out
        assert "no rewards in this file" not in out
        assert main(["data", "validate", str(path)]) == 0
        assert f"note: 2 x, first in episode 0: {LOST}" in capsys.readouterr().out


def test_what_had_to_be_left_out_of_other_formats_is_said(tmp_path):
    bare = flat(terminals=None, rewards=marks(3, 7, 11).astype(np.float32), episode_ends=[4, 8, 12])
    assert f"3 x, first in episode 0: {LOST}" in heard(write_npz(tmp_path / "a.npz", bare))[1]
    flags = bare | {"rewards": np.zeros(ROWS), "successes": marks(7)}
    assert f"1 x, first in episode 1: {LOST}" in heard(write_npz(tmp_path / "b.npz", flags))[1]
    demo = write_robomimic(tmp_path / "r.hdf5", rewards=[0, 0, 0, 1])
    assert f"2 x, first in demo_0: {LOST}" in heard(demo)[1]
    play = flat(
        rewards=marks(3).astype(np.float32), terminals=marks(3, 7, 11), qpos=np.zeros((ROWS, 3))
    )
    assert f"1 x, first in trajectory 0: {LOST}" in heard(write_npz(tmp_path / "o.npz", play))[1]
    frames = write_lerobot(tmp_path / "l", next__reward=[0.0, 0, 0, 2], next__done=[0, 0, 0, 1])
    assert f"1 x, first in episode 0: {LOST}" in heard(frames)[1]
    nothing = write_robomimic(tmp_path / "n.hdf5", rewards=None)
    assert (
        "the last step is left out: the observation after it is not recorded." in heard(nothing)[1]
    )


def test_rewards_that_cancel_are_rewards(tmp_path, capsys):
    rewards = np.tile([1.0, -1.0, 1.0, -1.0], 3)
    arrays = flat(
        rewards=rewards,
        timeouts=marks(3, 11),
        next_observations=leading_on(),
        successes=np.zeros(ROWS),
    )
    save_npz(tmp_path / "a.npz", from_arrays(arrays))
    assert main(["data", "inspect", str(tmp_path / "a.npz")]) == 0
    assert "no rewards in this file" not in capsys.readouterr().out


# How many of a file's episodes are used, and how they end.


def test_how_many_of_how_many_are_used_is_said(tmp_path):
    path = write_npz(tmp_path / "a.npz", flat(timeouts=marks(3, 11)))
    episodes, said = heard(path, limit=2)
    assert len(episodes) == 2 and "a.npz: 2 of its 3 episodes are used" in said
    assert "episodes are used" not in heard(path)[1] + heard(path, limit=3)[1]


def test_where_no_demonstration_succeeds_it_is_said(tmp_path):
    path = write_npz(tmp_path / "a.npz", flat(timeouts=marks(3, 11)))
    _, said = heard(path, adapt=lambda episode: episode)
    assert "none of the 3 episodes used is a success. Record success" in said


@pytest.mark.parametrize("write", [write_npz, write_hdf5], ids=["npz", "hdf5"])
def test_episodes_that_all_end_as_terminated_at_one_length(tmp_path, capsys, write):
    path = tmp_path / f"a.{'npz' if write is write_npz else 'hdf5'}"
    write(path, flat(terminals=marks(3, 7, 11), timeouts=np.zeros(ROWS)))
    assert main(["data", "validate", str(path)]) == 0
    assert (
        "3 of 3 episodes end as terminated after 4 steps, without success"
        in capsys.readouterr().out
    )
    assert main(["data", "inspect", str(path)]) == 0
    assert "A time limit?" in capsys.readouterr().out
    solved = marks(3, 7, 11).astype(np.float32)
    write(path, flat(terminals=marks(3, 7, 11), timeouts=np.zeros(ROWS), rewards=solved))
    assert main(["data", "validate", str(path)]) == 0
    assert "without success" not in capsys.readouterr().out
