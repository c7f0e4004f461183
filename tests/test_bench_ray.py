"""`exporl bench --ray`: Ray starts the runs and nothing else differs. A stand-in for Ray runs its
actors in threads; the last tests are about the real one. Stand-ins for the child processes write
files as a run leaves them."""

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from exporl.bench import on_ray as on_ray_module
from exporl.bench.grid import plan_runs
from exporl.bench.on_ray import RayRuns, Share, on_ray
from exporl.bench.ray_host import RunHost
from exporl.bench.running import run_suite
from exporl.bench.suite import read_suite
from exporl.cli.main import main
from exporl.parallel import processes
from helpers.runs import Heard, wait_for
from helpers.suites import child_code, suite_file


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(processes, "_CHILD", child_code())
    monkeypatch.setattr("exporl.cli.bench_run.keep_compiled_programs", lambda say: None)


class Actor:
    """Calls an object in threads; once killed, answers as Ray does for a dead actor."""

    def __init__(self, made, ray):
        self.made, self.ray, self.dead = made, ray, False
        self.threads = ThreadPoolExecutor(3)

    def __getattr__(self, name):
        return Method(self, name)

    def call(self, name, args):
        found = getattr(self.made, name)(*args)
        if self.dead or (name == "news" and self.ray.lose(self)):
            raise FakeRay.exceptions.RayActorError("the actor died")
        return found


class Method:
    def __init__(self, actor, name):
        self.actor, self.name = actor, name

    def remote(self, *args):
        return self.actor.threads.submit(self.actor.call, self.name, args)


class FakeRay:
    """As much of Ray as is used, in threads. Every actor is one until it is killed."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayActorError(RayError):
            pass

    def __init__(self, cpus=8.0, lost=0, full=None):
        self.cpus, self.lost, self.full = cpus, lost, full
        self.actors, self.options = [], {}

    def nodes(self):
        machine = {"Alive": True, "Resources": {"CPU": self.cpus, "GPU": 2.0}}
        return [machine, {**machine, "Alive": False}]

    def remote(self, **options):
        self.options = options

        def of(kind):
            outer = self

            class Made:
                @staticmethod
                def remote():
                    outer.actors.append(Actor(kind(), outer))
                    return outer.actors[-1]

            return Made

        return of

    def lose(self, actor):
        """Whether this actor's machine is gone now."""
        if self.lost:
            self.lost -= 1
            self.kill(actor, no_restart=True)
            return True
        return False

    def wait(self, references, timeout):
        if self.full is not None:  # no room; a stop comes while the runs wait for it
            self.full.set()
            return [], references
        done, left = wait(references, timeout)
        return list(done), list(left)

    def get(self, reference: Future):
        return reference.result()

    def kill(self, actor, no_restart):
        actor.dead = True
        actor.made.status()  # the process of a dead actor ends


def made(path, ray, stop=None, **share):
    suite = read_suite(path)
    runs = RayRuns(ray, suite.folder, Share(**share))
    outcomes = run_suite(
        suite,
        plan_runs(suite),
        stop or threading.Event(),
        at_once=runs.room,
        allowed=(),
        row=lambda run: Heard(),
        say=lambda message: None,
        told=lambda outcome: None,
        start=runs.start,
    )
    return {outcome.run.asked.name: outcome.ended for outcome in outcomes}


def table_of(path, capsys):
    capsys.readouterr()
    assert main(["bench", str(path), "--table"]) == 0
    return capsys.readouterr().out


