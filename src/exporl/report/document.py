"""A self-contained HTML page: style, text, charts and what draws them. It loads nothing, and the
browser is told to run no script but the library's own."""

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from exporl.files.atomic import write_text
from exporl.files.naming import make_folder_of
from exporl.report.markup import json_text, text

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("uPlot.iife.min.js", "report.js")
"""In the order in which they run."""
STYLES = ("uPlot.min.css", "report.css")


@functools.cache
def asset(name: str) -> str:
    """A file that pages are made with."""
    return (ASSETS / name).read_text(encoding="utf-8")


def write_document(
    path: Path, title: str, body: str, data: Any = None, *, images: bool = False
) -> Path:
    """Writes a page, in one step.

    Args:
        path: the file; its folder is made if need be.
        title: as text.
        body: as HTML.
        data: what `report.js` draws; a page without it has no script.
        images: whether there are pictures in the body itself, as `data:`.
    """
    scripts = ""
    if data is not None:
        scripts = f'<script type="application/json" id="data">{json_text(data)}</script>'
        scripts += "".join(f"<script>{asset(name)}</script>" for name in SCRIPTS)
    style = "".join(asset(name) for name in STYLES)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(data is not None, images)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{text(title)}</title><style>{style}</style></head>"
        f"<body>{body}{scripts}</body></html>"
    )
    make_folder_of(path)
    write_text(path, page)
    return path


def _policy(with_scripts: bool, with_images: bool) -> str:
    """What the browser may do with the page: nothing is loaded, only pictures in the page itself
    are shown, and only scripts of these sums run."""
    allowed = "'none'"
    if with_scripts:
        sums = (hashlib.sha256(asset(name).encode()).digest() for name in SCRIPTS)
        allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in sums)
    shown = " img-src data:;" if with_images else ""
    return f"default-src 'none';{shown} style-src 'unsafe-inline'; script-src {allowed}"
