"""`peftune adapter rescale`: what it prints, draws and saves, and one line for each fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from peftune.adapters import save
from peftune.adapters.artifact import open_artifact
from peftune.cli.main import _exit_code
from peftune.experiments.plots import _draw, plot_points
from peftune.experiments.rescale import Point, sweep
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import prepare_model
from peftune.probes import LanguageModelLoss
from peftune.strategies import LoRA

LABELS = ("bad", "good")
PROSE = "The sea was calm and the boats came home.\n\nA cat sat by the fire all day.\n" * 12


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Ended]


PROGRESS = {"peftune: measuring the base on prose", "peftune: measuring forgetting"}
"""All that a good command says beside its table."""


@pytest.fixture(scope="module")
def workplace(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill a folder with a tuned adapter, labeled rows and a probe text."""
    folder = tmp_path_factory.mktemp("work")
    model = prepare_model(
        str(tiny_base), LoRA(r=2), labels=LABELS, max_length=32, seed=1, use_cpu=True
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    save(model, folder / "adapter")
    for name, count in (("validation.jsonl", 20), ("train.jsonl", 40)):
        lines = [
            json.dumps({"text": f"row {index} of {name}", "label": LABELS[index % 2]})
            for index in range(count)
        ]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "prose.txt").write_text(PROSE, encoding="utf-8")
    (folder / "texts.csv").write_text("text\nno label\n", encoding="utf-8")
    return folder


@pytest.fixture
def call(
    workplace: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """Call the verb on the adapter, in the folder."""
    monkeypatch.chdir(workplace)

    def _call(*arguments: str) -> Ended:
        words = ["adapter", "rescale", "adapter", "--base", str(tiny_base), *arguments]
        code = _exit_code(words)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return _call


@pytest.fixture(scope="module")
def points(workplace: Path, tiny_base: Path) -> list[Point]:
    """Sweep in Python what the command sweeps."""
    return sweep(
        workplace / "adapter",
        workplace / "validation.jsonl",
        probes=[LanguageModelLoss(file=str(workplace / "prose.txt"))],
        base=str(tiny_base),
        use_cpu=True,
    )


def test_the_table_has_a_line_for_each_strength(call: Call, points: list[Point]) -> None:
    """Alpha, accuracy and macro F1, forgetting and divergence, each with its interval."""
    ended = call("--file", "validation.jsonl", "--probe", "prose.txt")

    assert ended.code == 0
    assert set(ended.err.splitlines()) <= PROGRESS
    # The headings of a table as wide as this take two lines.
    *_, last, blank, legend = ended.out.splitlines()
    assert (bool(last), blank, legend) == (
        True,
        "",
        "Brackets: 95% intervals over rows or documents, of this one model; another seed makes another.",
    )
    lines = ended.out.splitlines()[-7:-2]
    for line, point in zip(lines, points, strict=True):
        found, learning = point.forgetting["prose"], point.learning
        assert learning is not None
        accuracy, macro_f1 = learning.ci95["accuracy"], learning.ci95["macro_f1"]
        assert accuracy is not None
        assert macro_f1 is not None
        assert found.ci95 is not None
        cells = [
            f"{point.strength.alpha:g}",
            f"{learning.accuracy:.3f} [{accuracy[0]:.3f}, {accuracy[1]:.3f}]",
            f"{learning.macro_f1:.3f} [{macro_f1[0]:.3f}, {macro_f1[1]:.3f}]",
            f"{found.forgetting:+.4f} [{found.ci95[0]:+.4f}, {found.ci95[1]:+.4f}]",
            f"{found.kl:.4f}",
        ]
        assert " ".join(line.split()) == " ".join(cells)
    assert [point.strength.alpha for point in points] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_json_holds_every_number_and_where_it_was_saved(call: Call, workplace: Path) -> None:
    """A sweep and a save in one command, layer-wise and with a head fitted anew."""
    ended = call(
        *("--grid", "0.5,1", "--file", "validation.jsonl", "--probe", "prose.txt", "--json"),
        *("--layerwise", "0.25", "--head", "refitted", "--fit-file", "train.jsonl"),
        *("--alpha", "0.5", "--output", "half", "--plot", "dial.png"),
    )

    assert ended.code == 0
    assert set(ended.err.splitlines()) <= PROGRESS
    values = json.loads(ended.out)
    assert values["saved"] == "half"
    first, last = values["points"]
    assert first["strength"] == {"alpha": 0.5, "shallow": 0.25}
    assert (last["strength"]["alpha"], last["head"]) == (1.0, "refitted")
    manifest = open_artifact(workplace / "half").manifest
    assert manifest.rescaled is not None
    assert (manifest.rescaled.alpha, manifest.rescaled.head) == (0.5, "refitted")
    assert manifest.task is not None
    assert manifest.task["accuracy"] == first["learning"]["accuracy"]
    assert manifest.forgetting is not None
    assert manifest.forgetting[0]["kl"] == first["forgetting"]["probes"][0]["kl"]
    assert (workplace / "dial.png").read_bytes().startswith(b"\x89PNG")


def test_a_strength_is_saved_without_measuring(call: Call, workplace: Path) -> None:
    """Without rows and probes nothing is measured, and nothing is printed but where it is."""
    ended = call("--alpha", "0.25", "--output", "quarter")

    assert ended == Ended(0, "saved: quarter\n", "")
    manifest = open_artifact(workplace / "quarter").manifest
    assert (manifest.task, manifest.forgetting) == (None, None)


def test_what_is_measured_while_saving_is_printed(call: Call) -> None:
    """With a probe alone, forgetting is measured; the score needs rows."""
    ended = call("--alpha", "0", "--output", "zero", "--probe", "prose.txt")

    assert ended.code == 0
    assert set(ended.err.splitlines()) <= PROGRESS
    assert [" ".join(line.split()) for line in ended.out.splitlines()] == [
        "zero",
        "forgetting on prose +0.0000 [+0.0000, +0.0000] bits/byte (positive is worse)",
        "saved: zero",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "",
            (
                "There is nothing to score on. Pass labeled rows with --file to measure strengths, "
                "or --alpha and --output to save one."
            ),
        ),
        ("--alpha 0.5", "--alpha needs --output: together they save the artifact at a strength."),
        ("--output x", "--output needs --alpha: together they save the artifact at a strength."),
        (
            "--alpha 1.5 --output x",
            "alpha must be between 0, the base, and 1, the tuned model (got 1.5).",
        ),
        (
            "--alpha -0.5 --output x",
            "alpha must be between 0, the base, and 1, the tuned model (got -0.5).",
        ),
        (
            "--alpha 0.5 --layerwise 0.6 --output x",
            "The first block's strength must be between 0 and alpha, which is 0.5 (got 0.6).",
        ),
        (
            "--alpha 0.5 --output x --plot x.png",
            "--plot draws several strengths. Name them with --grid.",
        ),
        (
            "--alpha 0.5 --output adapter",
            (
                "'adapter' lies in the artifact itself, which is not changed. Choose another output "
                "folder."
            ),
        ),
        (
            "--file validation.jsonl --grid 0;1",
            "--grid takes numbers with commas between, such as 0,0.25,0.5,0.75,1 (got '0;1').",
        ),
        (
            "--file nowhere.csv",
            (
                "There is no file 'nowhere.csv'. A relative path in a recipe starts from the recipe's "
                "folder."
            ),
        ),
        (
            "--file texts.csv",
            (
                "'texts.csv' has no column 'label'. Available: text. Set data.text_column and "
                "data.label_column."
            ),
        ),
        (
            "--file validation.jsonl --head refitted",
            (
                "A refitted head needs labeled rows to fit on: fit_file=… in Python, --fit-file on "
                "the command line."
            ),
        ),
        (
            "--file validation.jsonl --head refitted --fit-file ./validation.jsonl",
            (
                "The head would be fitted to the rows of 'validation.jsonl' and scored on the same. "
                "Fit it on training rows."
            ),
        ),
        (
            "--file validation.jsonl --plot x.gif",
            "'x.gif' is of no known kind of picture. Allowed: .pdf, .png, .svg.",
        ),
        (
            "--file validation.jsonl --plot no/x.png",
            "There is no folder 'no' to write 'x.png' into.",
        ),
    ],
)
def test_a_fault_is_one_line_and_code_3(
    arguments: str, message: str, call: Call, workplace: Path
) -> None:
    """Nothing is written, and the line says what to do."""
    before = sorted(workplace.iterdir())

    ended = call(*arguments.split())

    assert ended == Ended(3, "", f"peftune: {message}\n")
    assert sorted(workplace.iterdir()) == before


