"""Reading: every source, every trap, and tables that are larger than memory."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

import peftune
from peftune.bundled import MODELS, bundled_folder
from peftune.data import arrow
from peftune.data.in_memory import kept_rows
from peftune.data.rows import Rows
from peftune.data.split_tables import SplitTable, read_split_tables
from peftune.data.tables import read_file, read_hub_dataset, read_saved_dataset
from peftune.data.task_data import Task, load_task
from peftune.data.text_column import TextColumns, texts_of
from peftune.data.tokens import tokenize_rows
from peftune.errors import DataError, OutputFolderError, PeftuneError, UsageError
from peftune.models.tokenizer import load_tokenizer
from peftune.recipe.schema import DataSection

RECORDS = [{"text": f"text {i}", "label": "ab"[i % 2], "id": f"{i:05}"} for i in range(2500)]


def written(path: Path, content: str | bytes) -> Path:
    """Write a file as it is, without a change to its line ends."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(read: Callable[[], object], folder: Path) -> str:
    """Return the message of the error that reading raises, without the folder."""
    with pytest.raises(PeftuneError) as caught:
        read()
    return str(caught.value).replace(f"{folder}/", "")


def texts(table: pa.Table, name: str = "text") -> list[str]:
    """Return a column as the texts that a model reads."""
    return list(texts_of(SplitTable("train", "'rows'", table, {}), TextColumns(name)))


def write_records(path: Path, records: list[dict[str, str]]) -> Path:
    """Write rows in the format that the file's name says."""
    if path.suffix in (".csv", ".tsv"):
        frame = pd.DataFrame(records)
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(records), path, row_group_size=1000)
    else:
        table = pa.Table.from_pylist(records)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return path


LINES = '{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n'
ARRAY = '[{"text": "x", "label": "a"},\n {"text": "y", "label": "b"}]\n'


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize(
    "content",
    [LINES, f"\n\n{LINES}", f"\ufeff{LINES}", ARRAY, f"\n [\n{ARRAY[1:]}", f"\ufeff{ARRAY}"],
    ids=["lines", "blank lines", "lines, mark", "array", "array below", "array, mark"],
)
def test_json_lines_and_an_array_are_read_under_either_name(
    name: str, content: str, tmp_path: Path
) -> None:
    """What a file begins with says which of the two it is, as `datasets` reads it."""
    table = read_file(written(tmp_path / name, content))

    assert table.to_pylist() == [{"text": "x", "label": "a"}, {"text": "y", "label": "b"}]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_one_row_of_json_is_a_row(name: str, tmp_path: Path) -> None:
    """Under either name, as long as its values are single ones."""
    table = read_file(written(tmp_path / name, LINES.splitlines()[0]))

    assert table.to_pylist() == [{"text": "x", "label": "a"}]


@pytest.mark.parametrize(("key", "mark"), [(";", ";"), ("|", "|"), ("\\t", "\t"), ("tab", "\t")])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "folder"])
def test_the_recipe_says_what_stands_between_two_cells(
    key: str, mark: str, name: str, tmp_path: Path
) -> None:
    """`data.delimiter` holds for every csv and tsv of the recipe, those of a folder too."""
    content = 'text,label\n"x, y",a\nz,b\n'.replace('"x, y"', '"x@ y"').replace(",", mark)
    (tmp_path / "folder").mkdir()
    path = tmp_path / ("folder/train.csv" if name == "folder" else name)
    written(path, content.replace("@", ","))
    place = {"dataset_name": str(path.parent)} if name == "folder" else {"train_file": str(path)}

    section = DataSection.model_validate({"delimiter": key, **place})
    table = read_split_tables(section)["train"].table

    assert table.to_pylist() == [{"text": "x, y", "label": "a"}, {"text": "z", "label": "b"}]


def test_a_header_of_one_column_may_hold_a_comma_in_quotes(tmp_path: Path) -> None:
    """Such a name is one cell however it is read."""
    table = read_file(written(tmp_path / "rows.csv", "text\nx;y\n"))

    assert table.to_pylist() == [{"text": "x;y"}]


