"""Recorded episodes: what validation refuses and how it says so, fingerprints, observation
statistics."""

import json

import numpy as np
import pytest

from exporl.data.episodes import Episode, Normalizer, fingerprint, validate_episodes
from exporl.types import Spec
from helpers.episodes import random_episode

SPEC = Spec((("image", (2, 2, 3), "uint8"), ("state", (3,), "float32")), action_dim=2)


def recorded(length: int = 4, seed: int = 0, **changes) -> Episode:
    return random_episode(length, seed, image=(2, 2, 3), **changes)


def put(array: np.ndarray, index, value) -> np.ndarray:
    result = array.copy()
    result[index] = value
    return result


def with_entry(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    return {**recorded().observations, name: value}


def test_length_and_success():
    assert len(recorded(7)) == 7
    assert recorded().success is True
    assert recorded(successes=np.array([False, True, False, False])).success is True
    assert recorded(successes=np.zeros(4, bool)).success is False


def test_good_episodes_pass():
    on_the_edge = recorded(actions=np.array([[1.0, -1.0]] * 4, np.float32))
    assert validate_episodes([recorded(), recorded(1), on_the_edge], SPEC) is None
    extra = recorded(observations=with_entry("unused", np.full((5, 1), np.nan)))
    assert validate_episodes([extra], SPEC) is None


STATE, ACTIONS, REWARDS = recorded().observations["state"], recorded().actions, recorded().rewards
BAD_EPISODES = {
    "no steps": (recorded(0), "no steps"),
    "action dimensions": (
        {"actions": ACTIONS[:, :1]},
        r"actions has shape \(4, 1\), the task needs \(4, 2\)",
    ),
    "float images": (
        {"observations": with_entry("image", np.full((5, 2, 2, 3), 0.5))},
        r"observations\['image'\] is float64, the task needs uint8",
    ),
    "rewards": ({"rewards": REWARDS[:3]}, r"rewards has shape \(3,\), the task needs \(4,\)"),
    "reward columns": (
        {"rewards": REWARDS[:, None]},
        r"rewards has shape \(4, 1\), the task needs \(4,\)",
    ),
    "successes": (
        {"successes": np.zeros(5, bool)},
        r"successes has shape \(5,\), the task needs \(4,\)",
    ),
    "missing entry": (
        {"observations": {"state": STATE}},
        r"observation 'image' is missing; found \['state'\]",
    ),
    "no last observation": (
        {"observations": with_entry("state", STATE[:4])},
        r"observations\['state'\] has shape \(4, 3\), the task needs \(5, 3\)",
    ),
    "observation dimensions": (
        {"observations": with_entry("state", STATE[:, :2])},
        r"observations\['state'\] has shape \(5, 2\), the task needs \(5, 3\)",
    ),
    "nan observation": (
        {"observations": with_entry("state", put(STATE, (4, 1), np.nan))},
        r"observations\['state'\] row 4 holds NaN or infinity",
    ),
    "infinite observation": (
        {"observations": with_entry("state", put(STATE, (0, 2), -np.inf))},
        r"observations\['state'\] row 0 holds NaN or infinity",
    ),
    "nan action": (
        {"actions": put(ACTIONS, (2, 1), np.nan)},
        "actions row 2 holds NaN or infinity",
    ),
    "infinite reward": (
        {"rewards": put(REWARDS, 3, np.inf)},
        "rewards row 3 holds NaN or infinity",
    ),
    "large action": (
        {"actions": put(put(ACTIONS, (1, 0), -1.25), (3, 0), 4)},
        r"actions row 1 reaches 1.25, outside \[-1, 1\]",
    ),
}


@pytest.mark.parametrize("name", BAD_EPISODES)
def test_a_bad_episode_is_named(name):
    changes, message = BAD_EPISODES[name]
    bad = changes if isinstance(changes, Episode) else recorded(**changes)
    with pytest.raises(ValueError, match=f"^some/file.npz, episode 2: {message}"):
        validate_episodes([recorded(), recorded(6), bad, recorded()], SPEC, "some/file.npz")


def test_no_episodes():
    with pytest.raises(ValueError, match=r"^some/file\.npz has no episodes"):
        validate_episodes([], SPEC, "some/file.npz")


FIELDS = {
    "image": {"observations": with_entry("image", recorded().observations["image"] ^ 1)},
    "state": {"observations": with_entry("state", put(STATE, (4, 2), STATE[4, 2] + 1e-5))},
    "entry name": {"observations": {"pixels": recorded().observations["image"], "state": STATE}},
    "dtype": {"observations": with_entry("state", STATE.view(np.int32))},
    "shape": {"actions": ACTIONS.reshape(2, 4)},
    "actions": {"actions": put(ACTIONS, (0, 0), -ACTIONS[0, 0])},
    "rewards": {"rewards": put(REWARDS, 3, 0)},
    "successes": {"successes": np.array([True, False, False, True])},
    "terminated": {"terminated": False},
}


@pytest.mark.parametrize("name", FIELDS)
def test_fingerprint_sees_every_field(name):
    assert fingerprint([recorded(), recorded(**FIELDS[name])]) != fingerprint(
        [recorded(), recorded()]
    )


def test_fingerprint_sees_order_and_number_but_not_memory_layout():
    one, two = recorded(), recorded(seed=1)
    assert fingerprint([one, two]) == fingerprint(iter([recorded(), recorded(seed=1)]))
    assert (
        len(
            {fingerprint(chosen) for chosen in ([one, two], [two, one], [one], [one, two, two], [])}
        )
        == 5
    )
    assert fingerprint([recorded(actions=np.asfortranarray(ACTIONS))]) == fingerprint([one])


def test_statistics_are_those_of_all_observations():
    episodes = [recorded(9, seed=2), recorded(3, seed=3)]
    states = np.concatenate([e.observations["state"] for e in episodes]).astype(np.float64)
    normalizer = Normalizer.fit(episodes)
    np.testing.assert_allclose(normalizer.mean["state"], states.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std["state"], states.std(axis=0), rtol=1e-6)
    scaled = np.concatenate([normalizer(e.observations)["state"] for e in episodes])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-5)


