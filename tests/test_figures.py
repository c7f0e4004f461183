"""Charts as data: six digits, nothing that an axis cannot show, axes shared, a place in the page
for each, and a sentence where there is no line to draw."""

import json

import pytest

from exporl.report.figures import Chart, Figures, Line
from exporl.report.markup import json_text, text
from exporl.report.metrics_section import thinned
from exporl.report.numbers import short


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.25, "0.25"), (1500, "1.5k"), (20_000, "20k"), (2.5e6, "2.5M"), (-3e9, "-3G")],
)
def test_numbers_are_short(value, words):
    assert short(value) == words


def made(*lines, **options):
    figures = Figures()
    place = figures.add(Chart("loss over steps", "loss", lines, **options))
    return place, figures.data()


def test_numbers_are_kept_to_six_digits_and_within_what_axes_show():
    x, y = [0.0, 1000.0, 123456789.0], [1 / 3, 1e308, -5e-324]
    _, data = made(Line("a", x, y, low=[0.0] * 3, high=[-1e308] * 3))
    line = data["charts"][0]["lines"][0]
    assert data["axes"] == [[0, 1000, 123457000]]
    assert line["y"] == [0.333333, 1e30, 0] and line["high"] == [-1e30] * 3


def test_lines_share_their_axis():
    steps = [0.0, 10.0]
    _, data = made(Line("a", steps, [1.0, 2.0]), Line("b", steps, [3.0, 4.0]))
    assert [line["x"] for line in data["charts"][0]["lines"]] == [0, 0] and len(data["axes"]) == 1


def test_a_chart_has_a_place_that_is_said_and_reached_by_the_keyboard():
    place, _ = made(Line("a", [0.0, 1.0], [1.0, 2.0]), large=True)
    assert 'data-chart="0"' in place and 'tabindex="0"' in place
    assert 'aria-label="loss over steps"' in place


def test_what_was_measured_once_is_no_chart():
    once = Line("a", [0.0], [1.0])
    assert made(once) == ("", {"charts": [], "axes": []})
    assert "One evaluation so far" in made(once, large=True)[0]
    assert made(once, large=True, points=True)[1]["charts"]


def test_many_points_are_averaged_and_extremes_are_kept():
    x, y = list(range(100)), [float(i % 10) for i in range(100)]
    assert thinned(x, y, "critic/loss", 200) == (list(map(float, x)), y)
    steps, values = thinned(x, y, "critic/loss", 10)
    assert steps == [4.5 + 10 * i for i in range(10)] and values == [4.5] * 10
    assert thinned(x, y, "critic/q_min", 10)[1] == [0.0] * 10
    assert thinned(x, y, "critic/q_max", 10)[1] == [9.0] * 10


def test_json_in_a_page_ends_no_script_and_begins_no_tag():
    hostile = {"</script><!--<script>": ["<img src=x>", "&lt;", "\u2028\u2029"]}
    written = json_text(hostile)
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == hostile
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(float("nan"))
    assert text("<'\">") == "&lt;&#x27;&quot;&gt;"
