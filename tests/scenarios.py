"""Scenarios whose truth is known, and what must hold of each whatever peftune's words are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planted_runs import (
    Scenario,
    Strategy,
    World,
    always_right,
    by_few,
    evenly,
    from_memory,
    nearly_constant,
    nothing,
    rare_found_in_half,
    skewed,
)
from verdicts import FORGETTING, Said

from peftune.experiments.compare.executors import Failure
from peftune.experiments.compare.summary import Estimate
from peftune.forgetting.results import Verdict

_FULL_BYTES = 2**29
_FIVE = (0, 1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that must hold of what is said.

    Args:
        says: the fact, in a sentence.
        holds: whether it does.
        wrong_today: why it does not yet; None where it must.
    """

    says: str
    holds: Callable[[Said], bool]
    wrong_today: str | None = None


def wrong_today(fact: Fact, why: str) -> Fact:
    """Mark a fact that peftune does not keep yet."""
    return Fact(fact.says, fact.holds, why)


# What must hold


def _judged_level(said: Said) -> bool:
    return not any(pair.significant for pair in said.differences())


LEVEL = Fact("no two strategies are told apart in any figure", _judged_level)
NONE_USED = Fact("the answer names no strategy to use", lambda said: not said.used)
NO_LETTERS = Fact(
    "no strategy has a letter", lambda said: not any(one.ties for one in said.summary.standings)
)
NO_TESTS = Fact(
    "no difference has a p-value or is told apart",
    lambda said: all(
        pair.p_value is None and not pair.significant for pair in said.differences(matched=False)
    ),
)
NOT_RANKED = Fact(
    "no pair is ranked", lambda said: not any(pair.ranked for pair in said.differences())
)
LETTERS = Fact(
    "every strategy has letters in both figures",
    lambda said: all(set(one.ties) == {"accuracy", FORGETTING} for one in said.summary.standings),
)


def level_in(key: str) -> Fact:
    """No two strategies are told apart in that figure as it was measured."""
    return Fact(
        f"no two strategies are told apart in {key}",
        lambda said: (
            not any(
                pair.significant for pair in said.differences(matched=False) if pair.key == key
            )
        ),
    )


def level_when_matched(first: str, second: str) -> Fact:
    """Two strategies are read at an equal accuracy, and not told apart there."""

    def holds(said: Said) -> bool:
        pairs = (pair for one in said.summary.matched for pair in one.differences)
        pair = next(pair for pair in pairs if {pair.first, pair.second} == {first, second})
        return not pair.significant

    return Fact(f"{first} and {second} are not told apart at equal accuracy", holds)


def more(first: str, second: str, key: str) -> Fact:
    """The first is told apart from the second, and its figure is the larger."""

    def holds(said: Said) -> bool:
        gap = said.gap(first, second, key)
        return gap.significant and (gap.mean > 0) == (gap.first == first)

    return Fact(f"{first} has clearly more {key} than {second}", holds)


def used(*names: str) -> Fact:
    """The answer names these strategies and no other."""
    return Fact(f"the answer names {' and '.join(names)}", lambda said: said.used == list(names))


def not_used(name: str) -> Fact:
    """The answer does not name the strategy."""
    return Fact(f"the answer does not name {name}", lambda said: name not in said.used)


def learned(*names: str) -> Fact:
    """These strategies learned the task, and no others."""
    return Fact(
        f"what learned the task: {', '.join(names) or 'nothing'}",
        lambda said: (
            sorted(one.strategy for one in said.summary.standings if one.learned) == sorted(names)
        ),
    )


def words(word: Verdict | None, *names: str) -> Fact:
    """The verdict of every run, or of every run of these strategies, is that word."""
    whose = " and ".join(names) or "every strategy"
    return Fact(
        f"the verdict on runs of {whose} is {word or 'none'}",
        lambda said: (
            {run.forgetting.verdict for name in names or said.names for run in said.runs(name)}
            == {word}
        ),
    )


def says_not(part: str, meaning: str) -> Fact:
    """The answer does not have these words."""
    return Fact(meaning, lambda said: part not in said.summary.answer)


def reason(part: str) -> Fact:
    """Every run's probe gives a reason that has these words."""
    return Fact(
        f"the reason of every verdict has '{part}'",
        lambda said: all(
            part in (one.run.forgetting["text"].reason or "") for one in said.evidence
        ),
    )


