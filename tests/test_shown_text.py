"""What others wrote is shown as text: on a terminal, in errors, in cards and in reports."""

from __future__ import annotations

import csv
import json
import logging
import pickle
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bases import write_base

from peftune.cli.console import print_facts, print_rows, say
from peftune.cli.main import _exit_code
from peftune.display import json_text
from peftune.errors import (
    ArtifactError,
    DataError,
    OutputFolderError,
    PeftuneError,
    RecipeError,
    printable,
    visible,
)

UNSEEN = {
    "a terminal escape": "\x1b[31m",
    "a NUL": "\0",
    "a backspace": "\b\b",
    "a bell": "\a",
    "a carriage return": "\r",
    "a line break": "\n",
    "a vertical tab": "\x0b",
    "a next line": "\x85",
    "a delete": "\x7f",
    "a one-byte escape": "\x9b31m",
    "a change of direction": "\u202e",
    "an isolate": "\u2066",
    "a mark from right to left": "\u200f",
    "a space without width": "\u200b",
    "a joiner": "\u200d",
    "a word joiner": "\u2060",
    "a byte-order mark": "\ufeff",
    "a tag": "\U000e0041",
    "a line separator": "\u2028",
    "a paragraph separator": "\u2029",
    "half a character": "\ud800",
}
QUIET = "\u200f\u200b\u200d\u2060\ufeff\U000e0041"
PLANTED = "\u202e\u2066\u200f\u200b\u200d\u2060\ufeff\U000e0041\u2028"
"""Characters that a recipe may hold, and that are not seen."""


def unseen(text: str) -> list[str]:
    """List the characters that no text for people may hold; line breaks and the page's own may stay."""
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return sorted(
        {f"U+{ord(one):04X}" for one in text if unicodedata.category(one) in hidden} - {"U+000A"}
    )


# One rule


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_not_seen_is_spelled_out(name: str) -> None:
    """In one line, and as Python writes it, so that it can be looked up."""
    shown = visible(f"a{UNSEEN[name]}b")

    assert shown.isprintable()
    assert shown == f"a{UNSEEN[name]}b".encode("unicode_escape").decode()
    assert printable(f"a{UNSEEN[name]}b") == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "naïve – “quoted”",
        "«\u202fBonjour\u202f»\u00a0!",
        "全角\u3000空白",
        "می\u200cخواهم",
        "क्\u200dष",
        "👩\u200d💻 and ❤\ufe0f\u200d🔥",
        "a picture newer than this Python: \U0001fae9",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    """Spaces, accents, the joiners of Persian and of emoji."""
    assert visible(text) == text


def test_a_joiner_hides_between_letters_that_do_not_join() -> None:
    """Nor beside another character that is not seen."""
    assert visible("po\u200ds") == "po\\u200ds"
    assert visible("é\u200d\u200bé") == "é\\u200d\\u200bé"


# Errors


@pytest.mark.parametrize(
    "error", [PeftuneError, DataError, RecipeError, ArtifactError, OutputFolderError]
)
def test_a_name_in_an_error_forges_no_line_and_moves_no_cursor(error: type[PeftuneError]) -> None:
    """Of any class; lines that peftune gives apart stand apart, in a copy as well."""
    found = error("no 'a\npeftune: all is well\x1b[2J'", "second\u202e")

    assert str(found) == "no 'a\\npeftune: all is well\\x1b[2J'\nsecond\\u202e"
    copy = pickle.loads(pickle.dumps(found))  # noqa: S301 - our own
    assert str(copy) == str(found)
    assert type(copy) is error


def test_an_error_of_many_thousand_characters_is_cut() -> None:
    """A name out of a file cannot fill a screen."""
    assert len(str(DataError("x" * 10_000))) == 2001


# The terminal


def test_tables_lines_and_json_show_what_is_not_seen(capsys: pytest.CaptureFixture[str]) -> None:
    """Headings, cells and titles; and nobody's brackets are taken for a style."""
    name = "[red]a\x1b[31m\u202eb"

    say(f"\nfirst {name}\nsecond")
    print_rows([{name: name, "other": "x"}], as_json=False)
    print_facts(name, [(name, name)])
    shown = capsys.readouterr().out

    assert unseen(shown) == []
    assert shown.count("[red]a\\x1b[31m\\u202eb") == 6
    assert shown.startswith("\nfirst ")


@pytest.mark.parametrize("name", UNSEEN)
def test_json_escapes_what_is_not_seen_and_reads_back(name: str) -> None:
    """A terminal shows it harmless, and a program reads the same text."""
    values = {UNSEEN[name]: f"é{UNSEEN[name]}", "tag": "\U000e0041"}

    text = json_text(values, encoding="utf-8")

    assert text.isprintable()
    assert json.loads(text) == values
    assert "é" in text or name == "half a character"