def test_constant_entries_get_the_smallest_scale_and_outliers_are_clipped():
    constant = recorded(observations=with_entry("state", np.full((5, 3), 7, np.float32)))
    normalizer = Normalizer.fit([constant], min_std=0.5, clip=3.0)
    np.testing.assert_array_equal(normalizer.std["state"], 0.5)
    got = normalizer(
        {"image": np.zeros((2, 2, 3), np.uint8), "state": np.array([7.25, 1e6, -1e6])}
    )["state"]
    np.testing.assert_array_equal(got, np.array([0.5, 3, -3], np.float32))


def test_leading_axes_do_not_matter():
    normalizer, e = Normalizer.fit([recorded(seed=2)]), recorded(seed=4)
    together = normalizer(e.observations)["state"]
    alone = [
        normalizer({name: values[t] for name, values in e.observations.items()})["state"]
        for t in range(5)
    ]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_images_and_inputs_are_left_alone():
    e = recorded()
    before = {name: values.copy() for name, values in e.observations.items()}
    normalizer = Normalizer.fit([e])
    assert set(normalizer.mean) == set(normalizer.std) == {"state"}
    result = normalizer(e.observations)
    assert result["image"] is e.observations["image"]
    assert not np.array_equal(result["state"], before["state"])
    for name, values in before.items():
        np.testing.assert_array_equal(e.observations[name], values)


def test_json_round_trip_is_exact():
    normalizer = Normalizer.fit([recorded(50, seed=5)], clip=4.5)
    restored = Normalizer.from_json(json.loads(json.dumps(normalizer.to_json())))
    assert restored.clip == 4.5
    for got, expected in ((restored.mean, normalizer.mean), (restored.std, normalizer.std)):
        assert got.keys() == expected.keys()
        assert got["state"].dtype == np.float32
        np.testing.assert_array_equal(got["state"], expected["state"])
    e = recorded(seed=6)
    np.testing.assert_array_equal(
        restored(e.observations)["state"], normalizer(e.observations)["state"]
    )
