"""A bundle: written whole, checked whole, and the policy in it is the run's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from exporl.acting.policy import load_policy
from exporl.bundle.evaluation import load_evaluated
from exporl.bundle.export import export_bundle
from exporl.bundle.push import push_bundle
from exporl.cli.main import main
from exporl.files import bundle as files
from exporl.files.bundle import DamagedBundleError
from exporl.run.session import load_run
from exporl.stats.intervals import wilson
from helpers.bundles import AFTER, BASE, BEFORE, made_run, observations
from helpers.runs import content_of

OLD = Path(__file__).parent / "data" / "old_run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("made") / "run", **{"data.path": "/home/me/arm.npz"})


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """A bundle without ONNX: tests/test_bundle_onnx.py is about that."""
    folder = tmp_path_factory.mktemp("bundles") / "arm"
    export_bundle(run, folder, licence="mit", datasets=("me/arm",), onnx=False)
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "arm"))


def test_it_acts_as_the_run_does(run, made):
    mine, theirs = load_policy(made), load_policy(run)
    assert repr(mine) == repr(theirs) and mine.checkpoint_name == "checkpoint-000000044"
    for seed, seen in enumerate(observations(5)):
        np.testing.assert_array_equal(mine.act(seen, seed=seed), theirs.act(seen, seed=seed))
    three_lines = load_policy(str(made))
    np.testing.assert_array_equal(three_lines.next_action(seen), theirs.act(seen, seed=0)[0])


def test_what_is_in_it(made):
    names = {path.name for path in made.iterdir()}
    assert names == {*files.FILES, files.MANIFEST} - {files.ONNX}
    files.check_bundle(made)
    assert b"/home/me" not in b"".join(content_of(made).values()), "only this machine knows that"
    assert json.loads((made / "train_config.json").read_text())["data"]["path"] == "arm.npz"


def test_another_checkpoint(run, tmp_path):
    status = main(["export", str(run), str(tmp_path / "b"), "--checkpoint", "32", "--no-onnx"])
    assert status == 0
    early, seen = load_policy(tmp_path / "b"), observations(1)[0]
    expected = load_policy(run, checkpoint_name="checkpoint-000000032").act(seen, seed=0)
    np.testing.assert_array_equal(early.act(seen, seed=0), expected)
    assert not np.array_equal(expected, load_policy(run).act(seen, seed=0))
    assert "those of step 12" in (tmp_path / "b" / "README.md").read_text()
    with pytest.raises(ValueError, match=r"no checkpoint 'x': it has checkpoint-000000032, checkp"):
        export_bundle(run, tmp_path / "c", checkpoint_name="x")
    assert not (tmp_path / "c").exists()


def test_the_base_policy_alone(run, tmp_path):
    folder = tmp_path / "base"
    export_bundle(run, folder, part="base", onnx=False)
    base, whole = load_policy(folder), load_policy(run)
    for seed, seen in enumerate(observations(3)):
        expected = whole.act(seen, seed=seed, mode="base")
        np.testing.assert_array_equal(base.act(seen, seed=seed), expected)
    assert (folder / "model.safetensors").stat().st_size < 0.7 * sum(
        array.nbytes for array in map(np.asarray, leaves(whole.parameters))
    )
    assert "base policy alone" in (folder / "README.md").read_text()


def leaves(tree):
    import jax

    return jax.tree.leaves(tree)


@pytest.mark.slow
def test_a_base_policy_from_outside_is_not_in_a_bundle(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config["base"]["policy"] = "sb3:walker.zip"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"around 'sb3:walker.zip', a base policy from outside"):
        export_bundle(copy, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_without_a_base_policy(tmp_path):
    run = made_run(tmp_path / "run", "rlpd")
    with pytest.raises(ValueError, match=r"rlpd has no base policy to export: leave out --part"):
        export_bundle(run, tmp_path / "b", part="base")
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_what_was_deployed_is_what_acts(tmp_path):
    run = made_run(tmp_path / "run", deployed="base")
    export_bundle(run, tmp_path / "b", onnx=False)
    seen = observations(1)[0]
    mine = load_policy(tmp_path / "b")
    np.testing.assert_array_equal(mine.act(seen, seed=3), mine.act(seen, seed=3, mode="base"))
    assert "acts alone: it was found better" in (tmp_path / "b" / "README.md").read_text()


# The card.


def test_the_card_has_the_numbers_of_the_run(made):
    _, front, text = (made / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["library_name"] == "exporl" and head["pipeline_tag"] == "robotics"
    assert head["license"] == "mit" and head["datasets"] == ["me/arm"]
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "probe/delay"
    assert result["metrics"][0]["value"] == np.mean(AFTER)
    rows = {"base policy before": BEFORE, "base policy after": BASE, "policy after": AFTER}
    for who, success in rows.items():
        low, high = wilson(sum(success), len(success))
        assert f"| {who} | {np.mean(success):.2f} [{low:.2f}, {high:.2f}] | " in text
    assert "policy after - base policy before: +80 points" in text
    assert "the parameters here are those of step 24" in text
    assert "`arm.npz`, episodes: 6" in text and "| imitation steps | 20 |" in text
    assert "between -2 and 5" in text and "the first 2 are played, 20 a second" in text


def test_front_matter_is_yaml_whatever_the_names_are(run, tmp_path):
    folder = tmp_path / 'a: "b" - #c'
    export_bundle(run, folder, licence="no: [", onnx=False)
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert head["license"] == "no: [" and head["model-index"][0]["name"] == 'a: "b" - #c'


def test_a_run_without_evaluations(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "eval.jsonl").unlink()
    export_bundle(copy, tmp_path / "b", onnx=False)
    text = (tmp_path / "b" / "README.md").read_text()
    assert "The run has no evaluation of it." in text and "model-index" not in text


# Damage.


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def sign(folder: Path, **changes) -> None:
    """Changes a manifest, with a digest that fits."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    del manifest["self"]
    text = json.dumps(manifest | {"self": files._digest(manifest)})
    (folder / "manifest.json").write_text(text)


