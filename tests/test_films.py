"""Films of evaluations: every picture of every filmed episode is in its file, the evaluation does
not notice, and whoever cannot be filmed says why."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from exporl.acting.asked import Asked
from exporl.acting.evaluate import evaluate
from exporl.acting.failures import in_words
from exporl.acting.filming import Film, check_can_film, take_picture
from exporl.cli.films import Filming
from exporl.cli.main import main
from exporl.envs import cameras, make_task
from exporl.envs.cameras import CannotDraw, draw_without_screen
from exporl.envs.probes import Probe
from exporl.files.atomic import read_lines
from exporl.files.bundle import MANIFEST
from exporl.files.movies import (
    STRIP_HEIGHT,
    FilmNotWritten,
    MovieWriter,
    read_movie,
    require_packages,
)
from exporl.randomness import env_seed
from exporl.types import Decision

av = pytest.importorskip("av", reason="the extra exporl[video] is not installed")
Image = pytest.importorskip("PIL.Image", reason="the extra exporl[video] is not installed")


class Walk(gymnasium.Env):
    """A random walk that ends at 3 or after 9 steps; its picture is as bright as it is far."""

    render_mode = "rgb_array"

    def __init__(self, pictures=None):
        self.observation_space = gymnasium.spaces.Dict(
            {"state": gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 25}
        self.pictures = pictures if pictures is not None else []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = 0.0, 0
        return self.seen(), {"success": False}

    def step(self, action):
        self.at += float(action[0]) + self.np_random.uniform(-0.9, 0.6)
        self.steps += 1
        there = self.at > 3
        ended = there, not there and self.steps == 9
        return self.seen(), float(there), *ended, {"success": there}

    def seen(self):
        return {"state": np.array([self.at], np.float32)}

    def render(self):
        level = int(np.clip(40 + 40 * self.at, 0, 255))
        self.pictures.append(level)
        return np.full((49, 64, 3), level, np.uint8)


def act(acting, observation, key, *, mode):
    """Half a step, more for whoever is behind."""
    return Decision(np.array(0.5 - 0.1 * observation["state"][:, None], np.float32), {})


def played(film=None, episodes=8, envs=3):
    made = [Walk() for _ in range(envs)]
    seen = made if film is None else film.around(made, 3)
    result = evaluate(seen, act, None, float, episodes=episodes, seed=3, execute_length=1)
    if film is not None:
        film.finish(result.success, result.returns, result.lengths)
    return result, made


def test_every_picture_is_in_the_film_and_the_evaluation_does_not_notice(tmp_path):
    expected, _ = played()
    assert {True, False} == set(expected.success)
    with Film(tmp_path / "films", "policy", 3) as film:
        result, envs = played(film)
    assert result == expected
    assert [each.episode for each in film.films] == [0, 1, 2]
    for each in film.films:
        how = "success" if expected.success[each.episode] else "failure"
        total = expected.returns[each.episode]
        name = f"policy-{each.episode:02d}_{how}_return{total:+.2f}"
        assert each.file.name == f"{name}.mp4" and each.strip.name == f"{name}.jpg"
        pictures = read_movie(each.file)
        assert pictures.shape == (expected.lengths[each.episode] + 1, 48, 64, 3)
        with av.open(str(each.file)) as container:
            assert container.streams.video[0].average_rate == 25
    assert len(list((tmp_path / "films").iterdir())) == 6
    for each in film.films[:2]:
        brightness = read_movie(each.file).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(
            brightness, envs[each.episode].pictures[: len(brightness)], atol=4
        )


def test_a_strip_shows_the_first_and_the_last_picture(tmp_path):
    with Film(tmp_path, "base", 1) as film:
        played(film)
    (each,) = film.films
    pictures, strip = read_movie(each.file), np.asarray(Image.open(each.strip))
    width = round(64 * STRIP_HEIGHT / 48)
    count = min(8, len(pictures))
    assert strip.shape == (STRIP_HEIGHT, count * (width + 2) - 2, 3)
    assert abs(strip[40, 10].mean() - pictures[0].mean()) < 6
    assert abs(strip[40, -10].mean() - pictures[-1].mean()) < 6
    assert each.strip.stat().st_size < 20_000


def test_what_is_cut_off_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), Film(tmp_path / "a", "policy", 1) as film:
        (env,) = film.around([Walk()], 3)
        env.reset(seed=next(iter(env._wanted)))
        raise KeyboardInterrupt
    assert list((tmp_path / "a").iterdir()) == []  # it is there: filming had begun


def test_pictures_of_another_size_are_refused(tmp_path):
    movie = MovieWriter(tmp_path, 10.0)
    movie.add(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\(8, 10, 3\) after pictures of shape \(8, 8, 3\)"):
        movie.add(np.zeros((8, 10, 3), np.uint8))
    movie.discard()
    assert list(tmp_path.iterdir()) == []


class Noise(Walk):
    """Pictures that take room."""

    def render(self):
        return self.np_random.integers(0, 255, (96, 96, 3), np.uint8)


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_no_fault_of_the_environment(tmp_path):
    message = rf"cannot be written into {tmp_path}/films: File too large. Make room there, or"
    with (
        Film(tmp_path / "films", "policy", 1) as film,
        pytest.raises(FilmNotWritten, match=message),
        files_of_at_most(2**15),
    ):
        asked = Asked(film.around([Noise()], 3), float, evaluating=True)
        asked.reset(0, episode=0, seed=env_seed(3, 0))
        for _ in range(1000):
            asked.step(0, np.zeros(1, np.float32))
    assert list((tmp_path / "films").iterdir()) == []


def test_a_disk_that_is_full_in_the_end_leaves_no_film(tmp_path):
    movie, rng = MovieWriter(tmp_path, 10.0), np.random.default_rng(0)
    for _ in range(5):
        movie.add(rng.integers(0, 255, (96, 96, 3), np.uint8))
    with pytest.raises(FilmNotWritten, match="File too large"), files_of_at_most(1000):
        movie.close(tmp_path / "film.mp4")
    movie.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "picture", "expected"),
    [
        (None, None, "render_mode is None.*made with render_mode='rgb_array'"),
        ("human", None, "render_mode is 'human'"),
        ("rgb_array", None, "render.. of Walk gave NoneType"),
        ("rgb_array", np.zeros((4, 4, 3)), "gave float64 of shape"),
        ("rgb_array", np.zeros((4, 4), np.uint8), r"gave uint8 of shape \(4, 4\)"),
    ],
)
def test_an_environment_without_pictures_says_what_to_do(mode, picture, expected):
    env = Walk()
    env.render_mode, env.render = mode, lambda: picture
    with pytest.raises(ValueError, match=expected):
        take_picture(env)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "av" else name)
    with pytest.raises(ModuleNotFoundError, match=r"av cannot be found.*exporl\[video\]"):
        require_packages()


def test_films_do_not_go_through_links(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "videos").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(ValueError, match="is a symbolic link"),
        Filming(tmp_path / "videos", "x", 1, None).of("policy"),
    ):
        pass


@pytest.mark.parametrize("there", [["EGL", "OSMesa"], ["OSMesa"], []])
def test_what_draws_without_a_screen_is_chosen(monkeypatch, there):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cameras.sys, "platform", "linux")
    found = "ctypes.util.find_library"
    monkeypatch.setattr(found, lambda name: f"lib{name}.so" if name in there else None)
    draw_without_screen()
    expected = {"EGL": "egl", "OSMesa": "osmesa"}[there[0]] if there else None
    assert os.environ.get("MUJOCO_GL") == expected
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    draw_without_screen()
    assert os.environ["MUJOCO_GL"] == "glfw"


def test_a_machine_that_cannot_draw_says_what_to_install(monkeypatch, recwarn):
    mujoco = pytest.importorskip("mujoco", reason="no extra with MuJoCo is installed")
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody/></mujoco>")

    def broken(*size):
        raise ImportError("Cannot initialize a EGL device display.")

    size = model.vis.global_.offwidth
    monkeypatch.setattr(mujoco, "Renderer", broken)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(CannotDraw, match=r"EGL device display.*is 'egl'.*MUJOCO_GL=osmesa"):
        cameras.MujocoCamera("front").picture(model, mujoco.MjData(model))
    assert model.vis.global_.offwidth == size and len(recwarn) == 0


def test_an_environment_that_cannot_be_made_names_what_draws(monkeypatch):
    def broken():
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(AttributeError) as caught:
        check_can_film(broken)
    assert "MUJOCO_GL is 'egl'" in in_words(caught.value)
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(AttributeError) as caught:
        check_can_film(broken)
    assert "MUJOCO_GL" not in in_words(caught.value)


CAN_DRAW = """
import os
from exporl.envs.cameras import draw_without_screen
draw_without_screen()
import numpy as np
from exporl.envs.cameras import CannotDraw
from exporl.envs.registry import make_task
task = make_task("metaworld/reach-v3")
looked, plain = task.make_env(), task.make_env()
try:
    looked.reset(seed=4), plain.reset(seed=4)
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 4))
    pictures = []
    for action in actions:
        pictures.append(looked.render())
        (a, *_), (b, *_) = looked.step(action), plain.step(action)
        assert a["state"].tobytes() == b["state"].tobytes()
    print(pictures[0].shape, pictures[0].dtype, pictures[0].std() > 10,
          (pictures[0] != pictures[-1]).any())
