"""The report in a real browser: drawn at every width, in light and in dark, without a complaint;
lines are hidden and shown, axes change, values are said, the page shows itself again; and nothing
that a run says is run."""

import json

import pytest

from exporl.report.page import write_report
from helpers.browser import browser
from helpers.reports import change_evaluations, drawn, fake_run, film_run, write_metrics

ALERT = "<img src=x onerror='window.ran=1'></script><script>window.ran=1</script>"
STARTS = {"values": [-3.0, -2.0, -9.0], "discounted": [-4.0, -2.5, -5.0],
          "cut_off": [False, False, True]}  # fmt: skip
LARGEST = 1.7976931348623157e308


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two seeds of EXPO, RLPD under a hostile name, a guard, values, numbers of every size."""
    folder = tmp_path_factory.mktemp("report")
    runs = [
        fake_run(folder / "s0", [10, 3, 18], [9, 9, 11]),
        fake_run(folder / "s1", [9, 12, 20], [9, 9, 11], seed=1),
        fake_run(folder / "hostile", [0, 1, 2], None, "rlpd"),
    ]
    for run in runs[:2]:
        change_evaluations(run, lambda _, line: line | {"policy": line["policy"] | STARTS})
        write_metrics(run, [
            {"phase": "online", "env_steps": 250 * i, "guard/base": 0.5, "guard/explore": i / 8,
             "deployed": ["base", "explore"][i > 3], "critic/loss": 2.0 ** -i,
             "critic/huge": LARGEST * (-1) ** i, "critic/tiny": 5e-324 * i, "critic/none": 0.0}
            for i in range(9)
        ])  # fmt: skip
    config = json.loads((runs[2] / "config.json").read_text()) | {"algorithm": "rlpd" + ALERT}
    (runs[2] / "config.json").write_text(json.dumps(config))
    return write_report(runs, folder / "report.html")


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A browser, with whose page tests begin anew."""
    with browser(tmp_path_factory.mktemp("profile") / "p") as found:
        yield found


COLORED = """
[...document.querySelectorAll('canvas')].map(canvas => {
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3]) seen.add(data[i] + ',' + data[i+1]);
  return seen.size;
})
"""
"""How many colours each chart has."""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_chart_is_drawn(page, tab, width, dark):
    tab.open(page, width, dark=dark)
    for element in range(tab.run("document.querySelectorAll('.chart').length")):
        tab.run(f"document.querySelectorAll('.chart')[{element}].scrollIntoView()")
        tab.settle()
    charts = len(drawn(page.read_text())["charts"])
    assert tab.run("document.querySelectorAll('.chart canvas').length") == charts > 6
    assert min(tab.run(COLORED)) >= 2
    assert tab.run("document.documentElement.scrollWidth") <= width
    narrowest = "Math.min(...[...document.querySelectorAll('.chart')].map(e => e.clientWidth))"
    assert tab.run(narrowest) >= 280
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(17, 20, 24)" if dark else "rgb(255, 255, 255)")
    assert tab.errors == [] and tab.run("window.ran") is None


def press(tab, words):
    """Presses the first button with these words; whether it is pressed then."""
    found = tab.run(
        "(() => { const made = [...document.querySelectorAll('button')]"
        f".find(each => each.textContent === {json.dumps(words)}); made.click();"
        " return made.getAttribute('aria-pressed') })()"
    )
    tab.settle()
    return found == "true"


def shown(tab):
    """Names of the lines of the first chart that are drawn."""
    return set(tab.run(
        "(() => { const chart = page.charts[0];"
        " return chart.lines.filter(line => isShown(chart, line)).map(line => line.name) })()"
    ))  # fmt: skip


def picture(tab):
    """The pixels of the first chart."""
    return tab.run("document.querySelector('canvas').toDataURL()")


def test_algorithms_runs_and_kinds_are_hidden_and_shown(page, tab):
    tab.open(page)
    tab.run("sessionStorage.clear()")
    tab.reload()
    everything, before = shown(tab), picture(tab)
    assert {"EXPO", "s0", "s1", "base of EXPO"} <= everything
    assert press(tab, "EXPO") is False
    assert not shown(tab) & {"EXPO", "s0", "base of EXPO"} and picture(tab) != before
    assert press(tab, "EXPO") is True
    assert shown(tab) == everything and picture(tab) == before
    assert press(tab, "s0") is False and everything - shown(tab) == {"s0", "s0, base"}
    press(tab, "s0"), press(tab, "base policies")
    assert not any("base" in name for name in shown(tab))
    press(tab, "base policies"), press(tab, "intervals")
    assert shown(tab) == everything and picture(tab) != before
    tab.reload()
    assert tab.run("hidden.has('kind:intervals')"), "what is hidden stays so"
    press(tab, "intervals")
    assert picture(tab) == before and tab.errors == []


