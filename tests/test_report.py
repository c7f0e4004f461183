"""The report: right numbers, nothing loaded from anywhere, hostile text escaped, readable by a real
browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from exporl.report.charts import Series, line_chart
from exporl.report.findings import dip
from exporl.report.page import read_run, write_report
from helpers.reports import fake_run


def test_numbers_in_the_report(tmp_path):
    expo = fake_run(tmp_path / "expo", [10, 3, 18], [9, 9, 11])
    rlpd = fake_run(tmp_path / "rlpd", [0, 1, 2], None, "rlpd")
    page = write_report([expo, rlpd], tmp_path / "report.html").read_text()
    assert "EXPO, seed 0</b>: +45 points" in page
    assert "at step 1,000, was -30 points" in page and "a dip below the base" in page
    assert "90% [70, 97]" in page and "10% [3, 30]" in page
    assert "Configuration of expo" in page


def chart_titles(page):
    """Names of the metrics of every chart, in order."""
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    return [re.findall(r"<b>(.*?)</b>", caption) for caption in captions]


def test_every_metric_is_drawn_under_its_prefix_and_described(tmp_path):
    run = fake_run(tmp_path / "expo", [10, 12], [9, 9])
    names = ["edit/entropy", "edit/target_entropy", "edit/max_entropy", "critic/q_min", "mine/new"]
    names += ["critic/q_max", "critic/q_spread", "critic/q_online", "critic/target_mean"]
    lines = [{"phase": "online", "env_steps": i, "updates": i} | dict.fromkeys(names, i)
             for i in range(3)]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    glossary = {"critic/q_min": "least Q < all", "critic/q_max": "most Q", "edit/entropy": "nats"}
    (run / "glossary.json").write_text(json.dumps(glossary))
    page = write_report([run], tmp_path / "r.html").read_text()
    assert chart_titles(page) == [
        ["critic/q_min", "critic/q_max"],
        ["critic/q_spread"],
        ["critic/q_online"],
        ["critic/target_mean"],
        ["edit/entropy", "edit/target_entropy", "edit/max_entropy"],
        ["mine/new"],
    ]
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["critic", "edit", "mine"]
    assert "least Q &lt; all" in page and "nats" in page


def test_runs_without_a_glossary_are_drawn_by_name(tmp_path):
    page = write_report([fake_run(tmp_path / "run", [10], [9])], tmp_path / "r.html").read_text()
    assert chart_titles(page) == [["critic/loss"], ["edit/picked"]]


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
    lines = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    lines[1]["policy"] = {"success": [True, True, True, False], "success_rate": 0.75}
    lines[0]["base"]["success"][:4] = [True, False, False, False]
    lines[0]["base"]["success_rate"] = 6 / 20
    (run / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert dip(read_run(run))[:2] == (1000, 0.5)
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "EXPO, seed 0</b>: +50 points" in page and "(same 4 starts)" in page


def test_several_seeds_are_pooled(tmp_path):
    runs = [fake_run(tmp_path / f"s{i}", [10, 20 - 10 * i], [9, 9], seed=i) for i in range(2)]
    page = write_report(runs, tmp_path / "r.html").read_text()
    assert "EXPO: 75% at 1k" in page
    assert page.count("Diagnostics: ") == 2


class Resources(HTMLParser):
    """Everything a page would load, and whether its tags are balanced."""

    def __init__(self):
        super().__init__()
        self.loaded, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag in {"svg", "table", "figure", "details", "pre", "div", "body", "html"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in {"svg", "table", "figure", "details", "pre", "div", "body", "html"}:
            assert self.open.pop() == tag


def test_self_contained_well_formed_and_escaped(tmp_path):
    run = fake_run(tmp_path / "<img src=x onerror=alert(1)>", [10, 12], [9, 9])
    page = write_report([run], tmp_path / "r.html").read_text()
    parser = Resources()
    parser.feed(page)
    assert parser.loaded == [] and parser.open == []
    assert "<img" not in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page.split("<details>")[0])


def test_chart_handles_flat_and_empty_lines():
    for series in (
        [],
        [Series("a", [], [], "#000")],
        [Series("a", [0.0, 1.0], [2.0, 2.0], "#000")],
    ):
        chart = line_chart(series, width=300, height=200, y_title="loss")
        assert chart.startswith("<svg") and "nan" not in chart and "inf" not in chart


def test_nothing_to_report(tmp_path):
    fake_run(tmp_path / "run", [], [])
    with pytest.raises(ValueError, match="nothing to report yet"):
        write_report([tmp_path / "run"], tmp_path / "r.html")


def test_real_browser_shows_the_report(tmp_path):
    browser = next(
        (b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None
    )
    if browser is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    page = write_report([fake_run(tmp_path / "expo", [10, 6, 18], [9, 9, 11])], tmp_path / "r.html")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        page.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count("<svg") >= 3 and "EXPO, seed 0" in dom
