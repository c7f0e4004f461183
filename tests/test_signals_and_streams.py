"""What reaches a run from outside: signals, output that nobody reads, an environment that hangs, a
full disk, leftovers of killed processes, no home directory."""

import contextlib
import errno
import importlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from exporl.acting.asked import Asked, Watch
from exporl.acting.failures import StoppedAtOnce
from exporl.cli import entry
from exporl.cli import train as command
from exporl.cli.main import main
from exporl.cli.status import STOPPED
from exporl.cli.streams import Unbroken, unbroken
from exporl.data.formats import save_npz
from exporl.envs.probes import collect
from exporl.envs.registry import make_task
from exporl.files import checkpoint
from exporl.files.atomic import append_line, write_text
from exporl.files.leftovers import OLD_S, tidy
from exporl.files.run_files import CONFIG, SEEDS
from exporl.run.loop import train
from exporl.run.progress import Silent
from exporl.run.stopping import (
    Interrupted,
    interrupted_by_signals,
    interruptions_as_such,
    stop_on_signals,
)
from exporl.speed import tuning
from helpers.faults import Faulty, faulty_task
from helpers.runs import newest, tiny

FIRST, LAST = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("last", LAST)
def test_a_first_signal_asks_and_a_second_one_stops_at_once(first, last):
    stop, told, before = threading.Event(), threading.Event(), signal.getsignal(first)
    with stop_on_signals(stop, lambda message: told.set()):
        signal.raise_signal(first)
        assert stop.is_set() and told.wait(10)
        with pytest.raises(StoppedAtOnce):
            signal.raise_signal(last)
    assert signal.getsignal(first) is before


def test_a_terminal_that_closes_twice_stops_once():
    stop = threading.Event()
    with stop_on_signals(stop, lambda message: None):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert stop.is_set()


def test_a_signal_that_is_ignored_stays_so():
    """As `nohup` asks for."""
    before, stop = signal.signal(signal.SIGHUP, signal.SIG_IGN), threading.Event()
    try:
        with stop_on_signals(stop, lambda message: None):
            signal.raise_signal(signal.SIGHUP)
        assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_where_it_would_end_the_process_without_a_word(number):
    before = signal.getsignal(number)
    assert before is signal.SIG_DFL
    with pytest.raises(StoppedAtOnce), interrupted_by_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    signal.signal(number, signal.SIG_IGN)
    try:
        with interrupted_by_signals():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", FIRST)
def test_a_signal_that_python_had_to_ignore_is_obeyed_at_the_next_step(monkeypatch, number):
    class Collected:
        def __del__(self):
            signal.raise_signal(number)

    stop, ignored = threading.Event(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: ignored.append(seen.exc_type))
    with interrupted_by_signals():
        Collected()
        assert ignored == [StoppedAtOnce]
        with stop_on_signals(stop, lambda message: None):
            assert stop.is_set()
    fresh = threading.Event()
    with interrupted_by_signals(), stop_on_signals(fresh, lambda message: None):
        assert not fresh.is_set()


BEGINNING = ["train", "bc", "--task", "probe/delay"]


@pytest.mark.parametrize("number", FIRST)
def test_a_signal_before_the_first_step_leaves_nothing_and_says_what_to_do(
    tmp_path, monkeypatch, capsys, number
):
    def stopped(*args, **options):
        assert (tmp_path / "run" / CONFIG).is_file()
        signal.raise_signal(number)

    monkeypatch.setattr("exporl.run.trainer.build", stopped)
    assert main([*BEGINNING, "--run-dir", str(tmp_path / "run")]) == 130
    told = "stopped at once. Nothing had begun: start it again with the same command.\n"
    assert capsys.readouterr().err == told
    assert list(tmp_path.iterdir()) == []


def test_a_signal_before_a_resumption_goes_on_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(
        command, "run_request", lambda request: signal.raise_signal(signal.SIGHUP) or 0
    )
    assert main(["train", "--resume", "a run", "--trust"]) == 130
    told = "Nothing was changed; go on with: exporl train --resume 'a run' --trust\n"
    assert capsys.readouterr().err == f"stopped at once. {told}"


INTERRUPTED = """
import os, signal, sys, time
import exporl.cli.main as main
sys.path.insert(0, sys.argv[1])

def importing(args):
    import loses_exceptions
    print("imported", flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)

main.importing, main.COMMANDS["data"] = importing, "exporl.cli.main:importing"
sys.exit(main.main(["data"]))
"""
LOSES = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(100):
        time.sleep(0.002)
except BaseException as error:
    raise ImportError("failed to import") from None
