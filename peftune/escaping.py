"""Text of others as it stands in Markdown: it is shown, and neither marks up nor runs. Light."""

from __future__ import annotations

import re

from peftune.errors import visible

_MARKS = re.compile(r"([\\`*_\[\]|#~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_HTML = re.compile("[&<>]")
_PLAIN = re.compile(r"[\w./:@+,() -]+")


def markdown_text(text: str) -> str:
    """Keep a text from being read as Markdown or HTML, on one line."""
    shown = visible(" ".join(text.split()))
    marked = _MARKS.sub(r"\\\1", shown)
    return _HTML.sub(lambda found: _ENTITIES[found[0]], marked)


def markdown_code(text: str) -> str:
    """Set a name as code, or, where it could end the code, as text."""
    return f"`{text}`" if _PLAIN.fullmatch(text) and visible(text) == text else markdown_text(text)
