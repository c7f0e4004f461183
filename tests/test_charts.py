"""Charts as they are read: round numbers on titled axes, shares from 0 to 1, wide ones to push
aside on a telephone, points that a finger reaches."""

import json
import re
from xml.etree import ElementTree

import pytest

from exporl.report.axes import MOST_TICKS, percent, round_ticks, short
from exporl.report.charts import REACH, Series, large_chart, line_chart
from exporl.report.page import write_report
from helpers.reports import fake_run


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.02, 0.98, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (2.26, 4.08, [2, 2.5, 3, 3.5, 4, 4.5]),
        (-1579, -1307, [-1600, -1500, -1400, -1300]),
        (0, 20_000, [0, 5_000, 10_000, 15_000, 20_000]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (5, 5, [0, 1, 2, 3, 4, 5]),
        (-3e-7, -3e-7, [-3e-7, -2e-7, -1e-7, 0]),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert round_ticks(low, high)[-len(ticks) :] == pytest.approx(ticks, abs=1e-12)
    assert all(str(tick) != "-0.0" for tick in round_ticks(low, high))


def test_ticks_hold_every_range_and_are_few():
    for power in range(-12, 13):
        for factor in (1.0, 1.7, 2.4, 3.3, 4.9, 6.1, 9.99):
            high = factor * 10.0**power
            for low in (0.0, -high, 0.31 * high, 0.99 * high):
                ticks = round_ticks(low, high)
                assert ticks[0] <= low + 1e-9 * high and ticks[-1] >= high * (1 - 1e-9)
                assert 2 <= len(ticks) <= MOST_TICKS + 2


@pytest.mark.parametrize(
    ("low", "high"), [(-1e308, 1e308), (5e-324, 5e-324), (1e15, 1e15 + 0.125), (0, 1e-310)]
)
def test_extreme_numbers_have_ticks_too(low, high):
    ticks = round_ticks(low, high)
    assert 2 <= len(set(ticks)) == len(ticks) <= MOST_TICKS + 2
    drawn, _ = chart(((0, 100), (low, high)))
    assert "nan" not in drawn and "inf" not in drawn


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.25, "0.25"), (1500, "1.5k"), (20_000, "20k"), (2.5e6, "2.5M"), (-3e9, "-3G")],
)
def test_numbers_are_short(value, words):
    assert short(value) == words
    assert percent(0.25) == "25%"


def chart(*lines, **options):
    series = [
        Series(f"line {i}", list(map(float, x)), list(map(float, y)), "#000")
        for i, (x, y) in enumerate(lines)
    ]
    drawn = line_chart(series, width=340, height=220, y_title="loss (nats)", **options)
    return drawn, ElementTree.fromstring(drawn)


def words_of(root, kind):
    return [node.text for node in root.iter("text") if node.get("class") == kind]


def test_axes_have_titles_and_the_chart_a_name():
    drawn, root = chart(((0, 100), (1.0, 2.0)))
    assert words_of(root, "title") == ["environment steps", "loss (nats)"]
    assert root.get("aria-label") == "loss (nats) over environment steps"
    assert "<script" not in drawn


def test_shares_end_at_one_and_nothing_is_not_made_to_look_like_something():
    _, root = chart(((0, 100), (0.03, 1.0)))
    assert words_of(root, "tick")[:6] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    _, root = chart(((0, 100), (0.0, 0.0)))
    assert words_of(root, "tick")[:6] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    _, root = chart(((0, 100), (0.0, 1.0)), in_percent=True)
    assert words_of(root, "tick")[:6] == ["0%", "20%", "40%", "60%", "80%", "100%"]


def test_everything_lies_within_the_chart():
    _, root = chart(((0, 1234), (-17.3, 4211.0)), ((5, 99), (3.0, 3.0)))
    for circle in root.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= 340 and 0 <= float(circle.get("cy")) <= 220


def test_points_say_what_they_are_to_a_finger_and_to_the_keyboard():
    _, root = chart(((0, 100), (1.0, 2.0)))
    points = [node for node in root.iter("g") if node.get("class") == "point"]
    assert len(points) == 2 and all(point.get("tabindex") == "0" for point in points)
    reach, dot = points[1].findall("circle")
    assert float(reach.get("r")) == REACH >= 12 and float(dot.get("r")) <= 4
    assert points[1].find("title").text == words_of(points[1], "said")[0] == "line 0: 2 at 100"


def test_a_long_line_is_not_covered_with_targets():
    _, root = chart((range(500), range(500)))
    points = [node for node in root.iter("g") if node.get("class") == "point"]
    assert not any(point.get("tabindex") for point in points) and not words_of(root, "said")


def test_a_wide_chart_and_a_table_can_be_pushed_aside(tmp_path):
    page = write_report([fake_run(tmp_path / "s0", [10, 12], [9, 9])], tmp_path / "r.html")
    text = page.read_text()
    style = text.split("<style>")[1].split("</style>")[0]
    assert ".wide{overflow-x:auto}" in style
    narrowest = int(re.search(r"\.wide svg\{min-width:(\d+)px", style)[1])
    width = int(re.search(r'<div class="wide"><svg viewBox="0 0 (\d+)', text)[1])
    font = int(re.search(r"svg text\{font-size:(\d+)px", style)[1])
    assert font * narrowest / width >= 9
    assert '<div class="wide"><table>' in text and "<table" not in text.replace(
        '<div class="wide"><table>', ""
    )
    assert "width=device-width" in text


def test_what_was_measured_once_is_a_number_and_no_chart(tmp_path):
    assert "One evaluation so far" in large_chart([Series("a", [0.0], [1.0], "#000")], y_title="y")
    run = fake_run(tmp_path / "s0", [10], [9])
    line = {"phase": "online", "env_steps": 50, "critic/loss": 0.125}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    page = write_report([run], tmp_path / "r.html").read_text()
    assert "<svg" not in page and "0.125 at step 50" in page
    assert "One evaluation so far: its numbers are in the table." in page
