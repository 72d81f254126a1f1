"""Every promise of SECURITY.md is held by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def promises() -> dict[str, list[tuple[str, str]]]:
    """Collect each promise of the table, with the tests that it names and their files."""
    rows = re.findall(r"^\| (?!promise|---)(.+?) \| (.+) \|$", PAGE, re.MULTILINE)
    return {text: re.findall(r"\[`(\w+)`\]\(([\w/.]+)\)", tests) for text, tests in rows}


def test_every_promise_names_tests_that_exist() -> None:
    """A promise without a test is none, and a test that was renamed is found here."""
    found = promises()
    assert len(found) > 10
    assert [text for text, tests in found.items() if not tests] == []
    missing = []
    for tests in found.values():
        for name, file in tests:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            if name not in defined:
                missing.append(f"{file}: {name}")
    assert missing == []


def test_the_page_says_what_is_not_promised_and_how_to_report() -> None:
    """Intent is beyond any check; and a report goes to no address that nobody reads."""
    assert "We verify origin and integrity, not intent." in PAGE
    assert "private vulnerability reporting" in PAGE
    assert "@" not in re.sub(r"`[^`]*`", "", PAGE)
