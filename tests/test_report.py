"""The report: right numbers, nothing loaded from anywhere, hostile text escaped, small."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from exporl.report.document import ASSETS, SCRIPTS, asset
from exporl.report.findings import dip
from exporl.report.page import read_run, write_report
from helpers.reports import (
    change_evaluations,
    chart,
    chart_titles,
    drawn,
    fake_run,
    film_run,
    outcome,
    write_metrics,
)


def test_numbers_in_the_report(tmp_path):
    expo = fake_run(tmp_path / "expo", [10, 3, 18], [9, 9, 11])
    rlpd = fake_run(tmp_path / "rlpd", [0, 1, 2], None, "rlpd")
    page = write_report([expo, rlpd], tmp_path / "report.html").read_text()
    assert "EXPO, seed 0</b>: +45 points" in page
    assert "at step 1,000, was -30 points" in page and "a dip below the base" in page
    assert "90% [70, 97]" in page and "10% [3, 30]" in page
    assert "Configuration of expo" in page


def test_learning_curves(tmp_path):
    runs = [fake_run(tmp_path / f"s{i}", [10, 20 - 10 * i], [9, 9], seed=i) for i in range(2)]
    page = write_report(runs, tmp_path / "r.html").read_text()
    lines = chart(page, "Success over")["lines"]
    together = lines["EXPO"]
    assert together["x"] == [0, 1000] and together["y"] == [0.5, 0.75]
    assert together["seconds"] == [0, 10]
    assert together["low"][1] < 0.6 and together["high"][1] > 0.9
    assert lines["s1"]["y"] == [0.5, 0.5] and lines["s1"]["thin"] and lines["s1"]["kind"] == "seeds"
    assert lines["base of EXPO"]["y"] == [0.45, 0.45] and lines["base of EXPO"]["dash"] == 1


def test_what_can_be_hidden(tmp_path):
    runs = [fake_run(tmp_path / f"s{i}", [10, 12], [9, 9], seed=i) for i in range(2)]
    runs.append(fake_run(tmp_path / "rlpd", [0, 1], None, "rlpd"))
    data = drawn(write_report(runs, tmp_path / "r.html").read_text())
    rows = {prefix: [name for name, *_ in names] for _, prefix, names in data["controls"]}
    assert rows["group"] == ["EXPO", "RLPD"] and rows["run"] == ["s0", "s1", "rlpd"]
    assert rows["kind"] == ["base", "seeds", "intervals"]


def captions(page):
    """Names of the metrics of every chart, in order."""
    found = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    return [re.findall(r"<b>(.*?)</b>", caption) for caption in found]


def test_every_metric_is_drawn_under_its_prefix_and_described(tmp_path):
    run = fake_run(tmp_path / "expo", [10, 12], [9, 9])
    names = ["edit/entropy", "edit/target_entropy", "edit/max_entropy", "critic/q_min", "mine/new"]
    names += ["critic/q_max", "critic/q_spread", "critic/q_online", "critic/target_mean"]
    write_metrics(run, [{"phase": "online", "env_steps": i, "updates": i} | dict.fromkeys(names, i)
                        for i in range(3)])  # fmt: skip
    glossary = {"critic/q_min": "least Q < all", "critic/q_max": "most Q", "edit/entropy": "nats"}
    (run / "glossary.json").write_text(json.dumps(glossary))
    page = write_report([run], tmp_path / "r.html").read_text()
    expected = [
        ["critic/q_min", "critic/q_max"],
        ["critic/q_spread"],
        ["critic/q_online"],
        ["critic/target_mean"],
        ["edit/entropy", "edit/target_entropy", "edit/max_entropy"],
        ["mine/new"],
    ]
    assert captions(page) == expected
    assert chart_titles(page)[-6:] == [" and ".join(names) for names in expected]
    assert re.findall(r"<h3>(.*?)</h3>", page)[-3:] == ["critic", "edit", "mine"]
    assert "least Q &lt; all" in page and "nats" in page
    assert chart(page, "critic/q_min")["lines"]["critic/q_max"]["y"] == [0, 1, 2]


def test_metrics_of_several_runs_share_charts(tmp_path):
    runs = [fake_run(tmp_path / f"s{i}", [10, 12], [9, 9], seed=i) for i in range(2)]
    page = write_report(runs, tmp_path / "r.html").read_text()
    assert captions(page) == [["critic/loss"], ["edit/picked"]]
    assert list(chart(page, "critic/loss")["lines"]) == ["s1", "s0"]


def test_what_was_logged_once_is_a_number(tmp_path):
    run = fake_run(tmp_path / "s0", [10], [9])
    write_metrics(run, [{"phase": "online", "env_steps": 50, "critic/loss": 0.125}])
    page = write_report([run], tmp_path / "r.html").read_text()
    assert chart_titles(page) == [] and "0.125 at step 50" in page
    assert "One evaluation so far: its numbers are in the table." in page


def test_a_damaged_glossary_is_named(tmp_path):
    run = fake_run(tmp_path / "run", [10], [9])
    (run / "glossary.json").write_text("[1")
    page = write_report([run], tmp_path / "r.html").read_text()
    assert "glossary.json is not valid JSON" in page and "Damaged files" in page


def test_dip_is_paired_and_finds_the_worst(tmp_path):
    run = read_run(fake_run(tmp_path / "run", [2, 6, 18], [9, 9, 11]))
    step, mean, low, high = dip(run)
    assert (step, round(mean, 3)) == (1000, -0.15)
    assert low <= mean <= high < 0.001
    assert dip(read_run(fake_run(tmp_path / "one", [2], [9]))) is None
    assert dip(read_run(fake_run(tmp_path / "rlpd", [2, 3], None, "rlpd"))) is None


def test_evaluations_of_different_length_pair_on_the_starts_they_share(tmp_path):
    run = fake_run(tmp_path / "run", [2, 18], [9, 9])
    first = [True, False, False, False]

    def change(i, line):
        if i == 1:
            success = [True, True, True, False]
            return line | {"policy": {"success": success, "success_rate": 0.75}}
        line["base"] = {"success": first + line["base"]["success"][4:], "success_rate": 6 / 20}
        return line

    change_evaluations(run, change)
    assert dip(read_run(run))[:2] == (1000, 0.5)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "EXPO, seed 0</b>: +50 points" in page and "(same 4 starts)" in page


class Parts(HTMLParser):
    """Everything a page would load, its scripts, and whether its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.loaded, self.open, self.scripts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag not in {"meta", "br", "img", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def test_self_contained_well_formed_and_escaped(tmp_path):
    run = fake_run(tmp_path / "<img src=x onerror=alert(1)> <&script>", [10, 12], [9, 9])
    page = write_report([run], tmp_path / "r.html").read_text()
    parts = Parts()
    parts.feed(page)
    assert parts.loaded == [] and set(parts.open) <= {"li", "p"}
    assert parts.scripts[1:] == [asset(name) for name in SCRIPTS]
    assert "<img" not in page


def test_only_the_librarys_scripts_may_run(tmp_path):
    page = write_report([fake_run(tmp_path / "s0", [10, 12], [9, 9])], tmp_path / "r.html")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page.read_text())[1]
    assert policy.startswith("default-src 'none';") and "script-src 'sha256-" in policy
    for name in SCRIPTS:
        digest = hashlib.sha256((ASSETS / name).read_bytes()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy


UPLOT = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
"""Files of uPlot 1.6.32 as its npm package has them -> SHA-256."""


@pytest.mark.parametrize("name", UPLOT)
def test_the_plotting_library_is_as_published(name):
    assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == UPLOT[name]
    assert "1.6.32" in (ASSETS / "README.md").read_text()


def test_scripts_can_stand_in_a_page():
    for name in SCRIPTS:
        assert "</script" not in asset(name).lower() and "<!--" not in asset(name)
    longest = max(map(len, asset("report.js").splitlines()))
    assert longest <= 100 and len(asset("report.js").splitlines()) <= 450


def test_forty_runs_stay_small(tmp_path):
    """40 long runs with the metrics of EXPO, six evaluations."""
    names = [f"critic/metric_{i}" for i in range(36)]
    pytest.importorskip("PIL", reason="the extra exporl[video] is not installed")
    runs = []
    for i in range(40):
        run = fake_run(tmp_path / f"s{i}", [10] * 6, [8] * 6, seed=i)
        lines = [{"phase": "online", "env_steps": 250 * k} for k in range(101)]
        for k, line in enumerate(lines):
            line |= {name: (k * j + i) / 7 for j, name in enumerate(names)}
        write_metrics(run, lines)
        values = {"values": [i / 3] * 20, "discounted": [i / 7] * 20, "cut_off": [False] * 20}
        change_evaluations(run, lambda _, line, v=values: line | {"policy": outcome(10) | v})
        film_run(run)
        runs.append(run)
    page = write_report(runs, tmp_path / "r.html")
    assert page.stat().st_size <= 3 * 10**6
    shown = page.read_text().count("<img ")
    assert 40 <= shown < 80 and page.read_text().count("3 more in its folder") >= 1


def test_films_are_shown_with_how_their_episodes_went(tmp_path):
    pytest.importorskip("PIL", reason="the extra exporl[video] is not installed")
    run = fake_run(tmp_path / "s0", [10, 12], [9, 9])
    plain = write_report([run], tmp_path / "r.html").read_text()
    assert "img-src" not in plain and "<img" not in plain
    film_run(run)
    page = write_report([run], tmp_path / "r.html").read_text()
    assert "default-src 'none'; img-src data:; style-src" in page
    assert [found[0] for found in re.findall(r"<b>(policy|base)</b>, (episode \d)", page)] == [
        "policy", "base", "policy", "base"
    ]  # fmt: skip
    assert "episode 0, success after 7 steps, return -3.50" in page
    assert "episode 1, no success in 7 steps" in page and "c/base-01.mp4" in page
    for found in re.findall(r"src='data:image/jpeg;base64,([A-Za-z0-9+/=]*)'", page):
        assert base64.b64decode(found) == (run / "videos" / "c" / "policy-00.jpg").read_bytes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"strip": "../config.json"}, "lies outside"),
        ({"strip": "/etc/passwd"}, "lies outside"),
        ({"strip": "linked.jpg"}, "is a symbolic link"),
        ({"strip": "films.json"}, "is no JPEG"),
        ({"strip": "gone.jpg"}, "is no JPEG"),
        ({"success": "<script>"}, "success is &#x27;&lt;script&gt;&#x27;, not a bool"),
        ({"return": None}, "return is None, not a float"),
        ({"file": "<img src=x>"}, None),
    ],
    ids=lambda change: str(change)[:30],
)
def test_damaged_and_hostile_films_are_left_out_and_told(tmp_path, change, expected):
    pytest.importorskip("PIL", reason="the extra exporl[video] is not installed")
    run = fake_run(tmp_path / "s0", [10, 12], [9, 9])
    film_run(run)
    (run / "videos" / "linked.jpg").symlink_to(run / "videos" / "c" / "base-00.jpg")
    path = run / "videos" / "films.json"
    record = json.loads(path.read_text())
    record["films"][1] |= change
    path.write_text(json.dumps(record))
    page = write_report([run], tmp_path / "r.html").read_text()
    shown = 4 if expected is None else 3
    assert page.count("<img ") == shown and page.count("<img src=x") == 0
    assert expected is None or ("film 1: " in page and expected in page)


def test_nothing_to_report(tmp_path):
    fake_run(tmp_path / "run", [], [])
    with pytest.raises(ValueError, match="nothing to report yet"):
        write_report([tmp_path / "run"], tmp_path / "r.html")
