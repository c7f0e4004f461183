"""The tables of docs/distributed.md, from the results of the benchmarks of actors."""

import statistics
from collections.abc import Sequence
from typing import Any

from actors_extrapolated import PUBLISHING, RECEIVING, Load, Measured, Plan, extrapolated
from published import result, table

PLANNED_ACTORS, PLANNED_DEVICES = 64, 8


def speed() -> str:
    """Environment steps per second of 1 and 4 actors, of every round."""
    found = result("actors")
    rows = []
    for step_ms, measured in found["simulators"].items():
        runs = {(run["round"], run["actors"]): run for run in measured["runs"]}
        for index, times in enumerate(measured["times"]):
            one, four = runs[index, 1], runs[index, 4]
            rows.append((
                f"{step_ms} ms",
                f"{one['env_steps_per_s']:.1f}",
                f"{four['env_steps_per_s']:.1f}",
                f"{times:.2f}",
                *(f"{100 * run['updates_made_of_due']:.1f}%" for run in (one, four)),
                *(f"{run['load']:.0f}" for run in (one, four)),
            ))  # fmt: skip
    heads = (
        "simulator's step",
        "1 actor, env steps/s",
        "4 actors, env steps/s",
        "times",
        "updates made of those due, 1",
        "4",
        "load of the machine, 1",
        "4",
    )
    return table(heads, rows)


def faults() -> str:
    """What runs suffered, and whether they came to their end."""
    found = result("actors_faults")
    rows = [(kind, str(count)) for kind, count in found["faults"].items()]
    ratios = [run["updates_made_of_due"] for run in found["runs"]]
    restarts, lost = (
        sum(run[name] for run in found["runs"]) for name in ("restarts", "lost_steps")
    )
    steps = sum(run["steps_in_replay"] for run in found["runs"])
    rows += [
        ("faults in all", str(sum(found["faults"].values()))),
        ("runs that finished", f"{found['finished']} of {len(found['runs'])}"),
        ("times a run was resumed", str(found["resumed"])),
        ("saved steps that were looked for afterwards", f"{found['saved_steps_checked']:,}"),
        ("of them lost or altered", str(found["saved_steps_lost"])),
        ("updates made of those due", f"{100 * min(ratios):.1f}% to {100 * max(ratios):.1f}%"),
        ("actors replaced, of those that the last line of metrics counts", f"{restarts:.0f}"),
        ("steps on their way when an actor was lost", f"{lost:.0f} beside {steps:,}"),
    ]
    return table(("what happened", "how often"), rows)


def seeds() -> str:
    """The demo's task with four actors, and without."""
    found = result("actors_seeds")
    rows = [
        (
            str(seed["seed"]),
            f"{seed['base'][0]:.2f}",
            " ".join(f"{rate:.2f}" for rate in seed["success"][1:]),
            "{:+.2f} [{:+.2f}, {:+.2f}]".format(*seed["minus_base_before"]),
            f"{seed['demo']:.2f}",
            f"{100 * seed['updates_made_of_due']:.1f}%",
            f"{seed['staleness_updates']:.0f}",
        )
        for seed in found["seeds"]
    ]
    both = found["together"]
    success, demo = (
        "{:.2f} [{:.2f}, {:.2f}]".format(both[name], *both[interval])
        for name, interval in (("success", "interval"), ("demo_success", "demo_interval"))
    )
    before = statistics.mean(seed["base"][0] for seed in found["seeds"])
    rows.append(("all [95%]", f"{before:.2f}", success, "", demo, "", ""))
    steps = ", ".join(f"{step:,}" for step in found["seeds"][0]["env_steps"][1:])
    heads = (
        "seed",
        "base before",
        f"EXPO with 4 actors at {steps} steps",
        "last - base before [95%]",
        "the demo at the last step",
        "updates made of those due",
        "updates behind",
    )
    return table(heads, rows)


