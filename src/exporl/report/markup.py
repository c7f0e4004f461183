"""Text in HTML: everything that comes from a file goes through `text` or `json_text`."""

import html
import json
from collections.abc import Sequence
from typing import Any


def text(value: object) -> str:
    """A value as text that a browser shows and never interprets, between tags or in quotes."""
    return html.escape(str(value))


def json_text(value: Any) -> str:
    """A value as JSON between the tags of a script: no name in it can end the script, begin a tag
    or a comment.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    found = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        found = found.replace(sign, f"\\u{ord(sign):04x}")
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that can be pushed aside on a narrow screen.

    Args:
        head: column titles, as text.
        rows: cells, as HTML.
    """
    titles = "".join(f"<th>{text(title)}</th>" for title in head)
    lines = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'