NAMES = sorted({*files.FILES} - {files.ONNX})


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_checked(bundle, name):
    kept = (bundle / name).read_bytes()
    flip(bundle / name)
    with pytest.raises(DamagedBundleError, match=f"{name} was altered: its SHA-256 differs"):
        load_policy(bundle)
    (bundle / name).write_bytes(kept + b" ")
    size = len(kept)
    with pytest.raises(DamagedBundleError, match=f"{name} has {size + 1} bytes, .* says {size}"):
        load_policy(bundle)
    (bundle / name).unlink()
    with pytest.raises(DamagedBundleError, match=f"{name} is missing"):
        load_policy(bundle)
    elsewhere = bundle.parent / "elsewhere"
    elsewhere.write_bytes(kept)
    (bundle / name).symlink_to(elsewhere)
    with pytest.raises(DamagedBundleError, match=f"{name} is a link or a folder"):
        load_policy(bundle)


def test_files_that_do_not_belong(bundle):
    (bundle / ".gitattributes").write_text("* text")
    load_policy(bundle)
    (bundle / "policy.py").write_text("print('ran')")
    with pytest.raises(DamagedBundleError, match=r"policy\.py is not in its manifest"):
        load_policy(bundle)


def test_exchanged_files(bundle, run, tmp_path):
    """Of equal size: two of one bundle, and one of another bundle."""
    first, second = bundle / "statistics.json", bundle / "policy.json"
    longest = max(first.stat().st_size, second.stat().st_size)
    contents = {p.name: p.read_bytes() for p in bundle.iterdir() if p.name != "manifest.json"}
    for path in (first, second):
        contents[path.name] = contents[path.name].ljust(longest)
    files.write_bundle(tmp_path / "equal", contents)
    load_policy(tmp_path / "equal")
    for path, other in ((first, second), (second, first)):
        (tmp_path / "equal" / path.name).write_bytes(contents[other.name])
    with pytest.raises(
        DamagedBundleError, match=r"policy\.json holds what statistics\.json should.*statistics\.j"
    ):
        load_policy(tmp_path / "equal")
    export_bundle(run, tmp_path / "early", checkpoint_name="checkpoint-000000032", onnx=False)
    shutil.copy(tmp_path / "early" / "model.safetensors", bundle)
    with pytest.raises(DamagedBundleError, match=r"model\.safetensors was altered"):
        load_policy(bundle)


