"""SECURITY.md, sentence by sentence: a test begins with the sentence that it tests."""

import ast
import inspect
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from exporl import outside
from exporl.acting.policy import load_policy
from exporl.bench.grid import plan_runs
from exporl.bench.suite import read_suite
from exporl.bundle.export import export_bundle
from exporl.bundle.loader import LOADER
from exporl.cli.main import main
from exporl.data.formats import load_episodes
from exporl.data.formats.archives import read_archive
from exporl.envs.registry import make_task
from exporl.external import find_policy
from exporl.files import checkpoint
from exporl.files.bundle import write_bundle
from exporl.files.checkpoint import CorruptCheckpointError
from exporl.outside import check_trust
from exporl.report.document import SCRIPTS
from exporl.report.page import write_report
from exporl.run.directory import load_config
from exporl.run.presets import preset_config
from exporl.run.prior import prior_episodes
from exporl.run.session import load_run
from exporl.serve.client import Client
from exporl.serve.messages import MessageError, packed, unpacked
from exporl.spec import Spec
from helpers.reports import film_run
from helpers.runs import content_of, newest
from helpers.serving import GOOD, Arithmetic, serving

ROOT = Path(__file__).parent.parent
OLD = ROOT / "tests" / "data" / "old_run"
SOURCES = sorted((ROOT / "src" / "exporl").rglob("*.py"))
PAYLOAD = "import pathlib\npathlib.Path({!r}).write_text('ran')\ndef make(): ...\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A stranger's run directory."""
    monkeypatch.setattr(outside, "_OPENED", set())
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def name_code(run: Path, folder: Path, option: str = "task") -> Path:
    """The run names a module in a folder; what it writes when it is imported."""
    proof = run.parent / "proof"
    (folder / "stranger.py").write_text(PAYLOAD.format(str(proof)))
    config = json.loads((run / "config.json").read_text()) | {option: "stranger:make"}
    (run / "config.json").write_text(json.dumps(config))
    return proof


def test_opening(run, tmp_path, monkeypatch):
    """Opening a run directory runs no code that it names: not with `exporl eval`, `exporl report`
    or `exporl train --resume`, nor with `load_run`, `load_policy` or `load_config`."""
    proof = name_code(run, tmp_path)
    monkeypatch.chdir(tmp_path)
    for args in (["eval"], ["train", "--resume"]):
        assert main([*args, str(run)]) == 2
    assert main(["report", str(run), "--output", str(tmp_path / "r.html")]) == 0
    for load in (load_run, load_config):
        with pytest.raises(ValueError, match="names code that does not come with exporl"):
            load(run)
    name_code(run, tmp_path, "algorithm")
    with pytest.raises(ValueError, match="names code that does not come with exporl"):
        load_policy(run)
    assert not proof.exists()


def test_inside(run, monkeypatch):
    """Even where you say `--trust`, no module is taken from inside a run directory."""
    proof = name_code(run, run, "algorithm")
    monkeypatch.chdir(run)
    assert main(["eval", str(run), "--trust"]) == 2
    with pytest.raises(ValueError, match="code is never taken from there"):
        load_policy(run, trust=True)
    assert not proof.exists()


def test_pickle(run):
    """No file is unpickled."""
    for path in SOURCES:
        text = path.read_text()
        names = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE))
        assert not names & {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}, path
        assert "allow_pickle=True" not in text, path
    np.savez(run / "demonstrations.npz", actions=np.array([print], object))
    with pytest.raises(ValueError, match=r"demonstrations\.npz is not a readable \.npz archive"):
        read_archive(run / "demonstrations.npz")


def test_elsewhere(run, tmp_path):
    """Nothing outside a run directory is read, written, shortened or removed because of what lies
    in it.

    `tests/test_links.py` goes through every file, and through names in manifests."""
    shutil.copytree(run / "checkpoints", tmp_path / "precious")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(tmp_path / "precious")
    before = content_of(tmp_path)
    for args in (["eval"], ["report"], ["train", "--resume"]):
        assert main([*args, str(run)]) == 2
    assert content_of(tmp_path) == before