except CannotDraw as error:
    print(f"no: {error}")
finally:
    looked.close(), plain.close()
"""
"""Meta-World with and without pictures, in a process that has not imported MuJoCo yet."""


@pytest.mark.slow
def test_mujoco_is_looked_at_without_changing_it():
    pytest.importorskip("metaworld", reason="the extra exporl[metaworld] is not installed")
    done = subprocess.run(
        [sys.executable, "-c", CAN_DRAW], capture_output=True, text=True, check=True
    )
    if done.stdout.startswith("no: "):
        pytest.skip(done.stdout)
    assert done.stdout.split("\n")[0] == "(240, 320, 3) uint8 True True"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["driving/parking", "driving/racetrack", "pusht/state-95"])
def test_simulators_are_looked_at_without_changing_them(name, monkeypatch):
    package = {"driving": "highway_env", "pusht": "gym_pusht"}[name.split("/")[0]]
    pytest.importorskip(package, reason="the extra of its family is not installed")
    draw_without_screen()
    looked, plain = make_task(name).make_env(), make_task(name).make_env()
    looked.reset(seed=4), plain.reset(seed=4)
    pictures = []
    for action in np.random.default_rng(0).uniform(-1, 1, (12, 2)):
        pictures.append(take_picture(looked))
        (a, *_), (b, *_) = looked.step(action), plain.step(action)
        assert a["state"].tobytes() == b["state"].tobytes()
    assert pictures[0].std() > 5 and (pictures[0] != pictures[-1]).any()
    looked.close(), plain.close()


@pytest.fixture
def run(tmp_path):
    """A finished run on a probe, which has no pictures of its own."""
    return Path(shutil.copytree(Path(__file__).parent / "data" / "old_run", tmp_path / "run"))


@pytest.fixture
def shown(monkeypatch):
    """Probes have pictures: a bar as long as the step."""

    def render(self):
        picture = np.zeros((32, 48, 3), np.uint8)
        picture[:, : 12 if self._first is None else 24] = 200
        return picture

    monkeypatch.setattr(Probe, "render_mode", "rgb_array", raising=False)
    monkeypatch.setattr(Probe, "render", render)


@pytest.mark.slow
def test_eval_films_and_the_report_shows_it(run, shown, capsys):
    ask = ["eval", str(run), "--episodes", "3"]
    assert main(ask) == 0
    assert not (run / "videos").exists()
    capsys.readouterr()
    assert main([*ask, "--video", "2"]) == 0
    out = capsys.readouterr().out
    assert f"4 films in {run}/videos/checkpoint-" in out and f"exporl report {run}" in out
    plain, filmed = read_lines(run / "eval_afterwards.jsonl")[-2:]
    assert plain == filmed
    record = json.loads((run / "videos" / "films.json").read_text())
    assert record["checkpoint"] == plain["checkpoint"] and record["seed"] == 2_000_003
    assert [(film["who"], film["episode"]) for film in record["films"]] == [
        ("policy", 0), ("policy", 1), ("base", 0), ("base", 1)
    ]  # fmt: skip
    for film in record["films"]:
        assert film["success"] == plain[film["who"]]["success"][film["episode"]]
        assert film["return"] == plain[film["who"]]["returns"][film["episode"]]
        assert len(read_movie(run / "videos" / film["file"])) == film["steps"] + 1 == 2
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert page.count("<img ") == 4 and "img-src data:" in page
    assert record["films"][0]["file"] in page
    elsewhere = run.parent / "elsewhere"
    assert main([*ask, "--video", "--video-dir", str(elsewhere)]) == 0
    assert "exporl report" not in capsys.readouterr().out.split("films in")[1]
    assert len(list(elsewhere.rglob("*.mp4"))) == 6 and (elsewhere / "films.json").is_file()


def test_what_cannot_be_filmed_is_told_before_anything_is_played(run, tmp_path, capsys):
    before = read_lines(run / "eval_afterwards.jsonl")
    assert main(["eval", str(run), "--video"]) == 2
    assert "Probe shows no pictures: its render_mode is None" in capsys.readouterr().err
    assert main(["eval", str(run), "--video-dir", "x"]) == 2
    assert "add --video" in capsys.readouterr().err
    assert read_lines(run / "eval_afterwards.jsonl") == before and not (run / "videos").exists()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / MANIFEST).write_text("{}")
    for place in ([], ["--video-dir", str(tmp_path / "bundle" / "films")]):
        assert main(["eval", str(tmp_path / "bundle"), "--video", *place]) == 2
        assert "into which nothing is written" in capsys.readouterr().err
    (tmp_path / "file").write_text("in the way")
    assert main(["eval", str(run), "--video", "--video-dir", str(tmp_path / "file" / "films")]) == 2
    assert "file/films: Not a directory. Choose another --video-dir" in capsys.readouterr().err
    assert main(["eval", str(run), "--video", "--video-dir", str(tmp_path / "new" / "films")]) == 2
    assert not (tmp_path / "new").exists()
