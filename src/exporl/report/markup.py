"""Text in HTML: everything that comes from a file goes through `text`."""

import html


def text(value: object) -> str:
    """A value as text that a browser shows and never interprets, between tags or in quotes."""
    return html.escape(str(value))