def test_a_line_of_the_log_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is logged forges no second one."""
    from peftune.progress import speak

    _forget_log()
    speak()
    logging.getLogger("peftune.experiments").warning("%s: failed", "a\npeftune: done\x1b[2J")
    _forget_log()

    assert capsys.readouterr().err == "peftune: a\\npeftune: done\\x1b[2J: failed\n"


def test_the_command_line_prints_through_one_function() -> None:
    """Another `typer.echo` or `print` would print a name as it is."""
    folder = Path(sys.modules["peftune.cli.console"].__file__ or "").parent
    others = [
        f"{path.name}: {line.strip()}"
        for path in sorted(folder.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\b(typer\.echo|typer\.secho|(?<!\.)print)\(", line)
    ]

    assert others == [
        "console.py: typer.echo(visible_lines(text))",
        'main.py: typer.echo(f"peftune {__version__}")',
        'signals.py: print(f"peftune: {line}", file=sys.stderr)  # noqa: T201 - the command line talks to people',
    ]


def _forget_log() -> None:
    """Let the log speak to the standard error of now."""
    logger = logging.getLogger("peftune")
    logger.handlers.clear()
    logger.propagate = True


# Names of a user's files, through every verb

Ended = tuple[int, str, str]
Call = Callable[..., Ended]


@pytest.fixture
def call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Call]:
    """Call the command line in this process, in an empty working folder, and let it say everything."""
    monkeypatch.chdir(tmp_path)

    def _call(*arguments: str) -> Ended:
        _forget_log()
        code = _exit_code(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield _call
    _forget_log()


ROWS = "data: {train_file: rows.csv}\nstrategy: {name: head-only}\noutput_dir: run\n"
HEAD = "version: 1\nname: own\n"


@pytest.mark.parametrize(
    ("recipe", "rows", "arguments", "shown"),
    [
        (HEAD + ROWS, "te\x1b[31mxt,label\na,b\nc,d\n", ("check", "own.yaml"), "te\\x1b[31mxt"),
        (HEAD + ROWS, "text,text,la\u202ebel\na,b,c\n", ("check", "own.yaml"), "text"),
        (HEAD + ROWS, "text,label\n", ("run", "own.yaml", "--strategy", "lo\x1b[31mra"), "lo\\x1b[31mra"),
        (HEAD + ROWS, "text,label\n", ("run", "own.yaml", "a\x1b[31m.b\n=1"), "a\\x1b[31m.b\\n"),
        (HEAD + ROWS, "text,label\n", ("run", "no\x1b[31m\n.yaml"), "no\\x1b[31m\\n.yaml"),
        (HEAD + ROWS, "text,label\n", ("r\x1b[31mun",), "r\\x1b[31mun"),
        (HEAD + ROWS, "text,label\n", ("predict", "r\x1b[31mun", "x"), "r\\x1b[31mun"),
        (HEAD + ROWS, "text,label\n", ("forget", "r\x1b[31mun"), "r\\x1b[31mun"),
        (HEAD + ROWS, "text,label\n", ("adapter", "inspect", "r\x1b[31m\nun"), "r\\x1b[31m\\nun"),
        (HEAD + ROWS, "text,label\n", ("report", "r\x1b[31m\nun"), "r\\x1b[31m\\nun"),
        (HEAD + '"ke\\x1b[31my\\n": 1\n' + ROWS, "text,label\n", ("validate", "own.yaml"), "ke\\x1b[31my\\n"),
        (HEAD + '"ke\\u202ey": 1\n' + ROWS, "text,label\n", ("validate", "own.yaml"), "ke\\u202ey"),
        (HEAD + ROWS.replace("head-only", '"he\\u202ead"'), "text,label\n", ("plan", "own.yaml"), "he\\u202ead"),
        (HEAD + ROWS.replace("rows.csv", '"ro\\u202ews.csv"'), "text,label\n", ("run", "own.yaml"), "ro\\u202ews.csv"),
        (
            HEAD + 'model: {name_or_path: "./ti\\u202eny"}\n' + ROWS,
            "text,label\n",
            ("plan", "own.yaml"),
            "ti\\u202eny",
        ),
    ],
)  # fmt: skip
def test_a_fault_shows_the_name_that_it_is_about(
    call: Call, *, recipe: str, rows: str, arguments: tuple[str, ...], shown: str
) -> None:
    """The code is that of a fault of usage, and every line is one of peftune's own."""
    Path("own.yaml").write_text(recipe, encoding="utf-8")
    Path("rows.csv").write_text(rows, encoding="utf-8")

    code, out, err = call(*arguments)

    assert code == 3, err
    assert unseen(out + err) == []
    assert shown in out + err
    assert all(line.startswith("peftune: ") for line in err.splitlines())