# The picture


def test_the_picture_shows_every_point_with_its_intervals(points: list[Point]) -> None:
    """Accuracy across, forgetting upwards, an interval either way, and alpha beside each point."""
    axes = Figure().subplots()

    _draw(axes, points, "prose")

    [_, line] = axes.lines
    expected = [
        [point.learning.accuracy, point.forgetting["prose"].forgetting]
        for point in points
        if point.learning is not None
    ]
    assert line.get_xydata().tolist() == expected  # type: ignore[union-attr]
    assert [text.get_text() for text in axes.texts] == ["0", "0.25", "0.5", "0.75", "1"]
    assert axes.get_xlabel() == "accuracy on validation.jsonl (share of 20 rows)"
    assert axes.get_ylabel() == "forgetting on prose (bits/byte, positive is worse)"
    drawn = [
        tuple(float(value) for value in segment.flatten())
        for collection in axes.collections
        for segment in collection.get_segments()  # type: ignore[attr-defined]
    ]
    for point in points:
        found, learning = point.forgetting["prose"], point.learning
        assert learning is not None
        assert (across := learning.ci95["accuracy"]) is not None
        assert found.ci95 is not None
        assert (across[0], found.forgetting, across[1], found.forgetting) in drawn
        x = learning.accuracy
        assert (x, found.ci95[0], x, found.ci95[1]) in drawn


def test_a_picture_has_a_panel_for_each_probe(
    workplace: Path, tiny_base: Path, tmp_path: Path
) -> None:
    """Two probes are two panels, each with its own name and unit."""
    text = str(workplace / "prose.txt")
    found = sweep(
        workplace / "adapter",
        workplace / "validation.jsonl",
        alphas=(0.0, 1.0),
        probes=[LanguageModelLoss(file=text, name=name) for name in ("first", "second")],
        base=str(tiny_base),
        use_cpu=True,
    )

    plot_points(found, tmp_path / "two.svg", title="adapter")

    # Letters are drawn as outlines, and the text stands beside them in a comment.
    drawn = (tmp_path / "two.svg").read_text(encoding="utf-8")
    for name in ("first", "second"):
        assert f"<!-- forgetting on {name} (bits/byte, positive is worse) -->" in drawn