# Comma- and tab-separated


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("\ufefftext,label\nx,a\n", ["x", "a"]),
        ("text,label\r\nx,a\r\n", ["x", "a"]),
        ("text,label\rx,a\r", ["x", "a"]),
        ("text,label\nx,a", ["x", "a"]),
        ("text,label\n\nx,a\n\n", ["x", "a"]),
        ('text,label\n"x",""\n', ["x", ""]),
        ("text,label\nNA,null\n", ["NA", "null"]),
        ("text,label\n,a\n", ["", "a"]),
        ("text,label\n 00123 , 4.50\n", [" 00123 ", " 4.50"]),
        ('text,label\n"a\r\nb\nc\rd",e\n', ["a\r\nb\nc\rd", "e"]),
        ('text,label\n"\n\n",e\n', ["\n\n", "e"]),
        ('text,label\n5" tall,"say ""x"""\n', ['5" tall', 'say "x"']),
        ("text,label\na\u2028b\x0bc\x85d,e\n", ["a\u2028b\x0bc\x85d", "e"]),
        ("text,label\nx\ufeffy,a\n", ["x\ufeffy", "a"]),
        ('"text","la""bel"\nx,a\n', ["x", "a"]),
        ("text,label\n\\N,'a'\n", ["\\N", "'a'"]),
    ],
)
def test_a_cell_is_what_stands_between_the_delimiters(
    content: str, cells: list[str], tmp_path: Path
) -> None:
    """Marks, line ends, quotes and blank lines are read as in RFC 4180, and nothing is guessed."""
    for path, text in (
        (tmp_path / "rows.csv", content),
        (tmp_path / "rows.tsv", content.replace(",", "\t")),
    ):
        [row] = read_file(written(path, text)).to_pylist()

        assert list(row.values()) == cells


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the csv module refuses zero bytes")
def test_a_zero_byte_in_a_cell_is_kept(tmp_path: Path) -> None:
    """It is a character like any other; only in the header it says that the file is not UTF-8."""
    path = written(tmp_path / "rows.csv", "text,label\nx\0y,a\n")

    assert texts(read_file(path)) == ["x\0y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'text,label\n"x\n\n",a\r\ny\n',
            "'rows.csv' line 5: 1 cells, but 2 columns (text, label): 'y'. Put a cell that holds a delimiter or a line end in quotes.",
        ),
        (
            "text,label\rx,a\ry,b,c\r",
            "'rows.csv' line 3: 3 cells, but 2 columns (text, label): 'y | b | c'. Put a cell that holds a delimiter or a line end in quotes.",
        ),
        (
            'text,label\nx,a\n"y,b\nz,c\n',
            "'rows.csv' line 3: a quote is opened in this row and never closed. Close it, or write a quote that is part of the text twice, in a cell in quotes.",
        ),
        (
            'text,label\nx,a\n"he said "no"",b\n',
            "'rows.csv' line 3: text follows a closing quote. Write a quote inside of a cell in quotes twice.",
        ),
        (
            "\n\ntext,label\n",
            "'rows.csv' is empty; its first line must name the columns.",
        ),
        (
            "text,label\nx,a\n".encode("utf-16"),
            "'rows.csv' is not UTF-8: byte 0xff at position 0, line 1. It looks like UTF-16. Save the file as UTF-8.",
        ),
        (
            "text,label\nx,a\n".encode("utf-16-le"),
            "'rows.csv' has zero bytes in its first line. It looks like UTF-16. Save the file as UTF-8.",
        ),
        (
            b"text,label\nx\x81\xe9,a\n",
            "'rows.csv' is not UTF-8: byte 0x81 at position 12, line 2. Save the file as UTF-8.",
        ),
    ],
)
def test_a_fault_of_a_csv_is_named_with_its_line(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    """The line is the one that an editor shows, where the row begins."""
    path = written(tmp_path / "rows.csv", content)

    if sys.version_info < (3, 11) and "zero bytes" in message:
        pytest.skip("the csv module refuses zero bytes by itself")
    assert fault(lambda: read_file(path), tmp_path) == message


def test_a_byte_that_is_no_utf8_is_found_far_into_a_file(tmp_path: Path) -> None:
    """Position and line count from the file's beginning, over characters of several bytes."""
    good = "text,label\n" + '"über\r\nmorgen",a\r\n' * 50_000
    path = written(tmp_path / "rows.csv", good.encode() + "Menü,b\n".encode("latin-1"))

    position = len(good.encode()) + len("Men")
    line = 1 + good.count("\n")
    assert fault(lambda: read_file(path), tmp_path) == (
        f"'rows.csv' is not UTF-8: byte 0xfc at position {position}, line {line}. "
        "It may be Windows-1252, which reads 'Menü' there. Save the file as UTF-8."
    )


def test_a_cell_beyond_the_limit_is_taken_for_an_open_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quote that is never closed cannot fill the memory with the rest of a large file."""
    monkeypatch.setattr("peftune.data.text_rows._LONGEST_CELL", 1000)
    path = written(tmp_path / "rows.csv", 'text,label\nx,a\n"y,b\n' + "z,c\n" * 1000)

    assert fault(lambda: read_file(path), tmp_path).startswith("'rows.csv' line 3: a cell has")


# JSON


@pytest.mark.parametrize(
    ("lines", "column"),
    [
        (['{"text": 7}', '{"text": "7"}'], ["7", "7"]),
        (['{"text": 4.50}', '{"text": 1E5}', '{"text": 1e999}'], ["4.50", "1E5", "1e999"]),
        (['{"text": 12345678901234567890}'], ["12345678901234567890"]),
        (['{"text": true}', '{"text": null}', '{"text": NaN}'], ["true", None, None]),
        (['{"other": 1}', '{"text": "x"}', "{}"], [None, "x", None]),
        (['{"text": "\\ud83d\\ude42"}'], ["🙂"]),
        (['{"text": "a\\u0000b"}'], ["a\0b"]),
        (['{"text": "a\u2028b"}'], ["a\u2028b"]),
        (['{"text": ["a", 1.50, {"b": null}]}'], ['["a", 1.5, {"b": null}]']),
        (['{"text": "NA"}', '{"text": ""}'], ["NA", ""]),
    ],
)
def test_a_value_of_json_is_its_characters(
    lines: list[str], column: list[str | None], tmp_path: Path
) -> None:
    """Types may differ from row to row, and fields may be missing: each value is read alone."""
    rows = written(tmp_path / "rows.jsonl", "\n".join(lines))
    array = written(tmp_path / "rows.json", f"[{','.join(lines)}]")

    for path in (rows, array):
        assert read_file(path).column("text").to_pylist() == column


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"text": "x"',
            "'rows.jsonl' line 1203 is not valid JSON: Expecting ',' delimiter: line 1 column 13 (char 12).",
        ),
        (
            '{"text": "x", "text": "y"}',
            "'rows.jsonl' line 1203 is not valid JSON: a row has the field 'text' twice.",
        ),
        (
            '{"text": "\\udc00"}',
            "'rows.jsonl': row 1201 holds half of a character, \\udc00, in 'text'. Mend the row, or remove it.",
        ),
    ],
)
def test_a_fault_of_json_lines_is_named_far_into_a_file(
    line: str, message: str, tmp_path: Path
) -> None:
    """Lines count from 1 with the blank ones; rows from 0 without them."""
    path = written(tmp_path / "rows.jsonl", '{"text": "x"}\n\n' + '{"text": "x"}\n' * 1200 + line)

    assert fault(lambda: read_file(path), tmp_path) == message


@pytest.mark.parametrize("empty", [1, 999, 1000, 2500])
def test_rows_without_a_field_are_rows(empty: int, tmp_path: Path) -> None:
    """They count, also where they fill whole parts of a file before the first field is seen."""
    path = written(tmp_path / "rows.jsonl", "{}\n" * empty + '{"text": "x"}\n{}\n')

    assert read_file(path).column("text").to_pylist() == [None] * empty + ["x", None]


# Text columns that hold no text


def test_a_list_or_an_object_is_no_text(tmp_path: Path) -> None:
    """The first such row is named, also where other rows hold text."""
    lines = ['{"text": "x"}'] * 1001 + ['{"text": {"a": 1}}', '{"text": ["y"]}']
    path = written(tmp_path / "rows.jsonl", "\n".join(lines))

    assert fault(lambda: texts(read_file(path)), tmp_path) == (
        "'rows': row 1001 holds a list or an object in 'text', which is not text. "
        "Mend the row. Set data.text_column and data.label_column."
    )


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([b"x"]), "binary"),
        (pa.array([b"x"], pa.large_binary()), "large_binary"),
        (pa.array([["x"]]), "list<item: string>"),
        (pa.array([{"a": 1}]), "struct<a: int64>"),
    ],
)
def test_a_column_of_bytes_or_lists_is_no_text(
    column: pa.Array, kind: str, tmp_path: Path
) -> None:
    """Nothing is trained on `b'...'`: the column and its type are named."""
    pyarrow.parquet.write_table(pa.table({"text": column}), tmp_path / "rows.parquet")

    assert fault(lambda: texts(read_file(tmp_path / "rows.parquet")), tmp_path) == (
        f"'rows': column 'text' holds {kind.replace('item', 'element')}, which is not text. "
        "Set data.text_column and data.label_column."
    )


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_text_of_a_typed_file_that_is_no_utf8_is_refused(kind: str, tmp_path: Path) -> None:
    """It is found when the file is read, not by a traceback in the middle of training."""
    path = write_records(tmp_path / f"rows.{kind}", [{"text": "umlaut-text"}])
    path.write_bytes(path.read_bytes().replace(b"umlaut-text", b"\xfcmlaut-text"))

    assert fault(lambda: read_file(path), tmp_path).startswith(
        f"'rows.{kind}' is not a readable {'Arrow' if kind == 'arrow' else kind} file: "
    )


def test_a_column_of_bytes_is_no_label_either(tmp_path: Path) -> None:
    """No class is called `b'a'`."""
    table = pa.table({"text": ["x", "y"], "label": [b"a", b"b"]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")

    section = DataSection(train_file=str(tmp_path / "rows.parquet"))
    assert fault(lambda: load_task(section), tmp_path) == (
        "'rows.parquet': column 'label' holds binary, which is not text. "
        "Set data.text_column and data.label_column."
    )


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["NA", None, ""]), ["NA", "", ""]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", "", "a"]),
        (pa.array([7, None], pa.int16()), ["7", ""]),
        (pa.array([4.5, math.nan]), ["4.5", ""]),
        (pa.array([True, False]), ["True", "False"]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_typed_column_is_its_text(column: pa.Array, expected: list[str], tmp_path: Path) -> None:
    """Numbers and truth values are written out; null and NaN are missing."""
    table = pa.table({"text": column})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pa.ipc.new_file(str(tmp_path / "rows.arrow"), table.schema) as writer:
        writer.write_table(table)

    assert texts(read_file(tmp_path / "rows.parquet")) == expected
    assert texts(read_file(tmp_path / "rows.arrow")) == expected


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_of_lists_holds_labels(kind: str, tmp_path: Path) -> None:
    """What is not a text can be the labels of multi-label."""
    records = [{"text": f"t{i}", "label": [["a"], ["a", "b"], []][i % 3]} for i in range(6)]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(records), path)

    task = load_task(
        DataSection(train_file=str(path), validation_file=str(path)), task_name="multi-label"
    )

    assert task.labels == ("a", "b")
    assert task.train.labels[:3] == ((1.0, 0.0), (1.0, 1.0), (0.0, 0.0))


# Larger than memory


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let every table go to a file, and give the folder in which it lies."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(arrow, "MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "arrow"])
def test_a_table_in_a_file_has_the_same_rows_in_the_same_order(
    kind: str, tmp_path: Path, little_memory: Path
) -> None:
    """Where rows lie changes nothing; the file has no name any more when it is read."""
    path = write_records(tmp_path / f"rows.{kind}", RECORDS)
    before = pa.total_allocated_bytes()

    table = read_file(path)

    assert table.to_pylist() == RECORDS
    assert table.nbytes > 50_000
    assert pa.total_allocated_bytes() - before < 1000
    assert list(little_memory.iterdir()) == []


@pytest.mark.usefixtures("little_memory")
def test_a_field_may_begin_late_in_a_large_file(tmp_path: Path) -> None:
    """A column that the first thousands of rows lack is missing in them."""
    late = [*({"text": f"t{i}"} for i in range(2000)), {"note": "n", "text": "t"}, {"text": "u"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in late))

    table = read_file(path)

    assert table.column("text").to_pylist() == [record["text"] for record in late]
    assert table.column("note").to_pylist() == [record.get("note") for record in late]


@pytest.mark.usefixtures("little_memory")
def test_a_temporary_folder_without_room_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the folder and the variable that chooses another."""
    monkeypatch.setattr(arrow, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    path = write_records(tmp_path / "rows.csv", RECORDS)

    assert fault(lambda: read_file(path), tmp_path) == (
        "The rows are larger than 0 MiB and cannot be written to the temporary folder 'gone': "
        "No such file or directory. Name a folder with room in the environment variable TMPDIR."
    )


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ((1, 0), datasets.Value("int64")),
        ((0.5, -2.0), datasets.Value("float64")),
        (((1.0, 0.0), (0.0, 1.0)), datasets.List(datasets.Value("float64"))),
    ],
    ids=["id", "number", "several"],
)
def test_tokens_carry_labels_of_any_kind(
    labels: tuple[Any, ...], kind: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows of tokens lie in a file, and are those of few; the label keeps its type."""
    rows = Rows(
        tuple(map(str, range(2500))),
        tuple(f"text {i}" for i in range(2500)),
        tuple(labels[i % 2] for i in range(2500)),
    )
    tokenizer = load_tokenizer(bundled_folder("bundled:tiny-gpt2", among=MODELS))
    small = tokenize_rows(rows, tokenizer, max_length=8).dataset
    monkeypatch.setattr(arrow, "MOST_IN_MEMORY", 1000)

    before = pa.total_allocated_bytes()
    large = tokenize_rows(rows, tokenizer, max_length=8).dataset

    assert pa.total_allocated_bytes() - before < 1000
    assert large.features["labels"] == kind
    assert str(large[:]) == str(small[:])
    assert str(large[7]["labels"]) == str(labels[1]).replace("(", "[").replace(")", "]")


MEASURE = """
import sys, threading, time
from pathlib import Path

from peftune.bundled import MODELS, bundled_folder
from peftune.data import arrow
from peftune.data.task_data import load_task
from peftune.data.tokens import tokenize_rows
from peftune.models.tokenizer import load_tokenizer
from peftune.recipe.schema import DataSection

arrow.MOST_IN_MEMORY = 2**20
tokenizer = load_tokenizer(bundled_folder("bundled:tiny-gpt2", among=MODELS))
most, going = 0, True

def memory():
    # Not the pages of mapped files, which the system takes back when it needs them.
    status = Path("/proc/self/status").read_text().split("RssAnon:")[1]
    return int(status.split()[0]) * 1024

def watch():
    global most
    while going:
        most = max(most, memory())
        time.sleep(0.002)

def read(path):
    task = load_task(DataSection(train_file=path, validation_file=sys.argv[1]))
    tokenize_rows(task.train, tokenizer, max_length=10**6)

read(sys.argv[1])  # what tokenizer and Arrow keep for themselves
before = memory()
watcher = threading.Thread(target=watch)
watcher.start()
read(sys.argv[2])
going = False
watcher.join()
print(most - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_file_takes_no_memory_for_its_texts_or_tokens(tmp_path: Path) -> None:
    """Reading and tokenizing 7.5 MB grow the process by some 7 MB, as they do for half of that.

    With a list of all token ids it was 30 MB, four times the file.
    """
    row = "the of and to in is was for on as with by at from that it " * 16
    for name, count in (("small.csv", 1000), ("large.csv", 8000)):
        lines = (f"{i} {row},{'ab'[i % 2]}\n" for i in range(count))
        (tmp_path / name).write_text("text,label\n" + "".join(lines))
    files = [str(tmp_path / name) for name in ("small.csv", "large.csv")]

    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, *files], check=True, capture_output=True, text=True
    )

    assert int(measured.stdout) < 14_000_000


