"""Progress as text and on the terminal: what is known of the time left, and what fits."""

import io
import re

import pytest
from rich.console import Console

from exporl.cli.bars import Bars
from exporl.run.progress import duration


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def piped(interval_s=0.0):
    """Bars that nobody watches, their clock, and what they print."""
    out, clock = io.StringIO(), Clock()
    return Bars(Console(file=out, width=200), interval_s, clock), clock, out


def test_no_time_left_is_told_before_it_is_known():
    bars, clock, _ = piped()
    bar = bars.add("")
    assert bar.line() == "waiting"
    bar.phase("expo", 100, 0)
    clock.now += 500  # compiling, and the first evaluation
    assert bar.line() == "expo 0/100"
    bar.advance(1, "")
    assert bar.line() == "expo 1/100"


def test_the_time_left_follows_from_the_last_steps_and_not_from_what_came_before_them():
    bars, clock, _ = piped()
    bar = bars.add("")
    bar.phase("expo", 100, 0)
    clock.now += 500
    for _ in range(5):
        clock.now += 2
        bar.advance(1, "")
    assert bar.line() == "expo 5/100, about 3 min left"
    bar.advance(0, "12 env steps/s")
    assert bar.line() == "expo 5/100, about 3 min left, 12 env steps/s"


def test_a_resumed_phase_counts_the_steps_of_this_process_only():
    bars, clock, _ = piped()
    bar = bars.add("s3")
    bar.phase("expo", 1000, 900)
    for _ in range(10):
        clock.now += 1
        bar.advance(1, "")
    assert bar.line() == "s3 expo 910/1000, about 90 s left"


def test_what_is_finished_has_no_time_left():
    bars, clock, _ = piped()
    bar = bars.add("s0")
    bar.phase("expo", 3, 0)
    for _ in range(3):
        clock.now += 1
        bar.advance(1, "")
    assert bar.line() == "s0 expo 3/3"


def test_a_line_now_and_then_where_nobody_watches():
    bars, clock, out = piped(interval_s=10.0)
    bar = bars.add("")
    bar.phase("expo", 100, 0)
    for _ in range(25):
        clock.now += 1
        bar.advance(1, "")
    assert out.getvalue().splitlines() == [
        "expo 11/100, about 89 s left",
        "expo 22/100, about 78 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (99.4, "99 s"), (150.0, "2 min"), (5_930.0, "99 min"), (12_240.0, "3.4 h")],
)
def test_times_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_numbers_are_not_cut_off_on_a_narrow_terminal(width):
    out, clock = io.StringIO(), Clock()
    bars = Bars(Console(file=out, width=width, force_terminal=True, color_system=None), 10.0, clock)
    bar = bars.add("")
    bar.phase("expo", 200_000, 0)
    for _ in range(3):
        clock.now += 10
        bar.advance(50_000, "123 env steps/s, last 20 episodes 45%")
    bars.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()[-1]
    assert "expo" in shown and "150000/200000" in shown and "0:00:10" in shown
    assert len(shown.rstrip()) <= width
    assert ("━" in shown) == (width >= 100)


def test_the_bar_of_a_run_that_has_ended_leaves_the_screen():
    out = io.StringIO()
    bars = Bars(Console(file=out, width=200), interval_s=0.0)
    one, two = bars.add("one"), bars.add("two")
    one.phase("expo", 10, 0)
    bars.drop(one)
    two.phase("expo", 10, 0)
    assert out.getvalue().splitlines()[-1] == "two expo 0/10"