def folders(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        yield tmp_path / name


def test_the_table_is_that_of_runs_made_here_and_nothing_is_made_twice(tmp_path, capsys):
    here, there = (suite_file(folder) for folder in folders(tmp_path))
    assert main(["bench", str(here), "--jobs", "1"]) == 0
    ray = FakeRay()
    ended = made(there, ray, gpus=0.5)
    assert ray.options["num_cpus"] == 1 and ray.options["num_gpus"] == 0.5
    assert len(ended) == len(ray.actors) == 4 and all(actor.dead for actor in ray.actors)
    assert table_of(here, capsys) == table_of(there, capsys)
    assert made(there, ray) == {} and len(ray.actors) == 4


def test_a_run_whose_machine_is_lost_goes_on_once(tmp_path):
    ended = made(suite_file(tmp_path), ray := FakeRay(lost=1))
    assert len(ray.actors) == 5
    assert [error for _, error in ended.values()] == [None] * 4
    (tmp_path / "twice").mkdir()
    text = suite_file(tmp_path, a="seeds = 2 -> seeds = 1", b="[algorithms.rlpd] -> ").read_text()
    twice = suite_file(tmp_path / "twice", text.replace(str(tmp_path), str(tmp_path / "twice")))
    ((_, error),) = made(twice, FakeRay(lost=2)).values()
    assert error is not None and "its process ended with status -9" in error


def test_a_failure_is_told_as_one_here(tmp_path):
    path = suite_file(tmp_path, a="= 20 -> = 20\noptions.train.discount = 0.5")
    assert {error for _, error in made(path, FakeRay()).values()} == {"the arm fell off"}


def test_a_stop_reaches_runs_that_go_on_and_those_that_wait_for_room(tmp_path):
    path = suite_file(tmp_path, a="= 20 -> = 20\noptions.train.discount = 0.7")
    stop = threading.Event()
    begun = tmp_path / "runs" / "expo-probe-delay" / "s0" / "config.json"
    threading.Thread(target=lambda: (wait_for(begun, "}"), stop.set()), daemon=True).start()
    assert set(made(path, FakeRay(), stop).values()) == {(None, None)}
    stop = threading.Event()
    assert set(made(path, FakeRay(full=stop), stop).values()) == {(None, None)}


def test_a_machine_without_the_shared_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray_module, "write_text", lambda path, text: path.write_text("other"))
    errors = {error for _, error in made(suite_file(tmp_path), FakeRay()).values()}
    assert len(errors) == 1
    assert "does not have the folder" in (said := errors.pop()) and "all of them share" in said


def test_runs_of_a_machine_have_cores_of_their_own():
    cores = on_ray_module._Cores()
    usable = [0, 2, 4, 6, 8]
    assert cores.take("a", usable, 2) == [0, 2] and cores.take("a", usable, 2) == [4, 6]
    assert cores.take("b", usable, 2) == [0, 2]
    assert cores.take("a", usable, 2) == usable  # too few are free
    cores.give_back("a", [0, 2])
    assert cores.take("a", usable, 2) == [0, 2]


@pytest.mark.parametrize(
    ("cpus", "share", "room"), [(8.0, Share(3), 2), (8.0, Share(1, 0.5), 4), (2.0, Share(4), 0)]
)
def test_room_of_a_cluster(tmp_path, cpus, share, room):
    if room:
        assert RayRuns(FakeRay(cpus), tmp_path, share).room == room
    else:
        with pytest.raises(ValueError, match="has 4 CPUs and 0 GPUs for a run: ask for less"):
            RayRuns(FakeRay(cpus), tmp_path, share)


def test_lines_are_given_once_and_the_end_is_told_again(tmp_path):
    host = RunHost()
    for line in ("a\n", "b\n", None):
        host._lines.put(line)
    assert host.news() == ["a\n", "b\n"] and host.news() is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--address", "auto"], "--address is for runs on Ray: add --ray"),
        (["--cpus", "2"], "--cpus is for runs on Ray"),
        (["--ray", "--cpus", "0"], "--cpus must be at least 1, got 0."),
        (["--ray", "--gpus", "-1"], "must be in [0, 1024], got -1"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, args, message, capsys):
    assert main(["bench", str(suite_file(tmp_path)), *args]) == 2
    assert message in capsys.readouterr().err


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["bench", str(suite_file(tmp_path)), "--ray"]) != 0
    assert "--ray needs Ray: pip install 'exporl[ray]'" in capsys.readouterr().err


@pytest.mark.slow
def test_real_ray_makes_the_same_table(tmp_path, capsys):
    pytest.importorskip("ray", reason="needs Ray: pip install 'exporl[ray]'")
    here, there = (suite_file(folder) for folder in folders(tmp_path))
    assert main(["bench", str(here), "--jobs", "1"]) == 0
    assert main(["bench", str(there), "--ray"]) == 0
    out = capsys.readouterr().out
    assert "all 4 runs are finished" in out and "[4/4] " in out
    assert table_of(here, capsys) == table_of(there, capsys)
    runs = there.parent / "runs"
    kept = [(run / "output.txt").is_file() for run in runs.glob("*-probe-delay/s*")]
    assert kept == [True] * 4
    # an unfinished run goes on, in its share of the cores, and a failure is listed
    os.remove(runs / "expo-probe-delay" / "s0" / "summary.json")
    assert main(["bench", str(there), "--ray"]) == 0
    assert "3 of 4 runs are finished already" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no Ray cluster answers there"):  # noqa: SIM117
        with on_ray(runs, Share(), "127.0.0.1:1"):
            pass