"""


def test_an_interruption_waits_for_an_import_that_would_lose_it(tmp_path):
    """As NumPy's extension modules do, which also print it."""
    (tmp_path / "loses_exceptions.py").write_text(LOSES)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    told = (130, "imported\n", "stopped at once.\n")
    assert (done.returncode, done.stdout, done.stderr) == told


def test_an_import_that_never_ends_can_be_interrupted(monkeypatch, tmp_path):
    (tmp_path / "waits_for_ever.py").write_text(
        "import signal, time\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "while True:\n    time.sleep(0.01)\n"
    )
    monkeypatch.setattr("exporl.run.stopping._LONGEST_IMPORT_S", 0.2)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StoppedAtOnce), interrupted_by_signals():
        importlib.import_module("waits_for_ever")


TURNED = {
    "by an extension": ImportError("Encountered an error while initializing the extension."),
    "by an extension, named": ValueError("cannot import 'my_robot'"),
}


@pytest.mark.parametrize("last", TURNED.values(), ids=TURNED)
def test_an_interruption_that_an_import_turns_into_an_error_is_one(monkeypatch, capsys, last):
    """Extension modules do, and whoever names them turns that error into another one."""

    def importing(request):
        try:
            try:
                signal.raise_signal(signal.SIGHUP)
            except KeyboardInterrupt as stopped:
                raise ImportError("while initializing") from stopped
        except ImportError as error:
            raise last from error

    monkeypatch.setattr(command, "run_request", importing)
    assert main(["train", "--resume", "a run"]) == 130
    told = "Nothing was changed; go on with: exporl train --resume 'a run'\n"
    assert capsys.readouterr().err == f"stopped at once. {told}"
    monkeypatch.setattr("exporl.cli.presets.presets_command", importing)
    assert main(["presets"]) == 130
    assert capsys.readouterr().err == "stopped at once.\n"


def test_an_error_of_its_own_stays_one_and_notes_are_kept():
    with pytest.raises(ImportError, match="gone"), interruptions_as_such():
        raise ImportError("gone")
    told = ValueError("made of it")
    told.add_note("what is kept")
    with pytest.raises(StoppedAtOnce) as caught, interruptions_as_such():
        raise told from StoppedAtOnce()
    assert caught.value.__notes__ == ["what is kept"]
    with pytest.raises(Interrupted), interruptions_as_such():
        raise Interrupted("everything is saved") from StoppedAtOnce()


LATE = """
import atexit, os, signal, sys
import exporl.cli.main as main
number = signal.Signals[sys.argv[1]]
atexit.register(lambda: os.kill(os.getpid(), number))
main._main = lambda argv: print("done") or 0
main.command()
"""