def test_report(run):
    """A report shows whatever a run says as text: it runs no script but the library's own, loads
    nothing, and tells the browser so.

    `tests/test_report_browser.py` opens such a page."""
    config = json.loads((run / "config.json").read_text())
    config["task"] = config["versions"]["exporl"] = "<script src='https://a.b/c.js'></script>"
    (run / "config.json").write_text(json.dumps(config))
    page = write_report([run], run / "report.html").read_text()
    tags, loaded = [], []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)
            loaded.extend(name for name, _ in attrs if name in {"src", "href", "data", "onload"})

    Tags().feed(page)
    assert "&lt;script" in page
    assert not set(tags) & {"iframe", "img", "link", "object", "embed"} and not loaded
    assert tags.count("script") == page.count("<script") == 1 + len(SCRIPTS)
    assert "default-src 'none'" in page


def test_films(run, tmp_path):
    """Pictures that a report shows are files of the run's own `videos` folder: no path in it leads
    out, and no link is followed."""
    pytest.importorskip("PIL", reason="the extra exporl[video] is not installed")
    film_run(run, episodes=4, who=("policy",))
    secret = tmp_path / "secret.jpg"
    (run / "videos" / "c" / "policy-00.jpg").rename(secret)
    (run / "videos" / "link.jpg").symlink_to(secret)
    (run / "videos" / "way").symlink_to(tmp_path)
    path = run / "videos" / "films.json"
    record = json.loads(path.read_text())
    out = (str(secret), "../../secret.jpg", "link.jpg", "way/secret.jpg")
    for film, strip in zip(record["films"], out, strict=True):
        film["strip"] = strip
    path.write_text(json.dumps(record))
    page = write_report([run], run / "report.html").read_text()
    assert page.count("It is left out.") == 4 and "<img" not in page
    shutil.move(run / "videos", tmp_path / "videos")
    (run / "videos").symlink_to(tmp_path / "videos")
    with pytest.raises(ValueError, match="is a symbolic link"):
        write_report([run], run / "report.html")


def test_links_in_data(tmp_path):
    """A data file cannot make another file's content part of what is read.

    `tests/test_hostile_files.py` has every way and format."""
    h5py = pytest.importorskip("h5py")
    from helpers.recordings import write_hdf5, write_robomimic

    secret = write_hdf5(tmp_path / "secret.hdf5", {"private": np.full((4, 2), 42.0)})
    path = write_robomimic(tmp_path / "r.hdf5", 1)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = h5py.ExternalLink(str(secret), "/private")
    with pytest.raises(ValueError, match="is not followed"):
        load_episodes(path)


def fill_with_zeros(path: Path, count: int) -> None:
    """Replaces the actions of an archive by `count` zeros, packed to next to nothing."""
    with np.load(path) as data:
        others = {name: data[name] for name in data.files if name != "actions"}
    np.savez_compressed(path, **others)
    header = {"descr": "<f8", "fortran_order": False, "shape": (count, 1)}
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("actions.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(count * 8 // 2**20):
            member.write(bytes(2**20))


@pytest.mark.slow
def test_sizes(run):
    """Sizes are compared with what is stored before anything is unpacked, so that a small file
    cannot fill the memory."""
    fill_with_zeros(run / "demonstrations.npz", 40 * 2**20)
    assert (run / "demonstrations.npz").stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"demonstrations\.npz: actions claims \d+ bytes"):
            prior_episodes(load_config(run), run, make_task("probe/bandit"), print)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    header = b'{"x":{"dtype":"F64","shape":[1000000000000],"data_offsets":[0,8000000000000]}}'
    claiming(newest(run), len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(
        CorruptCheckpointError, match=r"learner\.safetensors was altered .* has 94 bytes"
    ):
        checkpoint.load(newest(run), only=("learner",))


def claiming(folder: Path, content: bytes) -> None:
    """Puts bytes in the place of the learner, with digests that fit."""
    import hashlib

    (folder / "learner.safetensors").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["self"]
    manifest["sha256"]["learner.safetensors"] = hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"self": digest}))


