"""A report of many labels, long names or runs that learned nothing says so where it is read."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import reports
from sklearn.metrics import precision_recall_fscore_support

from peftune.experiments.compare.executors import Failure
from peftune.experiments.run_evidence import Evidence
from peftune.findings.finding import Finding
from peftune.reporting import write_reports
from peftune.reporting.answers import confusion_section
from peftune.reporting.contents import Figures, Fold, Paragraph, Section, Subject, Table, Tables
from peftune.reporting.overview import alerts_of
from peftune.reporting.page import breakable, styles
from peftune.reporting.plots import Level, levels
from peftune.reporting.standings import baselines_section

LONG = "lora-r64-all-layers-with-kl-to-base"


class Written(NamedTuple):
    """A report, as HTML and as Markdown."""

    page: str
    text: str


def subject(labels: int, *, seeds: Sequence[int] = reports.SEEDS) -> Subject:
    """Give a comparison with so many labels."""
    summary, evidence = reports.comparison(reports.label_names(labels))
    return Subject(summary, [item for item in evidence if item.run.run.seed in seeds], [])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Written]:
    """Give the pages of comparisons with as many labels as a matrix takes, and with many more."""
    found = {}
    for labels in (12, 77):
        made = reports.comparison(reports.label_names(labels))
        summary, evidence = reports.renamed(made, {"lora": LONG})
        files = write_reports(summary, evidence, [], tmp_path_factory.mktemp(f"labels-{labels}"))
        page, text = (one.read_text(encoding="utf-8") for one in (files.page, files.markdown))
        found[labels] = Written(page, text)
    return found


def tables_of(section: Section) -> list[Table]:
    """Give the tables that stand side by side."""
    return [
        table for block in section.blocks if isinstance(block, Tables) for table in block.tables
    ]


def folded(section: Section) -> list[Table]:
    """Give the tables that are folded."""
    blocks = [
        inner for block in section.blocks if isinstance(block, Fold) for inner in block.blocks
    ]
    return [block for block in blocks if isinstance(block, Table)]


def pooled(evidence: Sequence[Evidence], strategy: str) -> Counter[tuple[str, str]]:
    """Count true and predicted labels over the rows of all seeds."""
    return Counter(
        (item.rows.names[int(true)], item.rows.names[int(said)])
        for item in evidence
        if item.run.run.strategy == strategy
        for true, said in zip(item.rows.labels, item.rows.predicted, strict=True)
    )


@pytest.mark.parametrize("labels", [3, 12, 13, 77])
def test_a_matrix_has_twelve_labels_at_most(labels: int) -> None:
    """Of more the pairs that are confused most are shown, a table for each strategy as well."""
    tables = tables_of(confusion_section(subject(labels)))

    assert len(tables) == len(reports.STRATEGIES)
    for table in tables:
        assert len(table.columns) == (1 + labels if labels <= 12 else 4)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [12, 77])
def test_no_table_has_a_column_for_each_of_many_labels(
    labels: int, written: Mapping[int, Written]
) -> None:
    """Neither in the page nor in Markdown."""
    page, text = written[labels]
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    lines = [re.sub(r"\\.", "", line) for line in text.splitlines() if line.startswith("|")]

    assert max(row.count("<th") + row.count("<td") for row in rows) <= 13
    assert max(line.count("|") - 1 for line in lines) <= 13


@pytest.mark.parametrize("labels", [3, 12])
def test_a_matrix_of_few_labels_has_every_count(labels: int) -> None:
    """A cell is the rows of one true and one predicted label, over the seeds; headings stand upright where there are many."""
    found = subject(labels)
    names = reports.label_names(labels)
    tables = tables_of(confusion_section(found))

    for table in tables:
        counts = pooled(found.evidence, table.caption)
        shown = [[int(cell.text) for cell in row[1:]] for row in table.rows]
        assert shown == [[counts[true, said] for said in names] for true in names]
        assert table.upright is (labels == 12)


def test_the_most_confused_pairs_of_many_labels_are_those_counted_by_hand() -> None:
    """The most rows first, then the larger share of the true label; no pair that is right."""
    found = subject(77)
    totals = Counter(
        reports.label_names(77)[row % 77] for row in range(4 * 77) for _ in reports.SEEDS
    )
    names = reports.label_names(77)

    for table, strategy in zip(
        tables_of(confusion_section(found)), reports.STRATEGIES, strict=True
    ):
        counts = pooled(found.evidence, strategy)
        wrong = [pair for pair in counts if pair[0] != pair[1]]
        wrong.sort(key=lambda pair: (-counts[pair], names.index(pair[0]), names.index(pair[1])))
        assert table.caption == f"{strategy}: the 15 most confused of {len(wrong):,} pairs"
        assert table.columns == ["True label", "Predicted", "Rows", "Share"]
        assert [[cell.text for cell in row] for row in table.rows] == [
            [*pair, str(counts[pair]), f"{counts[pair] / totals[pair[0]]:.0%}"]
            for pair in wrong[:15]
        ]


def test_a_strategy_that_confuses_no_labels_has_no_pairs() -> None:
    """Where every row is right there is nothing to list, and nothing fails."""
    found = subject(13, seeds=[0])
    perfect = [
        dataclasses.replace(
            item,
            run=dataclasses.replace(
                item.run,
                learning=dataclasses.replace(
                    item.run.learning,
                    confusion=[[4 * (i == j) for j in range(13)] for i in range(13)],
                ),
            ),
        )
        for item in found.evidence
    ]
    tables = tables_of(confusion_section(Subject(found.summary, perfect, [])))

    assert tables[0].caption == "full: the 0 most confused of 0 pairs"
    assert tables[0].rows == []


@pytest.mark.parametrize("labels", [3, 77])
def test_every_label_has_its_scores_the_lowest_first(labels: int) -> None:
    """Precision, recall and F1 are scikit-learn's on the rows of all seeds."""
    found = subject(labels)
    names = reports.label_names(labels)

    for table, items in zip(
        folded(confusion_section(found)), found.by_strategy.values(), strict=True
    ):
        truth = [int(label) for item in items for label in item.rows.labels]
        said = [int(label) for item in items for label in item.rows.predicted]
        scores = precision_recall_fscore_support(
            truth, said, labels=range(labels), zero_division=0
        )
        expected = {
            name: [f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", str(rows)]
            for name, precision, recall, f1, rows in zip(names, *scores, strict=True)
        }
        assert {row[0].text: [cell.text for cell in row[1:]] for row in table.rows} == expected
        f1_column = [float(row[3].text) for row in table.rows]
        assert f1_column == sorted(f1_column)


def test_baselines_and_strategies_have_one_order_in_table_and_plot() -> None:
    """The most accurate stands at the top of both; what was not measured stands last in the table."""
    summary, evidence = reports.comparison()
    section = baselines_section(Subject(summary, evidence, []))
    table = next(block for block in section.blocks if isinstance(block, Table))
    figure = next(block for block in section.blocks if isinstance(block, Figures)).figures[0]
    names = [row[0].text for row in table.rows]

    assert names == [
        "full",
        "lora",
        "TF-IDF + logistic regression",
        "head-only",
        "0-shot prompt",
        "majority class",
        "16-shot prompt",
    ]
    assert table.rows[-1][1].detail == "the examples do not fit"
    assert figure.description.startswith("From the highest: full 0.721, lora 0.715, TF-IDF")
    places = [figure.svg.index(name) for name in ("majority", "head-only", "lora", "full")]
    assert places == sorted(places)  # drawn from the bottom to the top


def test_that_nothing_was_learned_stands_before_the_answer(
    written: Mapping[int, Written],
) -> None:
    """In words, in page and Markdown, and again beside the strategy in the main table."""
    page, text = written[12]
    seen = "Seen in head-only, seeds 0 and 1. Raise training.learning_rate."

    assert f'<strong class="badge">Nothing learned</strong> {seen}</p>' in page
    assert page.index("Nothing learned") < page.index('class="answer"')
    assert page.count('<strong class="badge">nothing learned</strong>') == 1
    assert f"> **Nothing learned.** {seen.replace('_', chr(92) + '_')}\n" in text
    assert "| head-only (2 seeds) **nothing learned** |" in text


def test_a_run_that_learned_nothing_says_so_in_its_first_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its forgetting is not told as if it meant something."""
    monkeypatch.setitem(reports._SKILL, "head-only", 0.0)
    idle = reports.evidence("head-only", 0)
    learning = idle.run.learning
    written = write_reports(None, [idle], [], tmp_path)
    page = written.page.read_text(encoding="utf-8")

    low, high = learning.ci95["accuracy"] or (0, 0)
    assert written.answer == (
        f"Nothing was learned: head-only reaches an accuracy of {learning.accuracy:.3f}"
        f" ({low:.3f} to {high:.3f}) on 60 test rows; forgetting 0 bits per byte"
        " (−0.0123 to +0.0123) on general-text says nothing without learning."
    )
    assert page.index('<strong class="badge">Nothing learned</strong>') < page.index("<h2")


def test_what_makes_numbers_useless_is_said_first() -> None:
    """Runs that failed and findings that are errors stand at the top too, errors before warnings."""
    summary, evidence = reports.comparison()
    broken = Finding("control-failed", "error", "The control is 0.1.", "Do not use the figures.")
    first = dataclasses.replace(
        evidence[0], run=dataclasses.replace(evidence[0].run, findings=[broken])
    )
    failures = [Failure("lora", 2, "Out of memory.")]
    alerts = alerts_of(Subject(summary, [first, *evidence[1:]], failures))

    assert alerts == [
        Paragraph(
            "lora, seed 2 did not finish; the figures below are of the others.",
            "Failed",
            "error",
        ),
        Paragraph(
            "full, seed 0: The control is 0.1. Do not use the figures.", "Control failed", "error"
        ),
        Paragraph(
            "Seen in head-only, seeds 0 and 1. Raise training.learning_rate.",
            "Nothing learned",
            "warning",
        ),
    ]


def test_a_report_without_such_faults_has_no_alert() -> None:
    """What always stands there is read by nobody."""
    assert alerts_of(Subject(None, [reports.evidence("lora", 0)], [])) == []


@pytest.mark.parametrize("labels", [12, 77])
def test_no_table_can_make_the_page_wider_than_a_screen(
    labels: int, written: Mapping[int, Written]
) -> None:
    """Each scrolls in its own box, or becomes cards with a heading beside each value."""
    box, table = r'(<div class="scroll"[^>]*>\s*)?', r'<table class="([^"]*)"(.*?)</table>'
    tables = re.findall(box + table, written[labels].page, re.DOTALL)

    assert tables
    assert all(box for box, _, _ in tables)
    cards = [inner for _, kinds, inner in tables if "cards" in kinds.split()]
    main = next(inner for inner in cards if "Strategies, most accurate first" in inner)
    headings = ["Accuracy", f"Forgetting, {reports.PROBE}", "At accuracy 0.701", "Training time"]
    headings += ["Peak memory", "File size", "Trainable"]
    assert re.findall(r'data-column="([^"]*)"', main) == headings * len(reports.STRATEGIES)
    for inner in cards:
        assert inner.count("<td") == inner.count('role="cell"')
        assert inner.count('role="row"') == inner.count("<tr")
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", styles())


def test_a_long_name_can_be_broken_where_its_words_end() -> None:
    """And is escaped as everything is that comes from data."""
    assert breakable("card_payment/<b>x</b>") == ("card_<wbr>payment/&lt;b&gt;x&lt;/<wbr>b&gt;")
    assert breakable("a - b_") == "a - b_"


def test_a_long_name_leaves_room_in_a_plot() -> None:
    """It is broken into lines; none is longer than a third of the plot."""
    svg = levels([Level(LONG, 0.5, None, 0)], name="x", x_label="accuracy")
    words = re.findall(r">([^<>]*lora[^<>]*|[^<>]*base[^<>]*)</", svg)

    assert LONG not in svg
    assert words == ["lora-r64-all-layers-", "with-kl-to-base"]
