"""Files made to show another file's content or to fill the memory, pointers that stand for a file,
and layouts that nothing here reads: refused with what it is and a way on, before anything is
unpacked."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from exporl.cli.main import main
from exporl.data.formats import ReadOptions, load_episodes
from exporl.data.formats.archives import read_archive
from exporl.data.formats.limits import EXPANSION, FREE_BYTES, check_size
from helpers.hostile import bomb
from helpers.recordings import (
    flat,
    leading_on,
    refusal,
    steps,
    write_dataset,
    write_hdf5,
    write_lerobot,
    write_npz,
    write_robomimic,
)

h5py = pytest.importorskip("h5py")
pytest.importorskip("pyarrow")
SECRET = np.full((4, 2), 42.0)
MOST = 64 * 2**20
"""Bytes that a refusal may take."""


@pytest.fixture
def secret(tmp_path) -> Path:
    """Somebody else's file, and its numbers as raw bytes beside it."""
    (tmp_path / "secret.bin").write_bytes(SECRET.astype(np.float64).tobytes())
    return write_hdf5(tmp_path / "secret.hdf5", {"private": SECRET, "group/private": SECRET})


def external_link(parent, name: str, secret: Path) -> None:
    parent[name] = h5py.ExternalLink(str(secret), "/private")


def external_storage(parent, name: str, secret: Path) -> None:
    raw = [(str(secret.with_suffix(".bin")), 0, SECRET.nbytes)]
    parent.create_dataset(name, SECRET.shape, "f8", external=raw)


def virtual_data(parent, name: str, secret: Path) -> None:
    layout = h5py.VirtualLayout(SECRET.shape, "f8")
    layout[:] = h5py.VirtualSource(str(secret), "private", SECRET.shape)
    parent.create_virtual_dataset(name, layout)


def soft_link_out(parent, name: str, secret: Path) -> None:
    """A link within the file, to a link out of it."""
    parent.file["away"] = h5py.ExternalLink(str(secret), "/group")
    parent[name] = h5py.SoftLink("/away/private")


def long_way(parent, name: str, secret: Path) -> None:
    parent.file["step"] = h5py.SoftLink("/out")
    parent.file["out"] = h5py.ExternalLink(str(secret), "/private")
    parent[name] = h5py.SoftLink("/step")


WAYS = (external_link, external_storage, virtual_data, soft_link_out, long_way)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    "where", ["obs/object", "actions", "rewards", "states", "infos/x", "next_obs/object"]
)
def test_nothing_is_read_from_another_file(tmp_path, secret, way, where):
    path = write_robomimic(
        tmp_path / "r.hdf5", 1, next_obs__object=steps((4,)) + 1, states=np.zeros((4, 2))
    )
    with h5py.File(path, "a") as file:
        demo = file["data/demo_0"]
        if where in demo:
            del demo[where]
        group, _, name = where.rpartition("/")
        way(demo.require_group(group) if group else demo, name, secret)
    said = refusal(load_episodes, path)
    assert str(path) in said and "secret" in said
    assert "is not followed" in said or "is not opened" in said


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_read_from_another_file_in_other_formats(tmp_path, secret, way):
    for name in ("observations", "rewards", "timeouts", "next_observations", "infos/qpos"):
        path = write_hdf5(tmp_path / "d.hdf5", flat(**{name: None} if name in flat() else {}))
        with h5py.File(path, "a") as file:
            group, _, last = name.rpartition("/")
            way(file.require_group(group) if group else file, last, secret)
        assert "secret" in (said := refusal(load_episodes, path)) and "d.hdf5" in said, name
    for name in ("observations", "rewards", "truncations", "infos/qpos"):
        folder = write_dataset(tmp_path / f"{way.__name__}-{name.replace('/', '-')}-v0")
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            group, _, last = f"episode_0/{name}".rpartition("/")
            if last in file.require_group(group):
                del file[group][last]
            way(file[group], last, secret)
        assert "secret" in refusal(load_episodes, folder), name