@pytest.mark.parametrize("name", ["config.json", "eval.jsonl", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"[" * 100_000 + b"\n", b"\xff\x00\n"], ids=["deep", "bytes"])
def test_damage(run, name, content, capsys):
    """A damaged or nested file ends in one sentence that names it."""
    (run / name).write_bytes(content)
    status = main(["report", str(run)])
    said = capsys.readouterr().err
    if name == "config.json":
        assert status == 2 and len(said.splitlines()) == 1 and name in said
    elif name == "eval.jsonl":
        assert status == 2 and "nothing to report" in said and f"{name}, line 1" in said
    else:
        assert status == 0 and f"{name}, line 1" in (run / "report.html").read_text()


def bundle_of(run: Path) -> Path:
    """A stranger's bundle."""
    export_bundle(run, run.parent / "bundle", onnx=False)
    return run.parent / "bundle"


def test_opening_bundles(run, tmp_path, monkeypatch):
    """Opening a bundle runs no code that it names, and no module is taken from inside it: not with
    `exporl eval` or `load_policy`.

    `tests/test_bundle.py` has modules beside it."""
    bundle = bundle_of(run)
    contents = {path.name: path.read_bytes() for path in bundle.iterdir()}
    del contents["manifest.json"]
    config = json.loads(contents["config.json"]) | {"algorithm": "inner_stranger:make"}
    write_bundle(tmp_path / "theirs", contents | {"config.json": json.dumps(config).encode()})
    monkeypatch.chdir(tmp_path / "theirs")
    proof = tmp_path / "proof"
    assert main(["eval", str(tmp_path / "theirs")]) == 2
    with pytest.raises(ValueError, match="names code that does not come with exporl"):
        load_policy(tmp_path / "theirs")
    Path("inner_stranger.py").write_text(PAYLOAD.format(str(proof)))
    with pytest.raises(ValueError, match=r"inner_stranger\.py is not in its manifest"):
        load_policy(tmp_path / "theirs", trust=True)
    assert not proof.exists()


def test_files_of_bundles(run):
    """Every file of a bundle is compared with its manifest before anything in it is used; what is
    damaged, missing, exchanged, added or of another size is told by name.

    `tests/test_bundle.py` goes through every file and fault."""
    bundle = bundle_of(run)
    (bundle / "README.md").write_text("hello")
    (bundle / "train_config.json").unlink()
    (bundle / "more.md").write_text("hello")
    with pytest.raises(
        ValueError, match=r"more\.md is not .* README\.md has 5 .* train_config\.json"
    ):
        load_policy(bundle)


