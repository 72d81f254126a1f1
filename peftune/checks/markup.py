"""HTML that was not taken out of the texts."""

from __future__ import annotations

from peftune.checks.facts import DataFacts
from peftune.checks.places import quoted_start, rows_in_words, rows_where, some
from peftune.checks.result import Check, CheckResult
from peftune.data.html_text import HTML

MARKUP = Check(
    code="html",
    worst="warn",
    looks_for="Texts hold HTML tags or entities: tokens that say nothing, and that new texts may not have.",
    rule="Any row with a tag of HTML, a comment, or an entity such as `&amp;`.",
    remedy="Set data.clean: [strip-html].",
    sound="No text holds HTML.",
)


def find_html(facts: DataFacts) -> CheckResult | None:
    """Look for tags and entities."""
    rows = rows_where(facts, lambda text: ("<" in text or "&" in text) and HTML.search(text))
    if not some(rows):
        return None
    split, row = next((split, found[0]) for split, found in rows.items() if found)
    text = facts.splits[split].texts[row]
    return MARKUP.found(f"{rows_in_words(rows)} with HTML, such as {quoted_start(text)}.", rows)