MANIFESTS = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is not valid JSON"),
    "altered": (flip, "of no use"),
    "huge": (lambda path: path.write_bytes(bytes(2**17)), "has 131072 bytes, at most 65536"),
    "gone": (Path.unlink, r"a bundle without manifest\.json"),
    "of the future": (lambda path: sign(path.parent, version=2), "version 2, not 'exporl-bundle'"),
    "naming others": (
        lambda path: sign(path.parent, files={"../x": {"sha256": "0" * 64, "bytes": 1}}),
        r"it names '\.\./x', which is no file of a bundle",
    ),
    "saying more": (lambda path: sign(path.parent, author=[1]), "entry 'author', which no manif"),
    "saying more of a file": (
        lambda path: sign(
            path.parent, files={"model.safetensors": {"sha256": "0" * 64, "bytes": 1, "by": 1}}
        ),
        "it says more of 'model.safetensors' than its bytes and its SHA-256",
    ),
    "naming less": (
        lambda path: sign(path.parent, files={}),
        r"config\.json is missing from its manifest",
    ),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifest_is_checked(bundle, name):
    change, message = MANIFESTS[name]
    change(bundle / "manifest.json")
    with pytest.raises(DamagedBundleError, match=message) as error:
        load_policy(bundle)
    assert ".. " not in str(error.value), "one full stop a sentence"