def test_writing_bundles(run, tmp_path):
    """A bundle is written whole or not at all, and replaces nothing but a bundle, and that only
    with `--overwrite`.

    `tests/test_bundle.py` stops it at every write."""
    bundle = bundle_of(run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("precious")
    before = content_of(tmp_path)
    assert main(["export", str(run), str(bundle)]) == 2
    assert main(["export", str(run), str(tmp_path / "mine"), "--overwrite"]) == 2
    (bundle / "notes.txt").write_text("precious")
    assert main(["export", str(run), str(bundle), "--overwrite"]) == 2
    assert content_of(tmp_path) == {**before, "bundle/notes.txt": b"precious"}


def test_lines_of_cards():
    """The lines on a bundle's card compare nothing with its manifest, and a stranger's card may
    show other lines: read them before you run them."""
    assert "policy.onnx" in LOADER and "manifest" not in LOADER and "sha256" not in LOADER


NETWORK = {"urllib", "http", "socket", "ssl", "requests", "ftplib", "smtplib", "asyncio", "xmlrpc"}
NETWORK |= {"websockets", "huggingface_hub"}


def test_network():
    """Nothing uses the network but `exporl data download`, `exporl export --push`, `exporl
    serve`, `exporl.Client`, `exporl actor`, `exporl train --listen`, a base policy
    `ws://HOST:PORT`, and Ray with `--actors` and `--ray`: Ray runs whatever a member of its
    cluster sends it, so use a closed network."""
    for path in SOURCES:
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
        uses = path.relative_to(ROOT / "src" / "exporl").as_posix()
        starts_ray = uses == "distributed/cluster.py"
        assert starts_ray or 'import_module("ray")' not in path.read_text(), path
        of_ray = starts_ray or uses == "distributed/head.py"
        of_actors = tuple(f"distributed/{name}.py" for name in ("pool", "place", "peers"))
        of_actors += ("actor/joining.py",)
        allowed = uses in ("data/download.py", "bundle/push.py", *of_actors)
        allowed = allowed or uses.startswith(("serve/", "cli/serve"))
        assert not names & NETWORK or allowed or of_ray, path


def test_listening(tmp_path, capsys):
    """`exporl serve` listens to this machine alone; beyond it only with `--host`, and then with a
    key or the word `--open`.

    `tests/test_serve_command.py` has more hosts and keys."""
    assert main(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "whoever reaches 0.0.0.0 could use the policy" in capsys.readouterr().err
    with serving(Arithmetic()) as running:
        assert running.address.startswith("ws://127.0.0.1:")


def test_listening_for_actors(tmp_path, monkeypatch, capsys):
    """`exporl train --listen HOST:PORT` listens beyond this machine only with a key or the
    word `--open`. Whoever has the key decides what the run learns from, and the run decides
    what its actors do."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "rlpd", "--task", "remote/arm", "--listen", "0.0.0.0:0"]) == 2
    assert "give --key-file FILE" in capsys.readouterr().err


def test_messages():
    """A message to `exporl serve` or `exporl train --listen` runs no code, ends in an answer
    or in a sentence, and takes no more memory than a small multiple of its length."""

    array = {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": (1,)}
    bombs = [b"\xdd\x00\x98\x96\x80" + b"\x80" * 10_000_000, b"\x91" * 10_000_000]
    tracemalloc.start()
    try:
        for message in (*bombs, packed({"state": array})):
            with pytest.raises(MessageError, match=r"^[^\n]{20,}\.$"):
                unpacked(message)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_trusting(tmp_path, monkeypatch):
    """`--trust`, `trust=True`, `--task module:function` and `--base module:function` run the code
    of that module with all your rights."""
    proof, other = tmp_path / "proof", tmp_path / "other"
    (tmp_path / "trusted_stranger.py").write_text(PAYLOAD.format(str(proof)))
    (tmp_path / "trusted_policy.py").write_text(PAYLOAD.format(str(other)))
    monkeypatch.chdir(tmp_path)
    check_trust(tmp_path / "run", {"task": "trusted_stranger:make"}, True)
    with pytest.raises(ValueError, match="must return a gymnasium"):
        make_task("trusted_stranger:make")
    with pytest.raises(ValueError, match="base policy 'trusted_policy:make'"):
        find_policy("trusted_policy:make", Spec((("state", (2,), "float32"),), 1))
    assert proof.read_text() == other.read_text() == "ran"


def test_digests(run):
    """The digests of a checkpoint or a bundle show damage, not who made it: whoever changes one can
    write digests that fit."""
    parts, record = checkpoint.load(newest(run))
    changed = {name: array * 0 for name, array in parts["learner"].items()}
    checkpoint.save(run / "checkpoints", 160, parts | {"learner": changed}, record, 1)
    assert load_policy(run).checkpoint_name == newest(run).name
    bundle = bundle_of(run)
    contents = {path.name: path.read_bytes() for path in bundle.iterdir()}
    del contents["manifest.json"]
    write_bundle(bundle, contents | {"README.md": b"by somebody else"}, replace=True)
    assert load_policy(bundle).checkpoint_name == newest(run).name


@pytest.mark.slow
def test_bounds(run):
    """The bounds of a policy's actions are those that its run or bundle states: check them before
    a stranger's policy moves a robot."""
    from exporl.acting.of_task import interface_of_run

    stated = interface_of_run(run).to_json()
    stated["action"] |= {"low": [500.0], "high": [900.0], "scaled": True}
    (run / "policy.json").write_text(json.dumps(stated))
    assert 500 <= load_policy(run).act([0.0, 0.0], seed=0)[0, 0] <= 900


def test_encryption():
    """What `exporl serve` and `exporl.Client`, `exporl train --listen` and `exporl actor` send
    is not encrypted, the key included: beyond a network of your own put a tunnel or a proxy
    with a certificate between them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        heard = []

        def listen():
            with listening.accept()[0] as link:
                heard.append(link.recv(10_000))
                link.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(ConnectionError, match="refuses this client"):
            Client(address, api_key="a secret key", deadline_s=60.0)
        thread.join()
    assert b"Authorization: Api-Key a secret key" in heard[0]


def test_files_that_ask_for_runs(tmp_path, monkeypatch):
    """A suite file and a preset file may name code, `module:attribute`, which is loaded: read them
    before you use them."""
    proof, other = tmp_path / "proof", tmp_path / "other"
    (tmp_path / "suite_stranger.py").write_text(PAYLOAD.format(str(proof)))
    (tmp_path / "preset_stranger.py").write_text(PAYLOAD.format(str(other)))
    monkeypatch.chdir(tmp_path)
    suite = tmp_path / "suite.toml"
    suite.write_text('score = 0.5\n[algorithms.bc]\n[tasks."suite_stranger:make"]\n')
    with pytest.raises(ValueError, match="must return a gymnasium"):
        plan_runs(read_suite(suite))
    preset = tmp_path / "preset.toml"
    preset.write_text('algorithm = "expo"\noptions.base.policy = "preset_stranger:make"\n')
    named = preset_config("expo", str(preset), "probe/delay").base.policy or ""
    with pytest.raises(ValueError, match="base policy 'preset_stranger:make'"):
        find_policy(named, Spec((("state", (2,), "float32"),), 1))
    assert proof.read_text() == other.read_text() == "ran"


def test_a_server_that_is_asked(monkeypatch):
    """`--base ws://HOST:PORT` sends that server every observation, and believes its actions."""
    served, heard = Arithmetic(), []
    decide = served.decide_each
    monkeypatch.setattr(
        served, "decide_each", lambda batch, seeds: heard.append(batch) or decide(batch, seeds)
    )
    seen = {name: np.stack([value, value + 1]).astype(np.float32) for name, value in GOOD.items()}
    with serving(served) as running:
        spec = Spec(served.interface.spec.observation, 2, 3)
        made = find_policy(running.address, spec).sample(seen, 1, 0)
    assert made.shape == (2, 1, 3, 2) and (made == 1).all()
    states = np.concatenate([batch["state"] for batch in heard])
    assert {tuple(state) for state in states} == {tuple(state) for state in seen["state"]}


def test_whoever_is_let_in():
    """Whoever has the key, or is on this machine where there is none, may ask the policy and keep
    it busy."""
    for key in (None, "secret"):
        with serving(Arithmetic(), api_key=key) as running:
            assert Client(running.address, api_key=key).act(GOOD).shape == (3, 2)


def test_torch_files(tmp_path, monkeypatch):
    """`--base torch:FILE` runs the program in the file, TorchScript or exported by `torch.export`:
    nothing of it is unpickled by Python, but it can do more than compute."""
    why = "PyTorch is not installed: pip install 'exporl[torch]'"
    torch = pytest.importorskip("torch", reason=why)

    class Writes(torch.nn.Module):
        def forward(self, x):
            torch.save(x, "written")
            return x

    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Writes()).save("stranger.pt")
        find_policy("torch:stranger.pt", Spec((("state", (2,), "float32"),), action_dim=2))
        assert (tmp_path / "written").is_file()
        torch.save(torch.nn.Linear(2, 1), "stranger.pt")
        with pytest.raises(ValueError, match=r"is a pickle of torch.save"):
            find_policy("torch:stranger.pt", Spec((("state", (2,), "float32"),), action_dim=2))


def test_python(tmp_path):
    """Python itself imports from the current directory when it is started with `-c` or `-m`: start
    it in a folder of your own."""
    (tmp_path / "stranger.py").write_text("print('ran')")
    command = [sys.executable, "-c", "import stranger"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "ran\n"


def plain(text: str) -> str:
    return " ".join(text.split())


def test_every_sentence_has_a_test():
    said = re.findall(r"^- (.*)$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    tested = {plain((inspect.getdoc(test) or "").split("\n\n")[0]) for test in tests} - {""}
    assert len(said) > 10 and {plain(sentence) for sentence in said} == tested