# Data sets of the datasets library


def test_a_folder_of_plain_files_keeps_its_text(tmp_path: Path) -> None:
    """`load_dataset` alone would make None of `NA`, and 123 of `00123`; nothing is cached either."""
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "rows"
    shutil.rmtree(cache, ignore_errors=True)
    folder = tmp_path / "rows"
    folder.mkdir()
    written(folder / "train.csv", "text,label\nNA,a\n00123,b\n")
    written(folder / "test.csv", "text,label\nnull,a\n4.50,b\n")

    tables = read_split_tables(DataSection(dataset_name=str(folder)))

    assert {split: texts(table.table) for split, table in tables.items()} == {
        "train": ["NA", "00123"],
        "test": ["null", "4.50"],
    }
    assert not cache.exists()


def test_a_fault_in_a_folder_of_plain_files_is_named_as_in_a_file(tmp_path: Path) -> None:
    """The file and the line are told, not that the folder holds no data set."""
    folder = tmp_path / "rows"
    folder.mkdir()
    written(folder / "train.csv", "text,label\nx\n")

    assert fault(lambda: read_saved_dataset(folder), tmp_path).startswith(
        "'rows/train.csv' line 2: 1 cells, but 2 columns"
    )


def test_a_saved_data_set_is_mapped_into_memory(tmp_path: Path) -> None:
    """Nothing of its columns is copied when it is read."""
    rows = datasets.Dataset.from_dict({"text": ["x" * 1000] * 5000, "label": ["a", "b"] * 2500})
    rows.save_to_disk(str(tmp_path / "rows"))
    before = pa.total_allocated_bytes()

    tables = read_split_tables(DataSection(dataset_name=str(tmp_path / "rows")))

    assert tables["train"].table.nbytes > 5_000_000
    assert pa.total_allocated_bytes() - before < 100_000