def test_damage_is_one_sentence_on_the_command_line(bundle, capsys):
    flip(bundle / "model.safetensors")
    assert main(["eval", str(bundle)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "model.safetensors was altered" in said[0]


def test_parameters_of_another_policy(bundle, tmp_path):
    """Digests that fit, and a file that does not: nothing acts."""
    contents = {p.name: p.read_bytes() for p in bundle.iterdir() if p.name != "manifest.json"}
    config = json.loads(contents["config.json"])
    config["base"]["width"] = 8
    files.write_bundle(tmp_path / "b", contents | {"config.json": json.dumps(config).encode()})
    with pytest.raises(ValueError, match=r"has shape .*, the configuration needs"):
        load_policy(tmp_path / "b")
    files.write_bundle(tmp_path / "c", contents | {"model.safetensors": b"not tensors"})
    with pytest.raises(DamagedBundleError, match="is not a safetensors file"):
        load_policy(tmp_path / "c")


# Writing.


def failing(at: int, lasting: bool):
    """What makes calls fail: the one of a number, and all after it if it is `lasting`."""
    count = [-1]

    def wrap(call):
        def counted(*args, **kwargs):
            count[0] += 1
            if count[0] == at or (lasting and count[0] > at):
                raise OSError(28, "No space left on device")
            return call(*args, **kwargs)

        return counted

    return wrap


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("name", ["new", "arm"])
def test_writing_that_fails_anywhere_leaves_all_or_nothing(bundle, monkeypatch, name, lasting):
    """At every call that reaches the disk, for a new bundle and for one that is replaced."""
    contents = {p.name: p.read_bytes() for p in bundle.iterdir() if p.name != "manifest.json"}
    contents["README.md"] = b"new"
    folder, before, at, done = bundle.parent / name, content_of(bundle), 0, False
    while not done:
        with monkeypatch.context() as patch:
            wrap = failing(at, lasting)
            patch.setattr(files, "write_bytes", wrap(files.write_bytes))
            patch.setattr(Path, "rename", wrap(Path.rename))
            try:
                files.write_bundle(folder, contents, replace=True)
                done = True
            except OSError:
                at += 1
        hidden = [path for path in bundle.parent.iterdir() if path.name.startswith(".")]
        if done or name == "new":
            assert hidden == [] and (done or not folder.exists())
        elif not bundle.exists():
            (kept,) = hidden
            assert lasting and kept.name.endswith(".before") and content_of(kept) == before
            kept.rename(bundle)
        else:
            assert content_of(bundle) == before and hidden == []
    assert at == len(contents) + (3 if name == "arm" else 2)
    files.check_bundle(folder)
    assert (folder / "README.md").read_bytes() == b"new"


def test_nothing_is_overwritten_unless_it_is_a_bundle_and_asked_for(run, bundle, tmp_path):
    before = content_of(tmp_path)
    with pytest.raises(ValueError, match=r"is a bundle already\. Name another folder, or add"):
        export_bundle(run, bundle)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(bundle)
    for name, message in (
        ("notes", r"exists and is no bundle \(it has 'README.md'\)"),
        ("file", "is a file: name a folder"),
        ("link", "is a symbolic link"),
    ):
        with pytest.raises(ValueError, match=message):
            export_bundle(run, tmp_path / name, replace=True)
    assert before.items() <= content_of(tmp_path).items()
    export_bundle(run, bundle, onnx=False, replace=True, licence="bsd-3-clause")
    assert "bsd-3-clause" in (bundle / "README.md").read_text()
    with pytest.raises(ValueError, match="is a bundle already: copy the folder"):
        export_bundle(bundle, tmp_path / "again")


# Playing, code, the hub, the command line.


def test_a_bundle_plays_as_its_run_does(tmp_path):
    """In the run's task: the same outcomes to the bit; nothing is written into the bundle."""
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    export_bundle(run, tmp_path / "b", onnx=False)
    before = content_of(tmp_path / "b")
    mine = load_evaluated(tmp_path / "b").evaluate(episodes=20, seed=5)
    own = load_run(run).evaluate(episodes=20, seed=5)
    assert (mine.success, mine.returns, mine.lengths) == (own.success, own.returns, own.lengths)
    assert content_of(tmp_path / "b") == before


def test_eval_needs_a_task_that_fits(made, capsys):
    for args, message in (
        ([], "'arm:arm', which is code of its own, and a bundle runs none"),
        (["--task", "probe/bandit"], "has no 'force'. Give a task with the same observations"),
        (["--task", "prob/bandit"], "unknown task"),
    ):
        assert main(["eval", str(made), *args]) == 2
        assert message in capsys.readouterr().err
    assert main(["eval", str(OLD), "--task", "probe/bandit"]) == 2
    assert "--task is for bundles" in capsys.readouterr().err


def test_code_is_run_only_where_it_is_trusted(bundle, tmp_path, monkeypatch):
    contents = {p.name: p.read_bytes() for p in bundle.iterdir() if p.name != "manifest.json"}
    config = json.loads(contents["config.json"])
    config["base"]["kind"] = "bundled_stranger:make"
    files.write_bundle(tmp_path / "b", contents | {"config.json": json.dumps(config).encode()})
    (tmp_path / "bundled_stranger.py").write_text("raise RuntimeError('ran')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"names code that does not come with exporl: base\.kind"):
        load_policy(tmp_path / "b")
    with pytest.raises(ValueError, match="RuntimeError: ran"):
        load_policy(tmp_path / "b", trust=True)


class Hub:
    """A hub that is a folder."""

    def __init__(self, folder):
        self.folder, self.private = folder, None

    def create_repo(self, repository, *, private, exist_ok):
        self.private = private
        (self.folder / repository).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, allow_patterns):
        for name in allow_patterns:
            if (Path(folder_path) / name).exists():
                shutil.copy(Path(folder_path) / name, self.folder / repo_id)
        return f"hub/{repo_id}"


def test_it_is_uploaded_only_on_request(bundle, run, tmp_path, monkeypatch, capsys):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", type("Module", (), {"HfApi": lambda: hub}))
    export_bundle(run, tmp_path / "b", onnx=False)
    assert not hub.folder.exists()
    args = ["export", str(run), str(tmp_path / "c"), "--no-onnx", "--push", "me/arm"]
    assert main(args) == 0 and hub.private
    assert "hub/me/arm" in capsys.readouterr().out
    assert content_of(hub.folder / "me" / "arm") == content_of(tmp_path / "c")
    flip(bundle / "README.md")
    with pytest.raises(DamagedBundleError, match="README"):
        push_bundle(bundle, "me/other")
    assert not (hub.folder / "me" / "other").exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'exporl\[hub\]'"):
        push_bundle(tmp_path / "b", "me/arm")


def test_a_killed_export_leaves_no_bundle(run, tmp_path):
    """SIGKILL while the last file is being written."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom exporl.files import bundle\n"
        "write = bundle.write_bytes\n"
        "def killing(path, content):\n"
        "    if path.name == 'manifest.json': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, content)\n"
        "bundle.write_bytes = killing\n"
        "bundle.write_bundle(Path(sys.argv[1]), {'README.md': b'x'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=False)
    assert done.returncode == -9 and not (tmp_path / "b").exists()
    assert all(name.startswith(".b-") for name in os.listdir(tmp_path))


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = capsys.readouterr().out
    for word in (
        "--part base",
        "--checkpoint",
        "--license",
        "exporl eval",
        "load_policy",
        "--push",
    ):
        assert word in said