def finds(code: str, *names: str) -> Fact:
    """A finding is made on these strategies, or on the comparison, and on no others."""
    return Fact(
        f"finding {code}: {', '.join(names) or 'of the comparison'}",
        lambda said: (
            {
                run.run.strategy
                for finding, runs in said.findings
                if finding.code == code
                for run in runs
            }
            == set(names)
            and any(finding.code == code for finding, _ in said.findings)
        ),
    )


def finds_no(code: str) -> Fact:
    """A finding is not made."""
    return Fact(
        f"no finding {code}", lambda said: all(one.code != code for one, _ in said.findings)
    )


def covers(*, accuracy: bool = True, forgetting: bool = True) -> Fact:
    """The intervals that are given hold what was planted."""
    planted = [name for name, on in (("accuracy", accuracy), (FORGETTING, forgetting)) if on]

    def holds(said: Said) -> bool:
        return all(
            _holds(said.standing(one.name).figures[key], value)
            for one in said.scenario.strategies
            for key, value in (("accuracy", one.accuracy), (FORGETTING, one.forgets))
            if key in planted
        )

    return Fact(f"every interval of {' and '.join(planted)} holds what was planted", holds)


def _holds(figure: Estimate, value: float) -> bool:
    return figure.ci95 is not None and figure.ci95[0] - 1e-12 <= value <= figure.ci95[1] + 1e-12


COVERS = covers()


# The scenarios