def test_the_cache_of_a_folder_is_no_data_set_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a connection, `datasets` serves rows of any folder of that name that it once read."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "reviews"
    folder.mkdir()
    written(folder / "train.csv", "text,label\nx,a\n")
    datasets.load_dataset(str(folder))
    [served] = {
        Path(file["filename"]).parent
        for file in datasets.load_dataset("reviews")["train"].cache_files
    }

    def read() -> object:
        return read_hub_dataset("reviews", None, None, instead="data.train_file")

    assert fault(read, tmp_path) == (
        "The data set 'reviews' could not be fetched from the hub, and the rows in the cache of "
        f"that name are not from there ('{served}'). Give the hub id with its owner, as in "
        "'owner/reviews', the folder itself, or use data.train_file."
    ).replace(f"{tmp_path}/", "")


def test_the_cache_of_another_commit_is_not_the_revision_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a connection, `datasets` serves the latest commit that it knows, whatever is asked."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "reviews").mkdir()
    written(tmp_path / "reviews" / "train.csv", "text,label\nx,a\n")
    datasets.load_dataset(str(tmp_path / "reviews"))
    [cached] = (tmp_path / "cache" / "reviews" / "default" / "0.0.0").glob("*[0-9a-f]")
    known, asked = "a" * 40, "b" * 40
    home = tmp_path / "cache" / "owner___reviews" / "default" / "0.0.0"
    home.mkdir(parents=True)
    shutil.copytree(cached, home / known)

    def read(revision: str) -> object:
        return read_hub_dataset("owner/reviews", None, revision, instead="data.train_file")

    assert fault(lambda: read(asked), tmp_path) == (
        f"The data set 'owner/reviews' could not be fetched at revision '{asked}'; the cache holds "
        f"'{known}'. Check the connection, or set data.revision to that."
    )
    assert read(known)


