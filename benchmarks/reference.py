"""Writes the tables of docs/ beside the performance page: metrics, task families and data formats
from the source, bundles from the results. What stands between two markers is replaced.

.venv/bin/python benchmarks/reference.py          # rewrites the pages
.venv/bin/python benchmarks/reference.py --check  # status 1 where a page is behind the source
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tables import fill, result, table

from exporl.algos import ALGORITHMS
from exporl.data.formats import FORMATS
from exporl.envs.registry import FAMILIES
from exporl.policies import BASES, BaseConfig, make_base
from exporl.run.metrics import METRICS
from exporl.types import Spec

DOCS = Path(__file__).parent.parent / "docs"
FEW = 5
"""Names of tasks that are written out."""


def metrics() -> str:
    """What updates and the loop log: of every algorithm, every base policy, every run. Where the
    same name means different things, the algorithms are named."""
    users: dict[tuple[str, str], list[str]] = {}
    for entry in ALGORITHMS.values():
        for described in entry.metrics.items():
            users.setdefault(described, []).append(entry.name)
    meanings = Counter(name for name, _ in users)
    rows: dict[tuple[str, str], None] = {}
    for (name, what), names in users.items():
        whose = f" ({', '.join(names)})" if meanings[name] > 1 else ""
        rows[name, what + whose] = None
    for kind in BASES:
        base = make_base(BaseConfig(kind), Spec((("state", (1,), "float32"),), 1))
        rows |= dict.fromkeys((name, f"{what} ({kind})") for name, what in base.metrics)
    rows |= dict.fromkeys(METRICS.items())
    return table(("metric", "what it is"), ((f"`{name}`", what) for name, what in rows))


def families() -> str:
    """The task families that come with the library."""
    heads = ("family", "tasks", "observation, action, horizon, reward, data", "details")
    rows = []
    for name, family in FAMILIES.items():
        names = family.names
        listed = ", ".join(names) if len(names) <= FEW else f"{len(names)}: {names[0]}, ..."
        rows.append((f"`{name}`", listed, family.summary, family.details))
    return table(heads, rows)


def formats() -> str:
    """The file formats of episodes."""
    rows = []
    for name, record in FORMATS.items():
        endings = ", ".join(f"`{ending}`" if ending else "no ending" for ending in record.endings)
        written = f"yes: {endings}" if record.endings else "yes" if record.write else "no"
        rows.append((f"`{name}`", record.summary, written))
    return table(("format", "what", "written"), rows)


def bundles() -> str:
    """Sizes, differences and latencies of exported policies."""
    heads = (
        "run and part",
        "bundle, kB",
        "`policy.onnx`, kB",
        "difference, with exporl",
        "difference, without JAX",
        "ms with exporl, median (10%)",
        "ms without, median (10%)",
    )
    return table(
        heads,
        (
            (
                name,
                f"{r['total_bytes'] / 1000:.0f}",
                f"{r['bytes']['policy.onnx'] / 1000:.0f}",
                f"{r['bundle_with_exporl_max_difference']:.1g}",
                f"{r['without_jax_max_difference']:.1e}",
                *(
                    f"{r['latency_ms'][how]['p50']:.2f} ({r['latency_ms'][how]['p10']:.2f})"
                    for how in ("with exporl", "without")
                ),
            )
            for name, r in result("bundle")["runs"].items()
        ),
    )


PAGES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    DOCS / "algorithms" / "expo.md": {"metrics": metrics},
    DOCS / "tasks.md": {"families": families},
    DOCS / "data.md": {"formats": formats},
    DOCS / "bundle.md": {"bundles": bundles},
}
"""Page -> its tables."""


if __name__ == "__main__":
    for path, parts in PAGES.items():
        now = path.read_text()
        new = fill(now, parts)
        if "--check" in sys.argv[1:] and new != now:
            sys.exit(f"{path} is behind the source: run benchmarks/reference.py.")
        path.write_text(new)