def test_axes_change(page, tab):
    tab.open(page)
    tab.run("sessionStorage.clear()")
    tab.reload()
    plot = "drawn.get(document.querySelector('.chart'))"
    assert tab.run(f"[{plot}.scales.x.min, {plot}.scales.x.max]") == [0, 2000]
    assert press(tab, "log steps") is True
    assert tab.run(f"[{plot}.scales.x.distr, {plot}.scales.x.min]") == [3, 1000]
    press(tab, "log steps")
    assert press(tab, "over time") is True
    assert tab.run(f"{plot}.scales.x.max") == pytest.approx(20 / 60)
    press(tab, "over time")
    tab.run("[...document.querySelectorAll('button')].filter(b => b.textContent === 'log values')"
            ".forEach(b => b.click())")  # fmt: skip
    tab.settle()
    assert tab.errors == []


def test_values_are_said_to_the_pointer_and_to_the_keyboard(page, tab):
    tab.open(page)
    tab.run("sessionStorage.clear()")
    tab.reload()
    tip = "document.querySelector('.tip').textContent"
    tab.run("document.querySelector('.chart').scrollIntoView({block: 'center'})")
    tab.settle()
    x, y = tab.run(
        "(() => { const box = document.querySelector('.u-over').getBoundingClientRect();"
        " return [box.right - 2, box.top + 8] })()"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tab.settle()
    assert "EXPO: 95%" in tab.run(tip) and "at 2k" in tab.run(tip)
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    tab.settle()
    assert tab.run("document.querySelector('.tip').hidden")
    tab.run("document.querySelector('.chart').focus()")
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    tab.settle()
    assert "at 0" in tab.run(tip) and "EXPO: 47.5%" in tab.run(tip)
    assert tab.errors == []


@pytest.mark.parametrize("width", [1280, 390])
def test_films_are_shown(tab, tmp_path, width):
    pytest.importorskip("PIL", reason="the extra exporl[video] is not installed")
    run = fake_run(tmp_path / "s0", [10, 3], [9, 9])
    film_run(run)
    tab.open(write_report([run], tmp_path / "r.html"), width)
    sizes = "[...document.images].map(e => [e.complete, e.naturalWidth, e.clientHeight])"
    assert tab.run(sizes) == [[True, 1024, 96]] * 4
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.querySelector('.film').innerText").startswith("policy, episode 0, ")
    assert tab.errors == []


def test_a_watched_page_shows_itself_again(tab, tmp_path):
    """The page asks for a timer; the test lets its time come."""
    later = "window.later = {}; window.setTimeout = (what, ms) => { later[ms] = what; }"
    timer = tab.call("Page.addScriptToEvaluateOnNewDocument", source=later)
    run = fake_run(tmp_path / "s0", [10, 3], [9, 9])
    path = write_report([run], tmp_path / "r.html", refresh_s=7)
    tab.open(path)
    first, plot = tab.loads, "drawn.get(document.querySelector('.chart'))"
    assert tab.run(f"{plot}.scales.x.max") == 1000
    change_evaluations(run, lambda i, line: line | {"env_steps": 1500 * i})
    write_report([run], path)
    tab.run("later[7000]()")
    tab.wait_for_load(first + 1)
    assert tab.run(f"{plot}.scales.x.max") == 1500
    assert tab.run("7000 in later") is False and tab.errors == []
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=timer["identifier"])


def test_the_browser_refuses_what_a_page_was_made_to_run(tab, tmp_path):
    """Also where escaping failed: the page says which scripts may run."""
    page = write_report([fake_run(tmp_path / "s0", [10, 3], [9, 9])], tmp_path / "r.html")
    page.write_text(page.read_text().replace("<noscript>", ALERT + "<noscript>"))
    tab.open(page)
    assert tab.run("window.ran") is None
    assert any("Content Security Policy" in error for error in tab.errors)
    assert tab.run("document.querySelectorAll('canvas').length") > 0
    tab.errors.clear()