def test_a_whole_group_or_a_mask_elsewhere(tmp_path, secret):
    path = write_robomimic(tmp_path / "r.hdf5", 1)
    with h5py.File(path, "a") as file:
        file["data/demo_1"] = h5py.ExternalLink(str(secret), "/group")
        file["mask/train"] = h5py.ExternalLink(str(secret), "/private")
    assert "demo_1 is a link to /group in another file" in refusal(load_episodes, path)
    assert "train is a link to /private in another file" in refusal(
        load_episodes, path, options=ReadOptions(filter_key="train")
    )
    with h5py.File(path, "a") as file:
        del file["data"]
        file["data"] = h5py.ExternalLink(str(secret), "/group")
    assert "data is a link to /group in another file" in refusal(load_episodes, path)


def test_links_within_the_file_are_followed(tmp_path):
    path = write_robomimic(tmp_path / "r.hdf5", 1)
    with h5py.File(path, "a") as file:
        demo = file["data/demo_0"]
        demo.move("obs/object", "kept")
        demo["obs/object"] = h5py.SoftLink("/data/demo_0/kept")
        demo["obs/near"] = h5py.SoftLink("object")
        demo["obs/nowhere"] = h5py.SoftLink("/gone")
        file["data/demo_1"] = h5py.SoftLink("demo_0")
    assert [set(e.observations) for e in load_episodes(path)] == [{"object", "near"}] * 2
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/round"] = h5py.SoftLink("/data/demo_0/obs/round")
    assert "is a link that leads through more than" in refusal(load_episodes, path)


def test_a_group_that_contains_itself_many_times_ends(tmp_path):
    path = write_robomimic(tmp_path / "r.hdf5", 1)
    with h5py.File(path, "a") as file:
        for index in range(30):
            file["data/demo_0/obs"][f"again{index}"] = file["data/demo_0/obs"]
    said = refusal(load_episodes, path)
    assert "deep" in said or "arrays. The file is damaged" in said


# Sizes.


def peak(act, *args, **options) -> tuple[str, int]:
    tracemalloc.start()
    try:
        return refusal(act, *args, **options), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


COUNT = 40 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["observations", "actions", "successes", "unrelated"])
def test_an_archive_of_zeros_is_refused_before_it_is_unpacked(tmp_path, name):
    arrays = {n: np.asarray(v) for n, v in flat(timeouts=np.ones(12)).items() if n != name}
    path = bomb(tmp_path / "a.npz", name, COUNT, **arrays)
    assert path.stat().st_size < 2**20
    for format_name in ("arrays", "ogbench", "pusht"):
        said, most = peak(load_episodes, path, format_name=format_name)
        assert (
            f"{path}: {name} claims {COUNT * 8} bytes and stores" in said
            and str(FREE_BYTES) in said
        )
        assert most < MOST


