"""The tables of docs/distributed.md, from the results of the benchmarks of actors."""

import statistics

from published import result, table


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