# From Python


def _kept(data: Any, folder: Path, **keys: Any) -> Task:  # noqa: ANN401 - of any kind
    section = DataSection(**{"train_file": "elsewhere.csv", "validation_split": 0.5, **keys})
    with kept_rows(data, section, folder) as kept:
        return load_task(kept)


FRAME = pd.DataFrame({"text": [f"t{i}" for i in range(8)], "label": ["a", "b"] * 4})
ALLOWED = "Allowed: a pandas DataFrame, a datasets Dataset or DatasetDict, an Arrow table, or a dict with one of them for each split."


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        datasets.Dataset.from_pandas(FRAME),
        {"train": FRAME},
        {"train": datasets.Dataset.from_pandas(FRAME), "validation": FRAME, "test": FRAME},
        datasets.DatasetDict({"train": datasets.Dataset.from_pandas(FRAME)}),
    ],
    ids=["frame", "data set", "dict of frame", "dict of both", "dict of data sets"],
)
def test_rows_from_python_are_kept_in_the_run_folder(data: Any, tmp_path: Path) -> None:  # noqa: ANN401 - of any kind
    """The recipe's own source gives way; what is written reads the same, and may be written again."""
    first, again = (_kept(data, tmp_path / "run") for _ in range(2))

    assert first.fingerprint() == again.fingerprint()
    assert {*first.train.texts, *first.validation.texts} == set(FRAME["text"])
    assert (tmp_path / "run" / "data" / "dataset_dict.json").is_file()
    assert ("test" in dict(data)) == (first.test is not None)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["NA", None, float("nan"), "00123"], ["NA", "", "", "00123"]),
        (pd.Series(["x", pd.NA, "", "y"], dtype="string"), ["x", "", "", "y"]),
        (pd.Series(["x", 7, 4.5, None], dtype=object), ["x", "7", "4.5", ""]),
        (pd.Series(["x", "y", None, "x"], dtype="category"), ["x", "y", "", "x"]),
        (pd.Series([1, 2, 3, 4]), ["1", "2", "3", "4"]),
        (pd.Series([1, None, 3, 4], dtype="Int64"), ["1", "", "3", "4"]),
        (pd.Series([True, None, "x", "y"], dtype=object), ["True", "", "x", "y"]),
    ],
)
def test_a_frames_text_stays_text(column: Any, expected: list[str], tmp_path: Path) -> None:  # noqa: ANN401 - what a frame takes
    """Missing values are missing, whatever pandas writes for them; mixed columns are text."""
    frame = pd.DataFrame({"text": column, "label": ["a", "b"] * 2})
    frame.index = pd.Index([5, 5, 6, 6], name="number")

    with kept_rows(frame, DataSection(train_file="x"), tmp_path / "run") as section:
        table = read_split_tables(section)["train"].table

    assert texts(table) == expected
    assert table.column_names == ["text", "label"]