@pytest.mark.parametrize("number", FIRST)
def test_a_signal_after_all_is_done_changes_nothing(number):
    """A terminal that closes while the process, its work done, is being taken down."""
    done = subprocess.run(
        [sys.executable, "-c", LATE, number.name], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


class Interrupts:
    """Ctrl-C while a module is being looked for."""

    def __init__(self, module):
        self.module = module

    def find_spec(self, name, path=None, target=None):
        if name == self.module:
            raise KeyboardInterrupt


def test_an_interruption_before_the_command_is_imported_is_told(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "exporl.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupts("exporl.cli.main"), *sys.meta_path])
    with pytest.raises(SystemExit) as left:
        entry.command()
    assert left.value.code == STOPPED == entry.STOPPED
    assert capsys.readouterr().err == "stopped at once.\n"


def test_nothing_of_the_library_is_imported_before_an_interruption_is_told():
    """Importing the entry alone takes a few milliseconds."""
    code = "import sys, exporl.cli.entry; print(*(m for m in sys.modules if 'exporl' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"exporl", "exporl.cli", "exporl.cli.entry"}


def test_many_seeds_that_are_stopped_at_once_say_what_goes_on(tmp_path, monkeypatch):
    def stopped(config, folder, *args, **options):
        folder.mkdir()
        write_text(folder / SEEDS, '{"first": 0, "number": 2}')
        raise StoppedAtOnce

    monkeypatch.setattr(command, "train_seeds", stopped)
    with pytest.raises(StoppedAtOnce) as caught:
        command.train_many(tiny(), tmp_path / "many", 2, "auto", resume=False)
    (note,) = caught.value.__notes__
    assert note == f"Go on with: exporl train --resume {tmp_path / 'many'}"


def test_a_run_that_is_stopped_at_once_as_it_begins_says_what_goes_on(tmp_path, monkeypatch):
    def stopped(config, run_dir, *args, **options):
        write_text(run_dir / CONFIG, "{}")
        raise StoppedAtOnce

    monkeypatch.setattr(command, "train", stopped)
    with pytest.raises(StoppedAtOnce) as caught:
        command.train_one(tiny(), tmp_path, resume=False)
    assert caught.value.__notes__ == [f"Go on with: exporl train --resume {tmp_path}"]


def test_what_is_said_about_a_signal_does_not_wait_for_what_is_being_said():
    """The signal comes while this thread holds the lock that saying needs."""
    lock, stop, said = threading.Lock(), threading.Event(), threading.Event()

    def say(message):
        with lock:
            said.set()

    with stop_on_signals(stop, say):
        with lock:
            signal.raise_signal(signal.SIGTERM)
        assert said.wait(10)


def test_a_silent_environment_is_named_once_per_call():
    said, enough = [], threading.Event()

    def say(message):
        said.append(message)
        enough.set()

    def hang(answer):
        assert enough.wait(10)
        time.sleep(0.2)
        return answer

    watch, env = Watch(0.05, say), Faulty(make_task("probe/delay").make_env(), hang, at_step=2)
    asked = Asked([env], float, watch=watch)
    asked.reset(0, episode=3, seed=7)
    asked.step(0, np.zeros(1, np.float32), 74)
    asked.step(0, np.zeros(1, np.float32), 75)
    watch.close()
    where = "the environment's step at environment step 75 (environment 0, episode 3, step 2 of it"
    assert len(said) == 1 and said[0].startswith(f"{where}, seed 7) has not returned for 0 s.")


@pytest.mark.slow
def test_a_hanging_environment_is_named_and_left_with_everything_saved(tmp_path):
    config, said, told = tiny("bc", **{"log.silence_s": 0.2}), [], threading.Event()
    progress = Silent()

    def say(message):
        said.append(message)
        if "has not returned" in message:
            told.set()

    def hang(answer):
        assert told.wait(30)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    progress.say = say
    waited = r"waiting for the environment's step at environment step 8 .*everything is saved"
    with pytest.raises(Interrupted, match=waited):
        train(config, tmp_path / "run", progress, task=faulty_task(config, hang, at_step=8))
    _, record = checkpoint.load(newest(tmp_path / "run"))
    assert record["rollout"]["env_steps"] == 7


@contextlib.contextmanager
def unread():
    """Standard output and error whose reader has left."""
    before, streams = (sys.stdout, sys.stderr), []
    for _ in range(2):
        reader, writer = os.pipe()
        os.close(reader)
        streams.append(os.fdopen(writer, "w", buffering=1))
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.close()


def test_output_that_nobody_reads_is_dropped():
    with unread():
        ours = sys.stdout
        with unbroken():
            for _ in range(3):
                print("lost")
                print("lost", file=sys.stderr, flush=True)
        assert sys.stdout is ours


@pytest.mark.parametrize(("args", "status"), [(["--help"], 0), (["nonsense"], 2)])
def test_the_exit_status_is_true_where_nobody_reads(args, status):
    with unread():
        assert main(args) == status


def test_a_closed_stream_leads_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["nonsense"]) == 2


def test_a_full_disk_is_no_reader_that_left():
    class Full(io.StringIO):
        def write(self, text):
            full()

    with pytest.raises(OSError, match="No space left"):
        Unbroken(Full()).write("x")


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
            append_line(Path("/dev/full"), {"a": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*summary.json"):
        write_text(tmp_path / "summary.json", "text")
    with pytest.raises(OSError, match=r"No space left on device: .*demonstrations.npz"):
        save_npz(tmp_path / "demonstrations.npz", collect("delay", 1, 0.1, 0))
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_json_or_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        append_line(tmp_path / "eval.jsonl", {"return_mean": float("nan")})
    assert not (tmp_path / "eval.jsonl").exists()


def test_what_killed_processes_left_is_tidied_and_nothing_else(tmp_path):
    ours = [f".report.html-{'0' * 32}", f".demonstrations.npz-{'a' * 32}"]
    others = [
        f".notes.txt-{'0' * 32}",
        ".report.html-backup",
        "report.html",
        f".summary.json-{'1' * 32}",
    ]
    for name in (ours[0], *others):
        (tmp_path / name).write_text("x")
    (tmp_path / ours[1]).mkdir()
    (tmp_path / ours[1] / "0").write_text("x")
    for name in (*ours, *others[:-1]):
        os.utime(tmp_path / name, (0, time.time() - 2 * OLD_S))
    assert sorted(path.name for path in tidy(tmp_path)) == sorted(ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_user_without_a_home_has_no_cache_and_is_told(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    before, said = jax.config.values["jax_compilation_cache_dir"], []
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert tuning.keep_compiled_programs(said.append) is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert "not kept (Could not determine home directory.)" in said[0]
