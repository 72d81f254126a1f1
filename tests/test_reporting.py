"""The report: every number of the comparison, escaped, the same bytes for the same data."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import reports
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import peftune
from peftune.baselines.baseline import Baseline
from peftune.baselines.measure import write_baselines
from peftune.cli.main import app
from peftune.errors import OutputFolderError, UsageError
from peftune.experiments.compare.clean_rows import baselines_of
from peftune.experiments.compare.executors import Failure
from peftune.experiments.compare.summarize import summarize
from peftune.experiments.compare.summary import Summary
from peftune.experiments.run_evidence import Evidence, read_evidence, refuse_mixed_runs
from peftune.findings import CheckReport
from peftune.findings.duplicates import LEAKED
from peftune.findings.finding import LeakedScore
from peftune.reporting import report_writer, write_reports
from peftune.reporting.contents import estimate
from peftune.reporting.page import styles
from peftune.reporting.plot_style import SERIES, _pushed_apart
from peftune.reporting.plots import Line, Mark, curves, trade_off
from peftune.stats.formats import signed, size
from peftune.stats.scores import expected_calibration_error, reliability_bins

VOID = {"meta", "link", "br", "wbr", "hr", "img", "input", "circle", "rect", "path", "use", "line"}
FAILURE = Failure("lora", 2, f"Out of memory {reports.ATTACK}")
READABLE = 4.5
"""Least contrast of letters on their ground: WCAG 2.2, success criterion 1.4.3."""


class Outline(HTMLParser):
    """What a page consists of; refuses one whose elements are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that has no end."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """See that it ends what was opened last."""
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        """Note words."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """The words of the page, in order, a space for any white space."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the report of the comparison that `reports` makes up."""
    place = tmp_path_factory.mktemp("report")
    write_reports(*reports.comparison(), [FAILURE], place)
    return place


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """Give the page itself."""
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_with_one_heading_and_its_landmarks(page: str) -> None:
    """Each element is closed where it should be; a reader finds title, language and parts."""
    outline = Outline(page)

    assert outline.all("html") == [{"lang": "en"}]
    for landmark in ("h1", "main", "header", "footer", "nav"):
        assert len(outline.all(landmark)) == 1, landmark
    assert len(outline.all("title")) == 1


def test_ids_are_there_once_and_every_reference_finds_its_own(page: str) -> None:
    """Plots do not take each other's markers, and links and labels lead somewhere."""
    tags = Outline(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    referred = set(re.findall(r"url\(#([^)\"]+)\)", page))
    for _, attributes in tags:
        href = attributes.get("href") or ""
        referred |= {href[1:]} if href.startswith("#") else set()
        for name in ("aria-labeledby", "aria-describedby"):
            referred |= set((attributes.get(name) or "").split())

    assert len(ids) == len(set(ids))
    assert referred
    assert referred <= set(ids)


def test_the_answer_comes_first(page: str) -> None:
    """Before any table or link stands the verdict."""
    text = Outline(page).text

    assert text.index(reports.ANSWER) < text.index("Strategies, most accurate first")
    assert page.index('class="answer"') < page.index("<nav")


def test_the_sections_come_in_the_order_of_a_reader(page: str) -> None:
    """Verdict, strategies, baselines, trade-off, and only then how it came about."""
    assert [attributes["id"] for attributes in Outline(page).all("section")] == [
        "strategies",
        "baselines",
        "trade-off",
        "matched",
        "curves",
        "confusion",
        "calibration",
        "mistakes",
        "largest-losses",
        "findings",
        "data",
        "origin",
        "repeat",
    ]


def test_every_number_of_the_summary_stands_in_the_page_and_in_markdown(folder: Path) -> None:
    """No estimate, interval, difference, baseline or matched figure is left out."""
    summary = reports.summary()
    wanted = set(_numbers(summary))
    text = Outline((folder / "report.html").read_text(encoding="utf-8")).text
    marked = (folder / "report.md").read_text(encoding="utf-8")
    plain = html.unescape(re.sub(r"\\(.)", r"\1", marked))

    assert len(wanted) > 40
    assert {number for number in wanted if number not in text} == set()
    assert {number for number in wanted if number not in plain} == set()


def _numbers(summary: Summary) -> list[str]:
    """Write the figures of a summary as the report should, independently of it."""
    found = [f"at accuracy {one.accuracy:.3f}" for one in summary.matched]
    for standing in summary.standings:
        for key in ("accuracy", f"forgetting.{reports.PROBE}"):
            form = ".3f" if key == "accuracy" else "+.4f"
            value = standing.figures[key]
            assert value.mean is not None
            assert value.ci95 is not None
            if value.mean:
                found += [format(number, form) for number in (value.mean, *value.ci95)]
    for one in (*summary.differences, *summary.matched[0].differences):
        found += [f"{number:+.4f}" for number in (one.mean, *(one.ci95 or ()))]
    for value in summary.matched[0].forgetting.values():
        found += [f"{number:+.4f}" for number in value.ci95 or ()]
    for baseline in summary.baselines:
        found += [f"{number:.3f}" for number in (baseline.accuracy, baseline.macro_f1) if number]
    return [number.replace("-", "\N{MINUS SIGN}") for number in found] + [
        "13 s",
        "512 MiB",
        "20 MiB",
        "525 KiB",
        "not counted",
        "not reached",
        "the examples do not fit",
        "they read unequal numbers of rows",
        "not ranked",
        "0.621",
        "< 0.001",
    ]


def test_texts_labels_and_names_cannot_act_in_the_page(page: str) -> None:
    """A script that stands in a row, a document, a label or a name is shown, not run."""
    outline = Outline(page)

    assert outline.all("script") == []
    assert "<b>odd" not in page
    assert outline.text.count(reports.ATTACK) > 20


def test_texts_labels_and_names_cannot_act_in_markdown(folder: Path) -> None:
    """Neither HTML nor the signs of Markdown pass: each table keeps its number of columns."""
    text = (folder / "report.md").read_text(encoding="utf-8")
    outside = [line for line in text.splitlines() if "<summary>" not in line]
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("| ")]

    assert not re.search(r"(?<!\\)<(?!/?details>)", "\n".join(outside))
    assert len(tables) > 10
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, lines[0]