TABLE: Mapping[Scenario, Sequence[Fact]] = {
    Scenario(
        "both strategies answer 0.80 of all rows right and lose 0.20.",
        World("two equal strategies"),
        [Strategy("full"), Strategy("lora")],
    ): [
        LEVEL,
        NONE_USED,
        LETTERS,
        COVERS,
        learned("full", "lora"),
        words("forgot"),
        says_not("the smallest file", "of files of one size none is called the smallest"),
    ],
    Scenario(
        "all four answer 0.80 of all rows right and lose 0.20.",
        World("four equal strategies"),
        [
            Strategy("full", artifact_bytes=_FULL_BYTES),
            Strategy("lora"),
            Strategy("lora-8bit"),
            Strategy("bitfit"),
        ],
    ): [LEVEL, NONE_USED, LETTERS, COVERS],
    Scenario(
        "both lose 0.20 on average, but on few documents most of it (lognormal, skewness 11).",
        World("two equal strategies with skewed losses"),
        [Strategy("full", losses=skewed), Strategy("lora", losses=skewed)],
    ): [LEVEL, NONE_USED, COVERS],
    Scenario(
        "full is more accurate, 0.88 against 0.70; both lose 0.20.",
        World("a more accurate strategy"),
        [Strategy("full", 0.88, artifact_bytes=_FULL_BYTES), Strategy("lora", 0.70)],
    ): [more("full", "lora", "accuracy"), level_in(FORGETTING), used("full"), LETTERS, COVERS],
    Scenario(
        "equal accuracy, 0.80; full loses 0.60 and lora 0.10.",
        World("equal accuracy and less forgetting"),
        [Strategy("full", forgets=0.6, artifact_bytes=_FULL_BYTES), Strategy("lora", forgets=0.1)],
    ): [level_in("accuracy"), more("full", "lora", FORGETTING), used("lora"), COVERS],
    Scenario(
        "both go the same way from the base; full to its end (0.85, +0.40), lora half as far (0.70, +0.10): it forgets less only because it learned less.",
        World("less forgetting by less learning"),
        [Strategy("full", 0.85, 0.4), Strategy("lora", 0.70, 0.1)],
    ): [more("full", "lora", FORGETTING), level_when_matched("full", "lora"), not_used("lora"), COVERS],
    Scenario(
        "neither reads a row: almost all get the most frequent label.",
        World("nothing learned"),
        [
            Strategy("full", 0.4, 0.02, answers=nearly_constant),
            Strategy("lora", 0.4, 0.0, answers=nearly_constant, losses=nothing),
        ],
    ): [learned(), NONE_USED, words("nothing learned"), finds("nothing-learned", "full", "lora"), level_in("accuracy")],
    Scenario(
        "full learned (0.80, +0.20); lora gives almost every row the most frequent label and loses nothing.",
        World("learned by one of two"),
        [
            Strategy("full", artifact_bytes=_FULL_BYTES),
            Strategy("lora", 0.4, 0.0, answers=nearly_constant, losses=evenly(0.005)),
        ],
    ): [learned("full"), used("full"), words("forgot", "full"), words("nothing learned", "lora"), finds("nothing-learned", "lora")],
    Scenario(
        "the strategies of the more accurate one above, with one seed.",
        World("one seed"),
        [Strategy("full", 0.88, seeds=(0,)), Strategy("lora", 0.70, seeds=(0,))],
    ): [NO_LETTERS, NO_TESTS, NONE_USED, words("forgot")],
    Scenario(
        "the same with two seeds.",
        World("two seeds"),
        [Strategy("full", 0.88, seeds=(0, 1)), Strategy("lora", 0.70, seeds=(0, 1))],
    ): [NO_LETTERS, NO_TESTS, NONE_USED, words("forgot")],
    Scenario(
        "equal strategies (0.80), of which the third seed of lora failed.",
        World("a seed that failed"),
        [Strategy("full"), Strategy("lora", seeds=(0, 1)), Strategy("bitfit", 0.6)],
        failures=[Failure("lora", 2, "out of memory")],
    ): [
        Fact("lora has no letter", lambda said: not said.standing("lora").ties),
        Fact("full and lora have no p-value", lambda said: said.gap("full", "lora", "accuracy").p_value is None),
        not_used("lora"),
    ],
    Scenario(
        "full 0.80 and lora 0.75, of which 20 rows can hardly tell anything.",
        World("twenty test rows", rows=20),
        [Strategy("full"), Strategy("lora", 0.75)],
    ): [level_in("accuracy"), NONE_USED, COVERS],
    Scenario(
        "both answer 0.95 of all rows right; these 20 happen to be easy, and all are right for every seed.",
        World("twenty of twenty right", rows=20),
        [Strategy("full", 0.95, answers=always_right), Strategy("lora", 0.95, answers=always_right)],
    ): [
        level_in("accuracy"),
        NONE_USED,
        COVERS,
        says_not("most accurate", "of equally accurate strategies none is called the most accurate"),
    ],
    Scenario(
        "19 of 20 rows have one label, and half of the rare label's rows are found: ROC AUC 0.98, and the accuracy of always giving the frequent one.",
        World("one label in twenty", rows=400, names=("usual", "rare"), shares=(0.95, 0.05), words=0.9),
        [
            Strategy("full", 0.95, answers=rare_found_in_half),
            Strategy("lora", 0.95, answers=rare_found_in_half),
        ],
    ): [
        learned("full", "lora"),
        words("forgot"),
        finds_no("nothing-learned"),
        finds("class-imbalance", "full", "lora"),
        LEVEL,
        NONE_USED,
        says_not("cheaper choice", "the majority class, which finds no rare row, is not called the better choice"),
    ],
    Scenario(
        "TF-IDF answers 0.85 of all rows right, both strategies 0.75.",
        World("a baseline that is better", words=0.85),
        [Strategy("full", 0.75), Strategy("lora", 0.75)],
    ): [NONE_USED, finds("below-baseline", "full", "lora"), level_in("accuracy"), COVERS, learned("full", "lora")],
    Scenario(
        "TF-IDF and both strategies answer 0.80 of all rows right.",
        World("a baseline that is as good", words=0.80),
        [Strategy("full"), Strategy("lora")],
    ): [NONE_USED, finds("below-baseline", "full", "lora"), level_in("accuracy"), COVERS],
    Scenario(
        "it predicts general text better than the base does, by 0.43, and 62 documents show it.",
        World("improvement", documents=62),
        [Strategy("lora", forgets=-0.43)],
    ): [words("improved"), finds_no("forgetting"), COVERS],
    Scenario(
        "it loses 0.002, which is less than the margin of 0.010, and 168 documents show it.",
        World("retained", documents=168),
        [Strategy("lora", forgets=0.002, losses=evenly(0.01))],
    ): [words("retained"), finds_no("forgetting"), COVERS],
    Scenario(
        "it loses nothing on average, and 20 documents look so: but one in twenty that loses much could be missing among them.",
        World("twenty documents", documents=20),
        [Strategy("lora", forgets=0.0, losses=evenly(0.003))],
    ): [words("inconclusive"), reason("can be missed by 20"), COVERS],
    Scenario(
        "it loses 0.001 on average, a tenth of the margin; of 168 documents one in forty bears all of it.",
        World("few documents bear the loss", documents=168),
        [Strategy("lora", forgets=0.001, losses=by_few)],
    ): [words("inconclusive"), reason("few documents bear most of the loss"), covers(accuracy=False)],
    Scenario(
        "it loses 0.05, five times the margin, and 168 documents show it.",
        World("forgot", documents=168),
        [Strategy("lora", forgets=0.05)],
    ): [words("forgot"), finds("forgetting", "lora"), COVERS],
    Scenario(
        "head-only has a frozen backbone and loses nothing, exactly (0.70); full loses 0.30 (0.85).",
        World("a frozen backbone"),
        [
            Strategy("full", 0.85, 0.3, artifact_bytes=_FULL_BYTES),
            Strategy("head-only", 0.70, 0.0, losses=nothing, artifact_bytes=2**13),
        ],
    ): [
        Fact("head-only's forgetting is exactly 0, with an interval of 0", lambda said: (said.standing("head-only").figures[FORGETTING].mean, said.standing("head-only").figures[FORGETTING].ci95) == (0.0, (0.0, 0.0))),
        words("retained", "head-only"),
        words("forgot", "full"),
        more("full", "head-only", FORGETTING),
        COVERS,
    ],
    Scenario(
        "equal strategies, 0.60 on new rows, with five seeds; 60 of the 200 test rows are in train as well, and full knows them by heart.",
        World("leakage that was accepted", leaked=60, words=0.45),
        [
            Strategy("full", 0.60, seeds=_FIVE, answers=from_memory),
            Strategy("lora", 0.60, seeds=_FIVE),
        ],
    ): [
        Fact("every run says that 60 rows leaked, and scores the others apart", lambda said: all((score := one.run.checks.leaked_score) is not None and score.leaked == 60 and score.metrics_without for one in said.evidence)),
        level_in("accuracy"),
        not_used("full"),
        covers(forgetting=False),
    ],
    Scenario(
        "3 of 10 test labels are wrong; by the right ones full answers 0.90 and lora 0.75 right, by those of the test 0.645 and 0.5625.",
        World("wrong test labels", rows=400, wrong_labels=0.3),
        [Strategy("full", 0.90), Strategy("lora", 0.75)],
    ): [
        Fact("lora is never called the more accurate", lambda said: said.gap("full", "lora", "accuracy").mean > 0),
        not_used("lora"),
        learned("full", "lora"),
    ],
    Scenario(
        "full answers 0.85 right with seeds 0 and 1, and gives almost every row one label with seed 2; lora 0.80 with every seed.",
        World("a seed that collapsed"),
        [Strategy("full", 0.85, collapsed=(2,)), Strategy("lora", 0.80)],
    ): [
        finds("unstable-across-seeds", "full"),
        not_used("full"),
        learned("full", "lora"),
        level_in("accuracy"),
    ],
    Scenario(
        "full read 3,200 rows in training and lora 6,400; full 0.70, lora 0.85.",
        World("unequal training"),
        [Strategy("full", 0.70), Strategy("lora", 0.85, examples_seen=6400)],
    ): [NOT_RANKED, NONE_USED, COVERS],
    Scenario(
        "equal accuracy (0.80); lora seems to lose 0.05 and full 0.30, but with its adapter off lora is not the base: its figure means nothing.",
        World("a control that failed"),
        [Strategy("full", forgets=0.3), Strategy("lora", forgets=0.05, off=0.15)],
    ): [
        words(None, "lora"),
        finds("control-failed", "lora"),
        not_used("lora"),
        level_in(FORGETTING),
    ],
}  # fmt: skip
SCENARIOS = {scenario.name: scenario for scenario in TABLE}
FACTS = {scenario.name: facts for scenario, facts in TABLE.items()}
WRONG = {
    name: list(dict.fromkeys(fact.wrong_today for fact in facts if fact.wrong_today))
    for name, facts in FACTS.items()
}
"""What is known to be wrong with each scenario today."""
