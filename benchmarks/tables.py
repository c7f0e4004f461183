"""Writes the tables of README.md and of docs/performance.md, own_policy.md, tasks.md,
distributed.md, results.md and algorithms/expo.md from the results: what stands between two markers
is replaced.

.venv/bin/python benchmarks/tables.py          # rewrites the pages
.venv/bin/python benchmarks/tables.py --check  # status 1 where a page is behind the results
"""

import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import LOOP_PARTS
from own_policy import table as own_policy_table
from own_policy_settings import table as own_settings_table
from published import result, table
from tables_of_ablations import ABLATION_PARTS
from tables_of_actors import faults, plan, seeds, speed
from tables_of_claim import CLAIM_PARTS
from tables_of_stable import ablations, deployed_edits, ranking, stable
from torch_base import table as torch_base_table

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "performance.md"


def machine() -> str:
    """What the throughput was measured on."""
    about = result("throughput-cpu")["machine"]
    return (
        f"{about['cores']}-core {about['processor']} (no AMX), Python {about['python']}, jax "
        f"{about['jax']}."
    )


def updates() -> str:
    """Update calls of every variant."""
    heads = (
        "preset",
        "base",
        "mode",
        "ms per update",
        "env steps/s, learning alone",
        "times exact float32",
        "share of peak",
        "compile, s",
        "memory, MB",
    )
    return table(
        heads,
        (
            (
                r["preset"],
                r["base"],
                r["mode"],
                f"{1e3 * r['update_s']:.1f}",
                f"{r['env_steps_per_s']:.2f}",
                f"{r['times_exact_float32']:.2f}",
                f"{100 * r['share_of_peak']:.0f}%",
                f"{r['compile_s']:.1f}",
                f"{r['memory_mb']:.0f}",
            )
            for r in result("throughput-cpu")["updates"]
        ),
    )


def acting() -> str:
    """Latency of acting."""
    steps = {"diffusion": "diffusion, 10 steps", "flow": "flow, 5 steps"}
    return table(
        ("preset", "base", "precision", "observations", "p50, ms", "p99, ms"),
        (
            (
                r["preset"],
                steps[r["base"]],
                r["mode"],
                str(r["observations"]),
                f"{r['p50_ms']:.2f}",
                f"{r['p99_ms']:.2f}",
            )
            for r in result("throughput-cpu")["acting"]
        ),
    )


def loop() -> str:
    """A whole training loop by part."""
    return table(
        ("mode", "env steps/s", *LOOP_PARTS, "host overhead"),
        (
            (
                r["mode"],
                f"{r['env_steps_per_s']:.1f}",
                *(f"{100 * r['share'][part]:.0f}%" for part in LOOP_PARTS),
                f"{100 * r['host_overhead']:.1f}%",
            )
            for r in result("throughput-cpu")["loop"]
        ),
    )


def start() -> str:
    """Start-up."""
    return table(
        ("what", "cache", "begun, s", "finished, s"),
        (
            (
                name.rsplit(" ", 1)[0],
                name.rsplit(" ", 1)[1],
                f"{r['begun']:.1f}",
                f"{r['finished']:.1f}",
            )
            for name, r in result("startup")["median_s"].items()
        ),
    )


def checkpoints() -> str:
    """What a checkpoint costs, whole and in segments."""
    found = result("checkpoint_cost")
    heads = ("replay", "steps", "whole, MB", "segments, MB", "whole, s", "segments, s")
    rows = []
    for case, sizes in found["segments"].items():
        for steps, measured in sizes.items() if case != "machine" else ():
            ways = (found["whole"][case][steps], measured)
            rows.append((
                case,
                f"{int(steps):,}",
                *(f"{way['bytes'] / 1e6:,.0f}" for way in ways),
                *(f"{way['seconds']:.1f}" for way in ways),
            ))  # fmt: skip
    return table(heads, rows)


def parallel() -> str:
    """Seeds in processes, learning beside acting."""
    seconds = list(result("parallel")["median_s"].items())
    return table(("what", "seconds", "times faster"), (
        (name, f"{value:.1f}", f"{seconds[i - 1][1] / value:.2f}" if i % 2 else "")
        for i, (name, value) in enumerate(seconds)
    ))  # fmt: skip


