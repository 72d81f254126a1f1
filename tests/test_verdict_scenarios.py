"""Where the truth is planted, peftune says what the page of verdicts holds, and claims no more than that."""

from __future__ import annotations

import contextlib
import difflib
from functools import cache

import pytest
from scenarios import FACTS, SCENARIOS, WRONG, Fact
from scipy import stats
from verdicts import PAGE, WRITE_ANEW, Said, page

CASES = [
    pytest.param(
        name,
        fact,
        marks=[pytest.mark.xfail(strict=True, reason=fact.wrong_today)] if fact.wrong_today else [],
        id=f"{name}: {fact.says}",
    )
    for name, facts in FACTS.items()
    for fact in facts
]  # fmt: skip


@cache
def said(name: str) -> Said:
    """Let peftune compare the runs of a scenario, once."""
    return Said.of(SCENARIOS[name])


def test_the_page_holds_what_is_said() -> None:
    """A change of words or figures is seen as a diff, and reviewed."""
    written, now = (
        PAGE.read_text(encoding="utf-8"),
        page([said(name) for name in SCENARIOS], WRONG),
    )

    if written != now:
        lines = difflib.unified_diff(
            written.splitlines(), now.splitlines(), "written", "said now", n=1, lineterm=""
        )
        pytest.fail(
            "\n".join([*lines, "", f"Where this is what it should say: {WRITE_ANEW}"]),
            pytrace=False,
        )


@pytest.mark.parametrize(("name", "fact"), CASES)
def test_what_is_said_keeps_the_truth(name: str, fact: Fact) -> None:
    """Whatever the words are: a page that is written anew cannot hide a wrong verdict."""
    assert fact.holds(said(name)), f"{fact.says}; the answer: {said(name).summary.answer}"


def test_every_fact_can_fail() -> None:
    """What holds of every scenario that it can be asked of would say nothing of any."""
    asked = {fact.says: _answers(fact) for facts in FACTS.values() for fact in facts}
    idle = [says for says, answers in asked.items() if len(answers) > 1 and all(answers)]

    assert idle == []


def _answers(fact: Fact) -> list[bool]:
    """Ask it of every scenario that has the strategies it speaks of."""
    found = []
    for name in SCENARIOS:
        with contextlib.suppress(StopIteration):
            found.append(fact.holds(said(name)))
    return found


def test_strategies_that_are_equal_are_rarely_told_apart() -> None:
    """At most as many as 1 in 20 gives in 99 of 100 cases: binomial."""
    equal = [pair.significant for name in SCENARIOS for _, pair in said(name).equal_pairs()]

    assert len(equal) > 30
    assert sum(equal) <= stats.binom.ppf(0.99, len(equal), 0.05)
