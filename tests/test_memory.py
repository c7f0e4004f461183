"""Memory is planned before a run, and data is not held twice."""

import dataclasses
import gc
import itertools
import tracemalloc
import weakref

import numpy as np
import pytest

from exporl.data import memory
from exporl.data.columns import Column, proposal_columns, return_bound
from exporl.data.episodes import Episode, Normalizer
from exporl.data.formats import load_episodes, save_npz
from exporl.data.memory import ReplayPlan, available_bytes, row_bytes
from exporl.data.replay import Replay, rows_needed
from exporl.run.build import given_away
from exporl.run.config import override
from exporl.run.loop import train
from exporl.run.presets import preset_config
from exporl.types import Spec

SPECS = [
    Spec((("state", (39,), "float32"),), action_dim=4),
    Spec(
        (("image", (8, 9, 3), "uint8"), ("state", (2,), "float32"), ("depth", (4,), "float16")),
        action_dim=7,
    ),
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("num_proposals", [0, 4])
def test_bytes_per_row_are_those_of_the_arrays(spec, num_proposals):
    spec = dataclasses.replace(spec, chunk_length=3)
    columns = proposal_columns(num_proposals, spec)
    if num_proposals:
        columns |= {"return_bound": return_bound(0.9, worst=-10.0), "flag": Column((2, 3), "bool")}
    replay = Replay(spec, 1000, num_streams=3, columns=columns)
    stored = sum(array.nbytes for array in replay._arrays().values() if array.ndim > 1)
    assert stored + replay.holder.nbytes == 3 * 1000 * row_bytes(spec, columns)


def test_the_plan_in_words():
    plan = ReplayPlan(row_bytes=1000, prior_rows=2_000, online_rows=5_000, num_streams=2)
    assert (
        str(plan)
        == "replay: 12,000 rows x 1,000 B = 12.0 MB (prior 2,000 rows 2.0 MB, online, when full, "
        "10,000 rows 10.0 MB)"
    )
    assert "prior" not in str(ReplayPlan(10, 0, 5))
    plan.check(None)
    plan.check(12_000_000)
    with pytest.raises(
        ValueError, match=r"12.0 MB .* only 8.0 MB .* available. Set data.capacity to at most 3000,"
    ):
        plan.check(8_000_000)
    with pytest.raises(ValueError, match=r"Read less of the file with data.demos"):
        plan.check(1_000_000)


def test_the_advice_fits():
    plan = ReplayPlan(row_bytes=777, prior_rows=123, online_rows=10**9, num_streams=3)
    with pytest.raises(ValueError) as refused:
        plan.check(10**9)
    rows = int(str(refused.value).split("at most ")[1].split(",")[0])
    ReplayPlan(777, 123, rows, 3).check(10**9)
    with pytest.raises(ValueError):
        ReplayPlan(777, 123, rows + 1, 3).check(10**9)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (123_456_789, "123 MB"), (2e9, "2.0 GB")],
)
def test_sizes_in_words(count, text):
    assert memory.size(count) == text


def test_available_memory(tmp_path):
    assert available_bytes() is None or 10**7 < available_bytes() < 10**14
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:   7 kB\n")
    assert memory._meminfo(tmp_path / "meminfo") == 7 * 1024
    assert memory._meminfo(tmp_path / "gone") is None
    assert memory._groups(tmp_path) == [None, None]
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert memory._groups(tmp_path) == [600, None]
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._groups(tmp_path) == [None, None]


def test_the_tightest_limit_counts(monkeypatch):
    monkeypatch.setattr(memory, "_meminfo", lambda: 500)
    monkeypatch.setattr(memory, "_groups", lambda: [None, 300])
    assert available_bytes() == 300
    monkeypatch.setattr(memory, "_groups", lambda: [None, None])
    assert available_bytes() == 500
    monkeypatch.setattr(memory, "_meminfo", lambda: None)
    monkeypatch.setattr(memory, "_physical", lambda: 900)
    assert available_bytes() == 900


class Heard:
    def __init__(self):
        self.lines = []

    def phase(self, name, total, done): ...

    def advance(self, steps, note): ...

    def say(self, message):
        self.lines.append(message)


def bandit_run(**changes):
    changes = {
        "train.offline_steps": 1,
        "train.online_steps": 2,
        "eval.episodes": 1,
        "data.demos": 5,
        **changes,
    }
    return override(preset_config("expo", "tiny", task="probe/bandit"), changes)