def devices() -> str:
    """Update calls on several devices."""
    heads = (
        "devices",
        "rows on each",
        "ms per update",
        "times one device",
        "operations of one device",
        "temporary memory of one, MB",
    )
    found = result("devices-cpu")["results"]
    one = found[0]
    return table(
        heads,
        (
            (
                f"{r['devices']}",
                f"{r['rows_per_device']}",
                f"{r['ms']:.1f}",
                f"{one['ms'] / r['ms']:.2f}",
                f"{r['flops_per_device'] / one['flops_per_device']:.0%}",
                f"{r['temporary_bytes_per_device'] / 1e6:.1f}",
            )
            for r in found
        ),
    )


def storage() -> str:
    """A replay in files against one in memory."""
    heads = ("replay", "size", "steps/s in memory", "in files", "in files, nothing cached")
    rows = []
    for each in result("storage")["results"]:
        speeds = [f"{speed:.2f}" for speed in each["steps_per_s"].values()]
        rows.append((each["case"], each["size"], *speeds))
    return table(heads, rows)


def curves() -> str:
    """Learning curves of the modes."""
    heads = (
        "task",
        "mode",
        "success at 0, 1,000, ... 5,000 steps",
        "final [95%]",
        "against exact float32, same starts [95%]",
        "80% reached at",
        "training, s",
    )

    def row(r: dict[str, Any]) -> Sequence[str]:
        curve = " ".join(
            f"{statistics.mean(at):.2f}".lstrip("0") for at in zip(*r["success"], strict=True)
        )
        difference = r.get("final_minus_float32")
        apart = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*difference) if difference else "-"
        final = "{:.2f} [{:.2f}, {:.2f}]".format(r["final"], *r["final_interval"])
        reached = str(r["steps_to_80"] or "not reached")
        task = r["task"].split("/")[1].removesuffix("-v3")
        return task, r["mode"], curve, final, apart, reached, f"{statistics.mean(r['train_s']):.0f}"

    return table(heads, map(row, result("curves")["results"]))


def outside() -> str:
    """What a base policy from outside costs: medians of every kind's rounds."""
    results = result("outside_cost")["results"]

    def row(kind: str, backup: str) -> Sequence[str]:
        group = [r for r in results if (r["kind"], r["backup"]) == (kind, backup)]
        step, own, share = (
            statistics.median(r[name] for r in group) for name in ("step_ms", "outside_ms", "share")
        )
        return kind, backup, f"{step:.1f}", f"{own:.2f}", f"{100 * share:.0f}%"

    heads = ("policy", "backup", "ms per environment step", "of these in the policy", "share")
    kinds = dict.fromkeys((r["kind"], r["backup"]) for r in results)
    return table(heads, (row(kind, backup) for kind, backup in kinds))


def own_policy() -> str:
    """Returns around policies that others trained, on changed robots."""
    return own_policy_table(result("own_policy")["results"])


def own_settings() -> str:
    """Returns of the settings that were tried around one of these policies."""
    return own_settings_table(result("own_policy_settings")["results"])


def torch_base() -> str:
    """Success of a diffusion policy trained in PyTorch, and of the library's own."""
    return torch_base_table(result("torch_base")["results"])


def demo_output() -> str:
    """What the demo prints at its end, of seed 0."""
    return "```\n" + result("demo")["seeds"][0]["printed"] + "\n```"


def demo_seeds() -> str:
    """The demo on several seeds, and their means."""
    found = result("demo")
    rows = [
        (str(r["seed"]), r["expo"]["base"][0], r["expo"]["base"][-1], r["expo"]["success"][-1],
         r["rlpd"]["success"][-1])
        for r in found["seeds"]
    ]  # fmt: skip
    means = found["mean"]
    names = ("base_before", "base_after", "expo", "rlpd")
    rows.append(("mean", *(means[name] for name in names)))
    return table(
        ("seed", "base before", "base after", "EXPO", "RLPD"),
        ((seed, *(f"{rate:.2f}" for rate in rates)) for seed, *rates in rows),
    )