def test_the_page_asks_nothing_of_any_server(page: str) -> None:
    """No element loads a thing, and the page forbids itself to."""
    outline = Outline(page)
    loading = ("script", "link", "img", "iframe", "object", "embed", "image", "source", "base")

    assert [tag for tag, _ in outline.tags if tag in loading] == []
    assert "url(http" not in page
    assert "@import" not in page
    policy = [tag.get("content") for tag in outline.all("meta") if tag.get("http-equiv")]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_the_same_data_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """No date, no chance, no order of a set gets into the files."""
    write_reports(*reports.comparison(), [FAILURE], tmp_path)

    for name in ("report.html", "report.md", "report.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_every_table_has_a_caption_and_headings(page: str) -> None:
    """Who hears a table learns what it is, and what each number belongs to."""
    outline = Outline(page)
    scopes = {attributes.get("scope") for attributes in outline.all("th")}

    assert len(outline.all("table")) > 20
    assert len(outline.all("caption")) == len(outline.all("table"))
    assert scopes == {"col", "row"}


def test_every_plot_has_a_title_and_a_description(page: str) -> None:
    """Who does not see a plot reads what it shows."""
    plots = [tag for tag in Outline(page).all("div") if tag.get("role") == "img"]

    assert len(plots) == page.count('<svg viewBox="0 0 3')
    assert all(plot["aria-labeledby"] and plot["aria-describedby"] for plot in plots)
    assert "lora: accuracy 0.715, forgetting +0.1299" in page


def test_a_plot_has_no_color_but_those_of_the_page() -> None:
    """What the style sheet does not name would vanish on a dark screen."""
    marks = [
        Mark("a", 0, 0.5, 0.1, (0.4, 0.6), (0.0, 0.2)),
        Mark("b", 7, 0.6, 0.2, on_front=False),
    ]
    drawn = trade_off(
        marks, [Line("a", 0, [0, 0.5], [0, 0.1])], name="n", x_label="$x", y_label="<y"
    )

    assert re.findall(r"#[0-9a-fA-F]{6}\b", drawn) == []
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", drawn)) <= set(_colors()[0])
    assert "$x" in drawn
    assert "&lt;y" in drawn


def test_strategies_differ_in_marker_and_not_in_color_alone() -> None:
    """Two curves of six strategies have neither one dash nor one marker in common by chance."""
    from peftune.reporting.plot_style import MARKERS

    assert len(set(MARKERS)) == len(SERIES) == 6
    drawn = curves(
        [
            Line(name, index, [0, 1], [0, index], index, dotted=True)
            for index, name in enumerate("ab")
        ],
        name="n",
        x_label="",
        y_label="",
    )
    assert len(re.findall(r'<path id="n-m', drawn)) == 2


def test_names_at_the_ends_of_curves_do_not_cover_each_other() -> None:
    """They keep their order and their middle, and a line's height between them."""
    places = _pushed_apart([0.0, 0.01, 0.5], [0.1, 0.1, 0.1])

    assert_allclose(np.diff(places), [0.1, 0.4])
    assert_allclose(np.mean(places), np.mean([0.0, 0.01, 0.5]))
    assert_allclose(np.diff(_pushed_apart([0.0, 0.01], [0.1, 0.3])), [0.2])  # three lines of one


def _colors() -> tuple[dict[str, str], dict[str, str]]:
    """Read the colors of the light and of the dark scheme."""
    light, dark = re.findall(r":root \{(.*?)\}", styles(), re.DOTALL)
    pattern = r"(--[a-z0-9-]+): ([^;]+);"
    first = dict(re.findall(pattern, light))
    return first, {**first, **dict(re.findall(pattern, dark))}


def _luminance(color: tuple[float, ...]) -> float:
    """Relative luminance as WCAG 2.2 defines it; channels from 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _channels(color: str) -> tuple[float, ...]:
    if color.startswith("#"):
        return tuple(int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return tuple(int(part) / 255 for part in color.split())


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_and_lines_stand_out_from_their_ground(scheme: int) -> None:
    """In both schemes: letters 4.5 to 1, on shaded cells as well; strategies too, which label."""
    colors = {
        name: _channels(color)
        for name, color in _colors()[scheme].items()
        if name != "color-scheme"
    }
    letters = [name for name in colors if name not in {"--paper", "--raised", "--rule", "--shade"}]
    deepest = float(re.findall(r"var\(--share\) \* (\.\d+)", styles())[0])
    shaded = tuple(
        deepest * shade + (1 - deepest) * paper
        for shade, paper in zip(colors["--shade"], colors["--paper"], strict=True)
    )

    assert len(letters) == 11
    for name in letters:
        assert _contrast(colors[name], colors["--paper"]) >= READABLE, name
    for ground in (shaded, colors["--raised"]):
        assert _contrast(colors["--ink"], ground) >= READABLE


def test_the_table_for_programs_gives_every_run_back(folder: Path) -> None:
    """Read again, each number is the very number of the run; a failure has a line of its own."""
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    _, evidence = reports.comparison()

    assert len(rows) == len(evidence) + 1
    for row, item in zip(rows, evidence, strict=False):
        run = item.run
        assert (row["strategy"], int(row["seed"])) == (run.run.strategy, run.run.seed)
        assert row["name"] == run.run.name
        assert float(row["accuracy"]) == run.learning.accuracy
        interval = run.learning.ci95["accuracy"]
        assert (float(row["accuracy.low"]), float(row["accuracy.high"])) == interval
        assert float(row["forgetting.general-text"]) == run.forgetting["general-text"].forgetting
        assert float(row["train_seconds"]) == run.cost.train_seconds
        assert int(row["trainable_parameters"]) == run.cost.trainable_parameters
    assert {key: value for key, value in rows[-1].items() if value} == {
        "strategy": "lora",
        "seed": "2",
        "status": "failed",
        "reason": FAILURE.message,
    }


def test_a_run_on_its_own_has_a_report(tmp_path: Path) -> None:
    """Without a comparison the sections of the run are there, and nothing that compares."""
    made = write_reports(None, [reports.evidence("lora", 0)], [], tmp_path)
    outline = Outline(made.page.read_text(encoding="utf-8"))

    assert made.answer == (
        "lora reaches an accuracy of 0.933 (0.841 to 0.974) on 60 test rows and forgets "
        "+0.1235 bits per byte (+0.1112 to +0.1358) on general-text; the intervals are over rows and documents, of this one model alone."
    )
    sections = [attributes["id"] for attributes in outline.all("section")]
    assert sections[:3] == ["runs", "baselines", "trade-off"]
    assert "strategies" not in sections
    assert "matched" not in sections
    assert "0.551" in outline.text  # the run's own TF-IDF baseline


def test_a_run_without_probes_has_a_report(tmp_path: Path) -> None:
    """What was not measured is said, and no plot of it is drawn."""
    whole = reports.evidence("full", 0)
    nothing = dataclasses.replace(
        whole.run.forgetting, probes=[], path=(), verdict=None, reason="the recipe has none"
    )
    bare = Evidence(dataclasses.replace(whole.run, forgetting=nothing), whole.rows, {})

    made = write_reports(None, [bare], [], tmp_path)

    assert made.answer.endswith("; what it forgot was not measured.")
    sections = [tag["id"] for tag in Outline(made.page.read_text(encoding="utf-8")).all("section")]
    assert "trade-off" not in sections
    assert "largest-losses" not in sections


def test_a_comparison_of_which_nothing_finished_has_a_report(tmp_path: Path) -> None:
    """The failures are told."""
    summary = Summary("No run finished.", "examples_seen", [], [], [], [], [])

    made = write_reports(summary, [], [FAILURE], tmp_path)

    text = Outline(made.page.read_text(encoding="utf-8")).text
    assert f"lora, seed 2 failed. {FAILURE.message}" in text
    assert "A comparison without a finished run" in text


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """One line says which and what to do."""
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputFolderError) as caught:
        write_reports(None, [reports.evidence("lora", 0)], [], tmp_path / "file")

    assert str(caught.value) == (
        f"'{tmp_path / 'file'}' cannot be written: File exists. Choose another folder with --output."
    )


def test_mistakes_are_ordered_by_seeds_and_confidence(tmp_path: Path) -> None:
    """The first row told is wrong with most seeds, and the surest of those; brute force."""
    items = [reports.evidence("head-only", seed) for seed in reports.SEEDS]
    write_reports(None, items, [], tmp_path)
    expected = []
    for row in range(reports.ROWS):
        wrong = [item for item in items if item.rows.labels[row] != item.rows.predicted[row]]
        if wrong:
            sure = [float(item.rows.probabilities[row].max()) for item in wrong]
            expected.append((-len(wrong), -sum(sure) / len(sure), f"row-{row}"))
    expected.sort()

    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    found = [re.findall(r"row-\d+", line)[0] for line in lines if "| row-" in line]

    assert found == [name for *_, name in expected[:10]]


def test_the_documents_that_paid_are_those_that_got_worst(tmp_path: Path) -> None:
    """By bits per byte, whatever their length; where higher is better, the fall counts."""
    item = reports.evidence("lora", 0)
    scores = item.documents[reports.PROBE]
    turned = dataclasses.replace(scores, higher_is_better=True)
    change = (scores.after - scores.before) / scores.weight
    for documents, order in ((scores, np.argsort(-change)), (turned, np.argsort(change))):
        write_reports(
            None, [dataclasses.replace(item, documents={reports.PROBE: documents})], [], tmp_path
        )
        lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
        found = [
            int(re.findall(r"paragraph (\d+)", line)[0]) for line in lines if "paragraph" in line
        ]
        assert found == order[:5].tolist()


def test_calibration_bins_hold_each_row_once_and_meet_a_count_by_hand() -> None:
    """Against loops over rows; a row of confidence 1 is in the last bin."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet((1.0, 1.0, 1.0), size=200)
    chances[0] = (1.0, 0.0, 0.0)
    labels = rng.integers(0, 3, size=200)

    bins = reliability_bins(chances, labels)

    gap = 0.0
    for index, one in enumerate(bins):
        low, high = index / 10, (index + 1) / 10
        here = [row for row in range(200) if low < chances[row].max() <= high]
        assert one.count == len(here)
        if here:
            right = sum(chances[row].argmax() == labels[row] for row in here)
            sure = sum(chances[row].max() for row in here)
            assert one.accuracy == pytest.approx(right / len(here))
            assert one.confidence == pytest.approx(sure / len(here))
            gap += abs(right - sure)
    assert sum(one.count for one in bins) == 200
    assert_allclose(expected_calibration_error(bins), gap / 200)


def test_numbers_are_written_for_people() -> None:
    """A real minus sign, a zero that is exact, and sizes in units of 1024."""
    assert signed(-0.01234) == "\N{MINUS SIGN}0.0123"
    assert signed(0.0) == "0"
    assert signed(-0.00001) == "\N{MINUS SIGN}0.0000"
    assert [size(value) for value in (12, 537_461, 21_000_000, 1_057_000_000, 5 * 1024**3)] == [
        "12 B",
        "525 KiB",
        "20 MiB",
        "1008 MiB",
        "5 GiB",
    ]
    assert estimate(None, "accuracy") == ("–", "")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """The line says what was looked for."""
    with pytest.raises(UsageError) as caught:
        peftune.report(tmp_path)

    assert str(caught.value) == (
        f"'{tmp_path}' holds neither a run (report.json) nor a comparison (comparison.json). "
        "Name the output folder of 'peftune run' or 'peftune compare'."
    )


def test_a_damaged_comparison_is_refused(tmp_path: Path) -> None:
    """As one line on the command line, with the code of usage."""
    (tmp_path / "comparison.json").write_text(json.dumps({"runs": [{}]}))

    with pytest.raises(UsageError) as caught:
        report_writer.report(tmp_path)

    assert str(caught.value) == (
        f"'{tmp_path / 'comparison.json'}' is damaged (runs.0.folder: Field required). "
        "Run 'peftune compare' again; finished runs are kept."
    )


def test_several_folders_need_a_place_for_the_report(tmp_path: Path) -> None:
    """None of them is the natural one."""
    with pytest.raises(UsageError) as caught:
        report_writer.report(tmp_path / "a", tmp_path / "b")

    assert str(caught.value) == (
        "The report of several folders needs a place of its own: output=… in Python, --output on the command line."
    )
    assert CliRunner().invoke(app, ["report"]).exit_code != 0


def test_runs_that_do_not_fit_together_are_refused() -> None:
    """Other rows, or one strategy and seed twice, would give a table that misleads."""
    first, other = reports.evidence("lora", 0), reports.evidence("full", 0)
    rows = dataclasses.replace(other.run.run, data_fingerprint="0" * 64)
    changed = dataclasses.replace(other, run=dataclasses.replace(other.run, run=rows))

    with pytest.raises(UsageError) as caught:
        refuse_mixed_runs([first, changed], advice="Report on each by itself.")
    assert str(caught.value) == (
        f"'{first.run.folder}' and '{changed.run.folder}' do not have the same rows, so they cannot be compared. Report on each by itself."
    )
    with pytest.raises(UsageError) as caught:
        refuse_mixed_runs([first, first], advice="Report on each by itself.")
    assert str(caught.value) == (
        f"'{first.run.folder}' and '{first.run.folder}' are both runs of 'lora' with seed 0. Leave one of them out."
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a comparison whose second seed of lora failed."""
    place = tmp_path_factory.mktemp("compared")
    folders = [
        reports.write_run(reports.evidence(strategy, 0), place / f"{strategy}-seed0").name
        for strategy in ("full", "lora")
    ]
    values = {
        "runs": [{"folder": name} for name in folders],
        "failures": [dataclasses.asdict(FAILURE)],
    }
    (place / "comparison.json").write_text(json.dumps(values), encoding="utf-8")
    return place


def test_a_comparison_is_told_again_from_its_folder_alone(compared: Path, tmp_path: Path) -> None:
    """Its answer is that of `summarize`; runs, failures, texts and recipes are in the page."""
    items = [read_evidence(compared / f"{name}-seed0") for name in ("full", "lora")]
    made = peftune.report(compared, output=tmp_path / "again")

    assert made.answer == (
        summarize(items, baselines=baselines_of(items[0]), held_equal="examples_seen").answer
    )
    text = Outline(made.page.read_text(encoding="utf-8")).text
    assert made.answer in text
    assert f"lora, seed 2 failed. {FAILURE.message}" in text
    assert f'version: 1 name: "posts {reports.ATTACK}"' in text
    assert re.search(r"post \d+ \| with a pipe", text)


@pytest.fixture(scope="module")
def leaked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a comparison in which every fourth row leaked, with its baselines."""
    place = tmp_path_factory.mktemp("leaked")
    items = [reports.evidence(strategy, 0) for strategy in ("full", "lora")]
    marked = np.arange(len(items[0].rows.ids)) % 4 == 0
    for item in items:
        rows = dataclasses.replace(item.rows, leaked=marked)
        reports.write_run(
            dataclasses.replace(item, rows=rows), place / f"{item.run.run.strategy}-seed0"
        )
    values = {"runs": [{"folder": "full-seed0"}, {"folder": "lora-seed0"}], "failures": []}
    (place / "comparison.json").write_text(json.dumps(values), encoding="utf-8")
    rows = items[0].rows
    # A baseline that has every leaked row right, and no other.
    predicted = np.where(marked, rows.labels, (rows.labels + 1) % len(rows.names))
    heart = Baseline(
        "tfidf_logistic_regression",
        "TF-IDF, logistic regression",
        float(marked.mean()),
        0.25,
        rows=tuple(rows.ids),
        predicted=(tuple(predicted.tolist()),),
    )
    write_baselines([heart], place / "baselines.json", "of these rows")
    return place


def test_leaked_rows_are_left_out_of_every_part_of_a_page(leaked: Path, tmp_path: Path) -> None:
    """Its sentence, its line of facts, the counts of its matrices and its spreadsheet agree."""
    made = peftune.report(leaked, output=tmp_path)

    rows = read_evidence(leaked / "full-seed0").rows
    kept = rows.without(rows.leaked)
    count = len(rows.ids) // 4
    sentence = f"{count} of {4 * count} test rows were read in training and are left out here"
    assert made.answer.count(sentence) == 1
    for file in (made.page, made.markdown):
        text = file.read_text(encoding="utf-8")
        text = Outline(text).text if file is made.page else text
        assert text.count(sentence) == 2  # in the answer, and beside the table
        assert f"{3 * count:,} test rows" in text
        assert f"TF-IDF, logistic regression {0:.3f}" in text
    lines = list(csv.DictReader(made.spreadsheet.read_text(encoding="utf-8").splitlines()))
    assert [line["n"] for line in lines] == [str(3 * count)] * 2
    right = float((kept.labels == kept.predicted).mean())
    assert float(lines[0]["accuracy"]) == pytest.approx(right)
    # A run by itself is told with all its rows.
    alone = peftune.report(leaked / "full-seed0", output=tmp_path / "alone")
    assert "left out" not in alone.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ids", "listed", "found"),
    [
        (str, 12, 12),
        (lambda row: f"row-{row}", 12, 0),  # names of their own are not row numbers
        (str, 11, 0),  # more leaked than the check lists
    ],
)
def test_an_older_folder_names_its_leaked_rows_by_its_check(
    ids: Callable[[int], str], listed: int, found: int, tmp_path: Path
) -> None:
    """The rows that the check of leakage lists are those that the score without them leaves out."""
    item = reports.evidence("lora", 0)
    score = LeakedScore("test", len(item.rows.ids), 12, {}, {})
    result = LEAKED.in_rows("", {"train": [1], "test": list(range(5, 5 + listed))}, status="warn")
    run = dataclasses.replace(
        item.run, checks=CheckReport("warn", {}, (result,), leaked_score=score)
    )
    rows = dataclasses.replace(item.rows, ids=[ids(row) for row in range(len(item.rows.ids))])
    folder = reports.write_run(dataclasses.replace(item, run=run, rows=rows), tmp_path / "run")

    leaked_ = read_evidence(folder).rows.leaked

    assert np.flatnonzero(leaked_).tolist() == list(range(5, 5 + found))


def test_the_texts_of_rows_can_be_left_out(compared: Path, tmp_path: Path) -> None:
    """A page for readers who may not see the rows still says which rows are wrong."""
    arguments = ["report", str(compared), "--output", str(tmp_path), "--no-row-texts"]

    assert CliRunner().invoke(app, arguments).exit_code == 0

    for name in ("report.html", "report.md"):
        written = (tmp_path / name).read_text(encoding="utf-8")
        assert re.search(r"post \d+", written) is None
        assert "(left out)" in written


def test_run_folders_are_reported_as_the_comparison_of_them(
    compared: Path, tmp_path: Path
) -> None:
    """Named one by one they give the page that their comparison gives, its failures apart."""
    folders = [str(compared / f"{name}-seed0") for name in ("full", "lora")]
    arguments = ["report", *folders, "--output", str(tmp_path), "--json"]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0
    values = json.loads(result.stdout)
    assert values["page"] == str(tmp_path / "report.html")
    assert values["answer"] == peftune.report(compared, output=tmp_path / "other").answer
    assert len((tmp_path / "report.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_the_report_of_one_run_goes_into_its_folder(tmp_path: Path) -> None:
    """Where there is only one place for it."""
    folder = reports.write_run(reports.evidence("lora", 1), tmp_path / "run")

    made = peftune.report(folder)

    assert made.page == folder / "report.html"
    assert made.answer.startswith("lora reaches an accuracy of 0.950")