@pytest.mark.slow
def test_many_small_arrays_of_zeros_are_refused_together(tmp_path):
    """Every one of them is allowed by itself, and all share what is packed."""
    path, packed = tmp_path / "a.npz", io.BytesIO()
    np.save(packed, np.zeros((FREE_BYTES // 8 - 64, 1)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"x{index}.npy", packed.getbuffer())
    del packed
    said, most = peak(read_archive, path)
    assert "all of it claims" in said and most < MOST


def test_a_header_that_lies_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("actions.npy", "w") as member:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(bytes(80))
    said, most = peak(read_archive, path)
    assert "actions states 8000000000000 bytes, there are 80" in said and most < MOST


ZEROS = (400_000_000, 1)


@pytest.mark.parametrize("chunks", [(2**20, 1), None], ids=["packed", "never written"])
def test_hdf5_of_zeros_is_refused_before_it_is_unpacked(tmp_path, chunks):
    def zeros(parent, name):
        if name in parent:
            del parent[name]
        parent.create_dataset(
            name, ZEROS, "f8", chunks=chunks, compression="gzip" if chunks else None
        )

    for name in ("observations", "actions", "infos/qpos"):
        path = write_hdf5(tmp_path / "d.hdf5", flat(timeouts=np.ones(12)))
        with h5py.File(path, "a") as file:
            group, _, last = name.rpartition("/")
            zeros(file.require_group(group) if group else file, last)
        said, most = peak(load_episodes, path)
        assert f"{name} claims {8 * ZEROS[0]} bytes and stores" in said and most < MOST
    path = write_robomimic(tmp_path / "r.hdf5", 1)
    with h5py.File(path, "a") as file:
        zeros(file["data/demo_0"], "obs/object")
    said, most = peak(load_episodes, path)
    assert "obs/object claims" in said and most < MOST
    folder = write_dataset(tmp_path / f"{chunks is None}-v0")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        zeros(file["episode_0"], "observations")
    said, most = peak(load_episodes, folder)
    assert "state and 1 more arrays claims 32000000" in said and most < MOST


def test_one_enormous_chunk_is_refused(tmp_path):
    """A few rows of it would unpack the whole chunk."""
    path = write_hdf5(tmp_path / "d.hdf5", flat(timeouts=np.ones(12), observations=None))
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "observations", (12, 1), "f8", maxshape=(None, 1), chunks=(2**27, 1), compression="gzip"
        )
    said, most = peak(load_episodes, path)
    assert "a chunk of observations claims 1073741824 bytes" in said and most < MOST


def test_one_array_under_many_names_is_counted_every_time(tmp_path):
    path = write_robomimic(tmp_path / "r.hdf5", 1)
    with h5py.File(path, "a") as file:
        demo = file["data/demo_0"]
        wide = demo.create_dataset(
            "obs/wide", (4, 2**20), "f8", chunks=(4, 2**10), compression="gzip"
        )
        for index in range(12):
            demo[f"obs/wide{index}"] = wide
    said, most = peak(load_episodes, path)
    assert "more arrays claims" in said and most < MOST


def test_repeated_rows_of_a_table_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("exporl.data.formats.limits.FREE_BYTES", 1000)
    monkeypatch.setattr("exporl.data.formats.limits.EXPANSION", 0)
    monkeypatch.setattr(
        "exporl.data.formats.decode.check_size",
        lambda what, size, held: check_size(what, size * 100, held, 1),
    )
    said = refusal(load_episodes, write_lerobot(tmp_path / "l"))
    assert "row group 0 of data/chunk-000/episode_000000.parquet claims" in said


@pytest.mark.slow
def test_a_picture_far_larger_than_its_file(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    from exporl.data.formats.decode import pictures

    packed = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(packed, format="PNG")
    said, most = peak(pictures, [packed.getvalue()], "image")
    assert "image row 0 cannot be read (Image size (400000000 pixels)" in said and most < MOST


def test_what_is_recorded_passes():
    check_size("pictures", FREE_BYTES, 10)
    check_size("pictures", EXPANSION * FREE_BYTES, FREE_BYTES)
    assert "claims 268435457 bytes" in refusal(check_size, "zeros", FREE_BYTES + 1, 1000)


# Pointers and unknown layouts.

STAND_INS = {
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
        "`git lfs pull`",
    ),
    "git-annex": (b"/annex/objects/SHA256E-s9--0.hdf5\n", "`git annex get`"),
    "a web page": (
        b"<!DOCTYPE html>\n<html><body>Sign in</body></html>",
        "Download it again, logged in",
    ),
    "a web page too": (b"\n\n<HTML><head></head></HTML>", "is a web page"),
    "a server's error": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "an answer in XML",
    ),
}


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("file", ["a.hdf5", "a.h5", "a.npz", "noname"])
def test_what_stands_for_a_file_is_named(tmp_path, name, file, capsys):
    content, text = STAND_INS[name]
    (tmp_path / file).write_bytes(content)
    for command in ("inspect", "validate"):
        assert main(["data", command, str(tmp_path / file)]) == 2
        out, error = capsys.readouterr()
        assert f"{tmp_path / file} is" in out + error and text in out + error
    for format_name in ("arrays", "robomimic", "d4rl", "ogbench", "pusht"):
        assert text in refusal(load_episodes, tmp_path / file, format_name=format_name)


def test_what_stands_for_a_file_in_a_folder_is_named(tmp_path):
    content, text = STAND_INS["Git LFS"]
    folder = write_dataset(tmp_path / "d-v0")
    (folder / "data" / "main_data.hdf5").write_bytes(content)
    assert text in refusal(load_episodes, folder)
    for index, part in enumerate(
        ("meta/info.json", "meta/episodes.jsonl", "data/chunk-000/episode_000000.parquet")
    ):
        folder = write_lerobot(tmp_path / f"l{index}")
        (folder / part).write_bytes(content)
        assert text in (said := refusal(load_episodes, folder)) and Path(part).name in said


def test_trajectories_at_the_root(tmp_path):
    arrays = {}
    for index in range(12):
        arrays |= {f"traj_{index}/actions": np.zeros((5, 4)), f"traj_{index}/obs": np.zeros((6, 8))}
    said = refusal(load_episodes, write_hdf5(tmp_path / "a.h5", arrays))
    assert "is in no known format. It holds traj_0 (with actions, obs), traj_1" in said
    assert "and 4 more (one group per trajectory)" in said
    assert "give them to exporl.from_arrays and write a file with exporl.save_npz" in said


UNKNOWN = {
    "a.hdf5": lambda path: write_hdf5(path, {"states": np.zeros(3), "controls": np.zeros(3)}),
    "a.npz": lambda path: write_npz(path, {"states": np.zeros(3), "controls": np.zeros(3)}),
    "folder": lambda path: [
        path.mkdir(),
        (path / "controls.csv").touch(),
        (path / "states.csv").touch(),
    ],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_an_unknown_file_holds_is_listed(tmp_path, name):
    UNKNOWN[name](tmp_path / name)
    said = refusal(load_episodes, tmp_path / name)
    assert (
        "is in no known format. It holds controls" in said
        and "states" in said
        and "Known are pusht" in said
    )
    assert len(said) < 500


def test_nothing_to_list(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    assert "is in no known format. Known are" in refusal(load_episodes, tmp_path / "a.txt")


STATES = {
    "joint_position": np.zeros((4, 9)),
    "rigid/cube/pose": np.ones((5, 7)),
    "settings": np.zeros(2),
    "names": ["a", "b", "c", "d"],
    "count": 3,
}


def test_states_in_groups(tmp_path):
    path = write_robomimic(
        tmp_path / "r.hdf5", 1, **{f"states__{name}": v for name, v in STATES.items()}
    )
    (episode,) = load_episodes(path)
    assert set(episode.infos) == {"states/joint_position", "states/rigid/cube/pose"}
    plain = load_episodes(write_robomimic(tmp_path / "s.hdf5", 1, states=np.zeros((4, 9))))[0]
    assert episode.infos["states/joint_position"].shape == plain.infos["states"].shape
    wrong = write_robomimic(tmp_path / "t.hdf5", 1, states=np.zeros((2, 9)))
    assert "states has 2 rows, actions has 4" in refusal(load_episodes, wrong)


def test_what_is_refused_leaves_good_files_alone(tmp_path):
    for write, name in ((write_npz, "a.npz"), (write_hdf5, "a.hdf5")):
        arrays = flat(timeouts=np.isin(np.arange(12), (3, 11)), next_observations=leading_on())
        assert len(load_episodes(write(tmp_path / name, arrays))) == 3