@pytest.mark.slow
def test_a_run_prints_its_plan_first(tmp_path):
    heard = Heard()
    train(bandit_run(), tmp_path / "run", heard)
    (line,) = [line for line in heard.lines if line.startswith("replay:")]
    bytes_per_row = 2 * 4 + 4 + 4 + 5 + 4
    # 5 episodes of one step and one row for the head
    assert f"x {bytes_per_row} B" in line and "prior 11 rows" in line
    assert heard.lines.index(line) < min(
        i for i, text in enumerate(heard.lines) if "evaluation" in text
    )


def test_a_run_that_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("exporl.run.build.available_bytes", lambda: 400)
    with pytest.raises(ValueError, match=r"needs at least .* of memory, and 400 B are available"):
        train(bandit_run(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_replay_that_no_longer_fits_is_refused(tmp_path, monkeypatch):
    """Something else took the memory while demonstrations were collected."""
    left = itertools.chain([2**40, 400], itertools.repeat(2**40))
    monkeypatch.setattr("exporl.run.build.available_bytes", lambda: next(left))
    changes = {"train.online_steps": 100}
    with pytest.raises(
        ValueError, match=r"replay: .* but only 400 B of memory are available. Set data.capacity to"
    ):
        train(bandit_run(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    train(bandit_run(**changes | {"data.capacity": 6, "train.online_steps": 2}), tmp_path / "other")


@pytest.fixture(scope="module")
def large(tmp_path_factory, quiet):
    """An archive of 100 MB once unpacked, its size unpacked, and the peak while it was written."""
    path, steps, dim = tmp_path_factory.mktemp("data") / "large.npz", 500, 244
    rng = np.random.default_rng(0)

    def episodes():
        for _ in range(100):
            state = np.repeat(rng.normal(size=(1, dim)).astype(np.float32), steps + 1, axis=0)
            zeros = np.zeros(steps, np.float32)
            yield Episode(
                {"state": state}, np.zeros((steps, 4), np.float32), zeros, zeros > 0, True
            )

    tracemalloc.start()
    save_npz(path, episodes())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return path, 100 * steps * (2 * dim + 4 + 3) * 4, peak


@pytest.mark.slow
def test_a_file_is_not_held_twice(large):
    """Writing holds one episode; reading, normalising and the prior replay together hold the file
    about once."""
    path, content, peak = large
    assert content > 95e6 and peak < 0.05 * content, (
        f"writing took {peak / content:.2f} x the content"
    )
    tracemalloc.start()
    try:
        episodes = load_episodes(path)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 1.2 * content, f"reading took {peak / content:.2f} x the content"
        normalizer = Normalizer.fit(episodes)
        replay = Replay.from_episodes(
            Spec((("state", (244,), "float32"),), 4), episodes, float, transform=normalizer
        )
        _, peak = tracemalloc.get_traced_memory()
        assert len(replay) == 50_000 and peak < 1.2 * content, (
            f"all took {peak / content:.2f} x the content"
        )
        del episodes
        assert tracemalloc.get_traced_memory()[0] < 0.6 * content
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_few_episodes_of_a_large_file_do_not_keep_it_in_memory(large):
    path, content, _ = large
    tracemalloc.start()
    try:
        episodes = load_episodes(path, 3)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(episodes) == 3 and held < 0.05 * content


@pytest.mark.slow
def test_episodes_are_let_go_as_the_replay_fills():
    """An HDF5 file of half the memory can be trained on: at no time are two episodes alive beside
    the replay."""
    spec = Spec((("state", (2,), "float32"),), action_dim=1)
    made = [
        Episode(
            {"state": np.full((5, 2), seed, np.float32)},
            np.zeros((4, 1), np.float32),
            np.zeros(4, np.float32),
            np.zeros(4, bool),
            True,
        )
        for seed in range(5)
    ]
    whole = Replay.from_episodes(spec, made, float)
    alive = []

    def transform(observations):
        gc.collect()
        alive.append(sum(reference() is not None for reference in references))
        return observations

    references = [weakref.ref(e) for e in made]
    given = given_away(made)
    replay = Replay.from_episodes(
        spec, given, float, rows=rows_needed(spec, [4] * 5), transform=transform
    )
    assert made == [] and alive == [5, 4, 3, 2, 1]
    for name, values in whole.state().items():
        np.testing.assert_array_equal(replay.state()[name], values)