IDS = datasets.Dataset.from_dict({"text": list(FRAME["text"]), "label": [1, 0] * 4})


@pytest.mark.parametrize(
    "data",
    [
        IDS.with_transform(lambda batch: {"seen": batch["text"]}),
        IDS.with_format("torch"),
        IDS.with_format("numpy", columns=["label"]),
        IDS.with_format("pandas"),
        IDS.select(range(7, -1, -1)).with_format("torch"),
        datasets.DatasetDict({"train": IDS}).with_format("torch"),
        {"train": IDS.with_transform(lambda batch: {"seen": batch["text"]})},
        IDS.data.table,
    ],
    ids=["transform", "torch", "columns", "pandas", "selected", "dict", "dict of one", "arrow"],
)
def test_rows_are_read_as_they_are_stored(data: Any, tmp_path: Path) -> None:  # noqa: ANN401 - of any kind
    """What a data set gives its user, tensors or what a transform makes, is no matter."""
    first, again = (_kept(data, tmp_path / "run") for _ in range(2))

    rows = {**by_text(first.train), **by_text(first.validation)}
    assert rows == {text: 1 - index % 2 for index, text in enumerate(FRAME["text"])}
    assert first.labels == ("0", "1")
    assert first.fingerprint() == again.fingerprint()


def by_text(rows: Rows) -> dict[str, Any]:
    """Return the label of every text."""
    return dict(zip(rows.texts, rows.labels, strict=True))


