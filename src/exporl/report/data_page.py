"""A survey of a data file as one self-contained HTML page with plots."""

from pathlib import Path

from exporl.data.describe import ROWS, describe
from exporl.data.inspect import Survey
from exporl.report.document import write_document
from exporl.report.histogram import histogram
from exporl.report.markup import text


def write_page(found: Survey, title: str, path: Path) -> Path:
    """Histograms of lengths, returns and every action dimension, and the text of `describe`.

    Raises:
        ValueError: nothing readable to draw.
    """
    if not found.names:
        raise ValueError(f"{title}: no readable episode to plot.")
    charts = [_figure("Episode length (steps)", histogram(found.lengths, width=340, height=150))]
    charts.append(_figure("Return", histogram(found.returns, width=340, height=150)))
    sample, actions = found.sample.rows(), found.actions
    assert actions is not None
    limits = min(-1.0, float(actions.minimum.min())), max(1.0, float(actions.maximum.max()))
    for i in range(min(actions.dims, ROWS)):
        values = [float(v) for v in sample[:, i] if abs(v) < float("inf")]
        charts.append(
            _figure(f"Action {i}", histogram(values, width=340, height=150, limits=limits))
        )
    body = (
        f'<h1>{text(title)}</h1><div class="grid-of-charts">{"".join(charts)}</div>'
        f"<h2>In numbers</h2><pre>{text(describe(found, title))}</pre>"
    )
    return write_document(path, title, body)


def _figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{text(title)}</figcaption>{chart}</figure>"
