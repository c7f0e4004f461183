"""`exporl serve` as a user meets it before anything is loaded, and its signals. None needs JAX."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from exporl.cli.main import main
from exporl.cli.serve import _parser, _stopped_by_signals

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from serving import table

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key.txt"
    path.write_text("  a secret key\n")
    return str(path)


def refused(capsys, *args) -> str:
    """The one sentence that the command answers with."""
    assert main(["serve", *args]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "robot.local"])
def test_nobody_is_let_in_by_accident(capsys, host, tmp_path):
    assert f"whoever reaches {host} could use the policy" in refused(
        capsys, str(tmp_path), "--host", host
    )


@pytest.mark.parametrize("args", [["--open"], ["--key-file"]], ids=["open", "key"])
def test_with_a_key_or_a_word_it_goes_on(capsys, tmp_path, key, args):
    args = [*args, key] if args == ["--key-file"] else args
    pytest.importorskip("websockets")
    said = refused(capsys, str(tmp_path / "none"), "--host", "0.0.0.0", *args)
    assert "is not a run directory" in said


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", "schlüssel".encode(), b"\xff"])
def test_a_key_that_no_header_can_carry(capsys, tmp_path, content):
    (tmp_path / "key.txt").write_bytes(content)
    said = refused(capsys, str(tmp_path), "--key-file", str(tmp_path / "key.txt"))
    assert "key.txt must hold one key" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--port", "70000"], "--port: must be in [0, 65535]"),
        (["--deadline", "0"], "--deadline: must be at least 0.001"),
        (["--clients", "0"], "--clients: must be at least 1"),
        (["--largest-message", "nan"], "--largest-message: must be in"),
        (["--key-file", "nowhere.txt"], "--key-file nowhere.txt cannot be read: No such file"),
        (["--key-file", "/"], "--key-file / cannot be read: Is a directory"),
        (["--key-file", "/dev/zero"], "/dev/zero holds more than a key: it has over 4096"),
        (["--prot", "1"], "unrecognized arguments"),
        ([], "required: run"),
    ],
)
def test_mistakes(capsys, tmp_path, args, said):
    assert said in refused(capsys, *([str(tmp_path)] if args else []), *args)


@pytest.mark.parametrize("package", ["websockets", "msgpack"])
def test_a_package_that_is_missing(capsys, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(capsys, str(tmp_path))
    assert f"needs the package '{package}'" in said and "pip install 'exporl[serve]'" in said


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    assert "from exporl import Client" in text and "WebsocketClientPolicy" in text
    assert max(map(len, _parser().epilog.splitlines())) <= 100


def test_the_latency_in_the_document_is_what_was_measured():
    found = json.loads((BENCHMARKS / "results" / "serving.json").read_text())
    page = (BENCHMARKS.parent / "docs" / "serving.md").read_text()
    assert table(found["latency"]) in page, "put the table of benchmarks/serving.py there"
    for name, more in found["served_minus_in_process_ms"].items():
        assert f"{more:+.2f} ms" in page, name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it(number):
    before = signal.getsignal(number)

    async def wait() -> None:
        stop = asyncio.Event()
        with _stopped_by_signals(stop):
            signal.raise_signal(number)
            await asyncio.wait_for(stop.wait(), 60)

    asyncio.run(wait())
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def wait() -> None:
        stop = asyncio.Event()
        with _stopped_by_signals(stop):
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0)
            assert not stop.is_set()

    try:
        asyncio.run(wait())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