def test_a_transform_that_is_not_applied_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run would otherwise read other texts than its user, without a word."""
    _kept(IDS.with_transform(lambda batch: {"text": ["x"] * len(batch["text"])}), tmp_path / "run")

    told = "\n".join(caplog.messages)
    assert told == (
        "data has a transform, which is not applied: its columns are read as they are stored. "
        "Use map() for what a run is to read."
    )


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (pd.Categorical(["b", "a"] * 4), ("a", "b")),
        (pd.Categorical([1, 0] * 4), ("0", "1")),
        (pd.array([1, 0] * 4, dtype="Int64"), ("0", "1")),
        ([1.0, 0.0] * 4, ("0", "1")),
        ([True, False] * 4, ("False", "True")),
        (pd.array([True, False] * 4, dtype="boolean"), ("False", "True")),
        (pd.Series([torch.tensor(1), torch.tensor(0)] * 4, dtype=object), ("0", "1")),
        (pd.Series([np.int64(1), np.float32(0)] * 4, dtype=object), ("0", "1")),
        (pd.Series([1, "0", 1.0, 0, "1.0", "0.0", np.int8(1), 0], dtype=object), ("0", "1")),
    ],
    ids=["words", "numbers", "Int64", "float", "bool", "boolean", "tensors", "numpy", "mixed"],
)
def test_a_label_of_a_frame_is_the_same_of_every_type(
    column: Any,  # noqa: ANN401 - what a frame takes
    names: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """Rows alternate between the second label and the first, whatever pandas holds them in."""
    task = _kept(FRAME.assign(label=column), tmp_path / "run")

    assert task.labels == names
    rows = {**by_text(task.train), **by_text(task.validation)}
    assert rows == {text: 1 - index % 2 for index, text in enumerate(FRAME["text"])}


@pytest.mark.slow
def test_a_run_on_a_frame_is_repeated_by_its_recipe(tiny_base: Path, tmp_path: Path) -> None:
    """The run folder holds the rows and names them, so that it can be moved with them."""
    frame = pd.DataFrame(
        {
            "text": [f"{'good' if i % 2 else 'bad'} {i}" for i in range(40)],
            "label": ["a", "b"] * 20,
        }
    )
    keys = [f"model.name_or_path={tiny_base}", "training.max_steps=1", "training.use_cpu=true"]
    keys += ["forgetting.probes=[]"]

    def run(data: pd.DataFrame, output: Path) -> peftune.Run:
        return peftune.run(
            "quickstart", overrides=keys, strategy="head-only", data=data, output=output
        )

    first = run(frame, tmp_path / "first")
    same = run(frame, tmp_path / "first")
    shutil.move(tmp_path / "first", tmp_path / "moved")
    again = peftune.run(tmp_path / "moved" / "recipe.yaml", output=tmp_path / "again")

    assert same.environment == first.environment  # it was read, not run again
    assert again.run.order_sha256 == first.run.order_sha256
    assert again.learning.loss == first.learning.loss
    with pytest.raises(OutputFolderError) as caught:
        run(frame.iloc[::-1], tmp_path / "moved")
    assert str(caught.value) == (
        f"'{tmp_path / 'moved'}' holds a run of other rows, or something else. "
        "Choose another folder with output, or empty it."
    )


def test_rows_that_cannot_be_used_leave_nothing_behind(tmp_path: Path) -> None:
    """After the rows are mended the same folder can be used."""
    blank = FRAME.assign(text=["", *FRAME["text"][1:]])

    with pytest.raises(DataError):
        _kept(blank, tmp_path / "run")

    assert list((tmp_path / "run").iterdir()) == []
    assert _kept(FRAME, tmp_path / "run")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            [{"text": "x"}],
            UsageError,
            f"data is of type list. {ALLOWED} Make a Dataset of rows with datasets.Dataset.from_list, of columns with datasets.Dataset.from_dict.",
        ),
        (
            {"text": ["x"], "label": ["a"]},
            UsageError,
            f"data['text'] is of type list. {ALLOWED} Make a Dataset of rows with datasets.Dataset.from_list, of columns with datasets.Dataset.from_dict.",
        ),
        (
            datasets.Dataset.from_pandas(FRAME).to_iterable_dataset(),
            UsageError,
            f"data is of type IterableDataset. {ALLOWED} Rows that stream have no length to be split by; make a Dataset of them with datasets.Dataset.from_list(list(rows)).",
        ),
        (
            {"train": FRAME.iterrows()},
            UsageError,
            f"data['train'] is of type generator. {ALLOWED}",
        ),
        (
            pd.DataFrame([["x", "y"]], columns=["text", "text"]),
            DataError,
            "data has 2 columns named 'text'. Rename all but one.",
        ),
        (
            pd.DataFrame({"text": pd.Series(["x", "\ud83d"], dtype=object)}),
            DataError,
            "data, column 'text': a text holds half of a character, which UTF-8 cannot hold ('utf-8' codec can't encode character '\\ud83d' in position 0: surrogates not allowed). Mend the row, or remove it.",
        ),
    ],
)
def test_what_is_no_table_is_refused(
    data: Any,  # noqa: ANN401 - of any kind
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    """The message says what was given and what can be."""
    with pytest.raises(error) as caught:
        _kept(data, tmp_path / "run")
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()
