"""HTML that was not taken out of the texts."""

from __future__ import annotations

import re

from peftune.checks.facts import DataFacts
from peftune.checks.places import quoted_start, rows_in_words, rows_where, some
from peftune.checks.result import Check, CheckResult

_TAGS = "a|abbr|article|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|s|script|section|small|span|strong|style|sub|sup|svg|table|tbody|td|th|thead|title|tr|u|ul|video"
_HTML = re.compile(
    rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>|<!--|<!doctype\b|&(?:[a-z]{{2,8}}\d?|#\d{{1,7}}|#x[0-9a-f]{{1,6}});",
    re.IGNORECASE,
)

HTML = Check(
    code="html",
    worst="warn",
    looks_for="Texts hold HTML tags or entities: tokens that say nothing, and that new texts may not have.",
    rule="Any row with a tag of HTML, a comment, or an entity such as `&amp;`.",
    remedy="Set data.clean: [strip-html].",
    sound="No text holds HTML.",
)


def find_html(facts: DataFacts) -> CheckResult | None:
    """Look for tags and entities."""
    rows = rows_where(facts, lambda text: ("<" in text or "&" in text) and _HTML.search(text))
    if not some(rows):
        return None
    split, row = next((split, found[0]) for split, found in rows.items() if found)
    text = facts.splits[split].texts[row]
    return HTML.found(f"{rows_in_words(rows)} with HTML, such as {quoted_start(text)}.", rows)