def plan() -> str:
    """One of everything as measured, and the load of many actors."""
    found = result("actors_plan")
    cases = [_Case(found, version) for version in found["versions"]]
    about = found["message"]
    hz, steps = about["control_hz"], about["chunk_steps"]
    rows = [
        _row("one version of the acting parameters, MB", [f"{c.bytes / 1e6:.1f}" for c in cases]),
        *(
            _row(f"{text}, ms", [f"{1e3 * c.version[f'{name}_s']:.1f}" for c in cases])
            for name, text in (
                ("take", "the learner takes it off the device"),
                ("put", "and puts it into the object store"),
                ("fetch", "an actor fetches it and gives it to JAX"),
            )
        ),
        _row(f"a chunk of {steps} steps: its arrays, bytes", [f"{about['array_bytes']:,}"] * 2),
        _row("as it is sent, bytes", [f"{about['chunk_bytes']:,}"] * 2),
    ]
    for each in found["chunks"]:
        text = f"the learner orders, receives and keeps it, {each['actors']} acting, ms"
        rows.append(_row(text, [f"{1e3 * each['chunk_s']:.2f}"] * 2))
    per_step = 1e3 * found["chunks"][-1]["chunk_s"] / steps
    rows += [
        _row("the same per environment step, ms", [f"{per_step:.3f}"] * 2),
        _row("an update call, ms", [f"{1e3 * c.update_s:,.0f}" for c in cases]),
        _row(
            "one in the fastest mode, ms", [f"{1e3 * c.fastest_s:,.0f} ({c.mode})" for c in cases]
        ),
        _row(f"**{PLANNED_ACTORS} actors at {hz:g} Hz, {PLANNED_DEVICES} devices**", ["", ""]),
    ]
    for text, write in _LOADS.items():
        rows.append(_row(text, [write(c) for c in cases]))
    return table(("", *(f"preset {c.version['preset']}" for c in cases)), rows)


class _Case:
    """What was measured of a preset, and its load."""

    def __init__(self, found: dict[str, Any], version: dict[str, Any]):
        about = found["message"]
        self.version, self.bytes = version, version["bytes"]
        modes = {
            row["mode"]: row["update_s"]
            for row in result("throughput-cpu")["updates"]
            if (row["preset"], row["base"]) == (version["preset"], version["base"])
        }
        modes.pop("rlpd", None)
        self.update_s, self.mode = modes["float32"], min(modes, key=lambda mode: modes[mode])
        self.fastest_s = modes[self.mode]
        self.load = extrapolated(
            Measured(
                version_bytes=self.bytes,
                publish_s=version["publish_s"],
                chunk_bytes=about["chunk_bytes"],
                chunk_s={each["actors"]: each["chunk_s"] for each in found["chunks"]},
                update_s=self.update_s,
            ),
            Plan(
                actors=PLANNED_ACTORS,
                envs_each=1,
                control_hz=about["control_hz"],
                chunk_steps=about["chunk_steps"],
                update_every=version["update_every"],
                devices=PLANNED_DEVICES,
            ),
        )

    @property
    def possible_calls(self) -> float:
        """Update calls per second on all devices, if each is as fast as this machine."""
        return PLANNED_DEVICES / self.update_s

    @property
    def faster(self) -> Sequence[float]:
        """How many times as fast as this machine each device has to be: as it is, and in the
        fastest mode."""
        calls = self.load.update_calls / PLANNED_DEVICES
        return calls * self.update_s, calls * self.fastest_s


def _bottleneck(load: Load) -> str:
    """The kind of work that takes most of a second, and how much of it."""
    name = load.order[0]
    seconds = load.seconds[name]
    digits = 0 if seconds >= 10 else 2
    return (
        f"**{name}**: {seconds:,.{digits}f} s of work per second, enough for "
        f"{load.possible(name):,.1f} environment steps/s"
    )


_LOADS = {
    "environment steps/s": lambda c: f"{c.load.env_steps:,.0f}",
    "messages/s, orders and chunks": lambda c: f"{c.load.messages:,.0f}",
    "versions/s, at most": lambda c: f"{c.load.versions:,.0f}",
    "steps, kB/s": lambda c: f"{c.load.step_bytes / 1e3:,.0f}",
    "parameters to all actors, MB/s, at most": lambda c: f"{c.load.parameter_bytes / 1e6:,.0f}",
    "receiving, share of the learner's core": lambda c: f"{c.load.seconds[RECEIVING]:.0%}",
    "publishing, share of it, at most": lambda c: f"{c.load.seconds[PUBLISHING]:.0%}",
    "both together, share of it": lambda c: f"{c.load.host_s:.0%}",
    "enough for, environment steps/s": lambda c: f"{c.load.env_steps / c.load.host_s:,.0f}",
    "update calls due per second": lambda c: f"{c.load.update_calls:,.0f}",
    "made by one device as fast as this machine": lambda c: f"{1 / c.update_s:,.2f}",
    f"by {PLANNED_DEVICES} such, at best": lambda c: f"{c.possible_calls:,.2f}",
    "so each must be so many times as fast": lambda c: f"{c.faster[0]:,.0f}",
    "the same in the fastest mode": lambda c: f"{c.faster[1]:,.0f}",
    "bottleneck": lambda c: _bottleneck(c.load),
}
"""What a line says -> what it says of a preset."""


def _row(text: str, cells: Sequence[str]) -> Sequence[str]:
    return text, *cells