LABELS = ("<script>alert(1)</script>", "=1+1", "a|b $x$ `c`")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which every string that a user chooses holds what is not seen."""
    folder = tmp_path_factory.mktemp("planted")
    write_base(folder / f"=ba{PLANTED}se")
    rows = [
        json.dumps({
            f"te{QUIET}xt": f"words {PLANTED}\x1b[31m\x9b number {number} of {number % 3}",
            f"la{QUIET}bel": LABELS[number % 3],
            f"gr{QUIET}oup": f"{PLANTED}\x1b{number}",
        })
        for number in range(60)
    ]  # fmt: skip
    (folder / f"ro{PLANTED}ws.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / f"pro{PLANTED}be.txt").write_text(
        "The sea was calm.\n\nA cat sat.\n", encoding="utf-8"
    )
    recipe = {
        "version": 1,
        "name": "own",
        "model": {"name_or_path": f"./=ba{PLANTED}se", "max_length": 32},
        "data": {
            "train_file": f"ro{PLANTED}ws.jsonl",
            "text_column": f"te{QUIET}xt",
            "label_column": f"la{QUIET}bel",
            "group_column": f"gr{QUIET}oup",
            "test_split": 0.2,
        },
        "strategy": {"name": "head-only"},
        "training": {"max_steps": 2, "use_cpu": True},
        "forgetting": {
            "probes": [
                {"type": "lm-loss", "file": f"pro{PLANTED}be.txt", "name": f"=pro{PLANTED}be $x$"}
            ]
        },
        "output_dir": f"out{PLANTED}",
    }
    (folder / "own.yaml").write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture
def call_planted(planted: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call the command line in that folder, which stays as it is between the tests."""
    monkeypatch.chdir(planted)
    return call


RUN = f"out{PLANTED}"
ARTIFACT = f"{RUN}/adapter"


@pytest.mark.slow
def test_no_verb_prints_or_writes_what_is_not_seen(call_planted: Call, planted: Path) -> None:
    """Standard output, the log, the card and all three files of the report, of a run and a comparison."""
    file, base = f"ro{PLANTED}ws.jsonl", f"=ba{PLANTED}se"
    for code, *arguments in (
        (0, "validate", "own.yaml"),
        (0, "check", "own.yaml"),
        (0, "check", "own.yaml", "--json"),
        (0, "run", "own.yaml"),
        (0, "run", "own.yaml", "--json"),
        (0, "predict", RUN, "--base", base, f"te{PLANTED}\x1b\x9bxt"),
        (0, "evaluate", RUN, "--base", base, "--file", file),
        (0, "forget", RUN, "--base", base, "--probe", f"pro{PLANTED}be.txt"),
        (0, "adapter", "inspect", RUN, "--base", base),
        (0, "adapter", "verify", RUN, "--base", base),
        (0, "adapter", "diff", RUN, ARTIFACT),
        (0, "adapter", "merge", RUN, f"merged{PLANTED}", "--base", base),
        (0, "compare", "own.yaml", "--strategies", "head-only", "--output", "both"),
        (0, "report", "both"),
    ):  # fmt: skip
        ended, out, err = call_planted(*arguments)

        assert ended == code, (arguments, err)
        assert unseen(out + err) == [], arguments
    written = [
        path
        for path in planted.rglob("*")
        if path.name in {"README.md", "report.md", "report.html", "report.csv"}
        and "checkpoints" not in path.parts  # private, and written by Trainer
    ]
    assert {path.name for path in written} == {
        "README.md",
        "report.md",
        "report.html",
        "report.csv",
    }
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert unseen(text) == [], path.name
        assert "<script" not in text.partition("<body>")[2] or path.name == "README.md", path
    [first, *rows] = csv.reader(
        (planted / "both" / "report.csv").read_text(encoding="utf-8").splitlines()
    )
    assert {row[first.index("base_model")] for row in rows} == {visible(f"'=ba{PLANTED}se")}
    assert not [cell for row in (first, *rows) for cell in row if cell.startswith(("=", "+", "@"))]


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        (
            "single-label",
            {"label": ("po\u200bs", "neg")},
            "the label 'po\\u200bs' holds the character U+200B, which is not seen",
        ),
        (
            "multi-label",
            {"a\U000e0041": ("0", "1"), "b": ("1", "0")},
            "the label 'a\\U000e0041' holds the character U+E0041, which is not seen",
        ),
        (
            "regression",
            {"sco\u200fre": ("0.5", "1.5")},
            "the label 'sco\\u200fre' holds the character U+200F, which is not seen",
        ),
    ],
)
def test_a_label_that_no_artifact_may_have_stops_a_run_before_it_trains(
    call: Call, task: str, rows: dict[str, tuple[str, str]], message: str
) -> None:
    """The label of a row, and the column that names a label."""
    columns = list(rows)
    recipe = {
        "version": 1,
        "name": "own",
        "task": task,
        "data": {
            "train_file": "rows.jsonl",
            "label_column": columns if task == "multi-label" else columns[0],
        },
        "strategy": {"name": "head-only"},
        "output_dir": "run",
    }
    lines = [
        json.dumps({"text": f"text {row}", **{name: rows[name][row % 2] for name in columns}})
        for row in range(40)
    ]
    Path("own.yaml").write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
    Path("rows.jsonl").write_text("\n".join(lines), encoding="utf-8")

    code, out, err = call("run", "own.yaml")

    assert code == 3, err
    assert message in err
    assert unseen(out + err) == []
    assert not Path("run", "adapter").exists()
