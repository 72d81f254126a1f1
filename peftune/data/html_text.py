"""HTML in texts: where there is any, and the text without it."""

from __future__ import annotations

import html
import html.parser
import re

_TAGS = "a|abbr|article|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|s|script|section|small|span|strong|style|sub|sup|svg|table|tbody|td|th|thead|title|tr|u|ul|video"
_TAG = rf"</?(?:{_TAGS})(?:\s+[^<>]*=[^<>]*)?\s*/?>|<!--|<!doctype\b"
_ENTITY = r"&(?:[a-z]{2,8}\d?|#\d{1,7}|#x[0-9a-f]{1,6});"

HTML = re.compile(f"{_TAG}|{_ENTITY}", re.IGNORECASE)
"""A tag of HTML, a comment, or an entity; not a `<` between numbers or names, nor `<3`."""

_MARKUP, _ENTITIES = re.compile(_TAG, re.IGNORECASE), re.compile(_ENTITY, re.IGNORECASE)
_SPACES = re.compile(" {2,}")
_BLOCKS = frozenset({"address", "blockquote", "br", "dd", "div", "dl", "dt", "h1", "h2", "h3"}) | {
    "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul",
}  # fmt: skip
_UNREAD = frozenset({"script", "style"})


def without_html(text: str) -> str:
    """Remove tags and comments and spell out entities; a block's end is a space.

    A `<` that begins no tag, as in `x < 3` or `<3`, stays.
    """
    if not _MARKUP.search(text):
        return _ENTITIES.sub(lambda entity: html.unescape(entity[0]), text)
    reader = _TextOfHtml()
    reader.feed(text)
    reader.close()
    return _SPACES.sub(" ", "".join(reader.parts)).strip()


class _TextOfHtml(html.parser.HTMLParser):
    """Collect the text between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - of the library
        self._unread += tag in _UNREAD
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._unread -= tag in _UNREAD and self._unread > 0
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self.parts.append(data)