def demo_details() -> str:
    """The same with paired differences, seconds and the lowest evaluation."""

    def interval(difference: Sequence[float]) -> str:
        mean, low, high = difference
        return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"

    def row(r: dict[str, Any]) -> Sequence[str]:
        step, lowest, *_ = r["lowest_expo_minus_base_before"]
        return (
            str(r["seed"]),
            " ".join(f"{rate:.2f}" for rate in r["expo"]["success"]),
            interval(r["expo_minus_base_before"]),
            interval(r["expo_minus_rlpd"]),
            f"{lowest:+.2f} at {step:,}",
            f"{r['expo']['train_s']:.0f} s",
            f"{r['rlpd']['train_s']:.0f} s",
        )

    steps = ", ".join(f"{step:,}" for step in result("demo")["seeds"][0]["expo"]["env_steps"])
    heads = (
        "seed",
        f"EXPO at {steps} steps",
        "EXPO - base before [95%]",
        "EXPO - RLPD [95%]",
        "lowest EXPO - base before",
        "EXPO training",
        "RLPD training",
    )
    return table(heads, map(row, result("demo")["seeds"]))


WAYS = {
    "flow": "flow, 10 steps",
    "gaussian": "Gaussian",
    "mean": "mean of that Gaussian",
}
"""Base policy of the racetrack's study -> what a line says."""


def two_sides() -> str:
    """Imitation of drivers who pass an obstacle on either side: success and sides in %."""
    results = result("two_sides")["results"]

    def row(kind: str) -> Sequence[str]:
        runs = [r for r in results if r["kind"] == kind]
        rates = [f"{100 * r['success_rate']:.0f}" for r in runs]
        mean = statistics.mean(r["success_rate"] for r in runs)
        episodes = sum(len(r["success"]) for r in runs)
        sides = [sum(r["sides"].get(side, 0) for r in runs) for side in ("left", "right")]
        shares = [f"{100 * count / episodes:.0f}" for count in sides]
        return WAYS[kind], f"{100 * mean:.0f} ({', '.join(rates)})", *shares

    heads = ("imitated with", "success, % (each seed)", "past it on the left", "on the right")
    return table(heads, map(row, WAYS))


PARTS: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (
        machine,
        updates,
        acting,
        loop,
        start,
        parallel,
        devices,
        storage,
        checkpoints,
        outside,
        curves,
    )
}
README_PARTS: dict[str, Callable[[], str]] = {"demo output": demo_output, "demo": demo_seeds}
EXPO_PARTS: dict[str, Callable[[], str]] = {
    "stable": stable,
    "ablations": ablations,
    "ranking": ranking,
    "deployed edits": deployed_edits,
    "demo": demo_details,
}
OWN_PARTS: dict[str, Callable[[], str]] = {
    "own policy": own_policy,
    "own settings": own_settings,
    "torch base": torch_base,
}
ACTORS_PARTS: dict[str, Callable[[], str]] = {
    "actors speed": speed,
    "actors faults": faults,
    "actors seeds": seeds,
    "actors plan": plan,
}
PAGES = {
    DOCS.parent / "README.md": README_PARTS,
    PAGE: PARTS,
    DOCS / "algorithms" / "expo.md": EXPO_PARTS,
    DOCS / "own_policy.md": OWN_PARTS,
    DOCS / "tasks.md": {"two sides": two_sides},
    DOCS / "distributed.md": ACTORS_PARTS,
    DOCS / "results.md": {**CLAIM_PARTS, **ABLATION_PARTS},
}


def fill(page: str, parts: Mapping[str, Callable[[], str]] = PARTS) -> str:
    """The page with every marked part written anew.

    Raises:
        ValueError: a part has no place in the page.
    """
    for name, write in parts.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not place.search(page):
            raise ValueError(
                f"the page has no place for {name!r}: <!-- {name} --> ... <!-- end -->."
            )
        page = place.sub(lambda found, write=write: found[1] + write() + found[2], page)
    return page


if __name__ == "__main__":
    for page, parts in PAGES.items():
        now = page.read_text()
        new = fill(now, parts)
        if "--check" in sys.argv[1:] and new != now:
            sys.exit(f"{page} is behind benchmarks/results: run benchmarks/tables.py.")
        page.write_text(new)
