"""Rows and documents: every character kept, every fault named, every split fair."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from peftune.data.documents import documents_sha256, load_documents
from peftune.data.labels import encode_labels, label_names
from peftune.data.rows import Rows
from peftune.data.split_tables import SplitTable
from peftune.data.splits import hold_out, limit
from peftune.data.tables import read_file
from peftune.data.task_data import Task, load_task, read_labeled
from peftune.data.text_column import read_texts
from peftune.errors import DataError
from peftune.probes import LanguageModelLoss
from peftune.recipe.schema import DataSection
from peftune.recipe.task_type import SINGLE_LABEL

AWKWARD = (
    "NA",
    "null",
    "00123",
    "4.5",
    "True",
    "nan",
    'she said "no",\nthen left',
    " padded ",
    "日本 🙂",
)
"""Texts that a reader with opinions would turn into something else."""


def _write_csv(path: Path, texts: Sequence[str], labels: Sequence[str], mark: str = ",") -> Path:
    quoted = ['"{}"'.format(text.replace('"', '""')) for text in texts]
    rows = [f"{text}{mark}{label}\n" for text, label in zip(quoted, labels, strict=True)]
    path.write_text(f"text{mark}label\n" + "".join(rows), encoding="utf-8", newline="")
    return path


def _write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def _records(texts: Sequence[str], labels: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]


def _dataset(texts: Sequence[str], labels: Sequence[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": list(texts), "label": list(labels)})


def _task(source: Path, **keys: Any) -> Task:  # noqa: ANN401 - keys of the section
    """Load a file, or a folder of a data set, with half of its rows held out for validation."""
    place = {"dataset_name": str(source)} if source.is_dir() else {"train_file": str(source)}
    return load_task(DataSection(**{"validation_split": 0.5, **place, **keys}))


def _texts_of(task: Task) -> set[str]:
    return {*task.train.texts, *task.validation.texts}


def _fault(source: Path, **keys: Any) -> str:  # noqa: ANN401 - keys of the section
    with pytest.raises(DataError) as caught:
        _task(source, **keys)
    return str(caught.value).replace(f"{source.parent}/", "")


# Reading


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_text_keeps_every_character_in_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    """No reader guesses at types: what stands in a cell is the text."""
    path = tmp_path / f"rows.{kind}"
    labels = ["a"] * len(AWKWARD)
    if kind in ("csv", "tsv"):
        _write_csv(path, AWKWARD, labels, "," if kind == "csv" else "\t")
    elif kind == "jsonl":
        _write_jsonl(path, _records(AWKWARD, labels))
    elif kind == "json":
        path.write_text(json.dumps(_records(AWKWARD, labels)))
    else:
        pyarrow.parquet.write_table(pa.table({"text": AWKWARD, "label": labels}), path)

    assert read_file(path).column("text").to_pylist() == list(AWKWARD)


@pytest.mark.parametrize("kept", ["save_to_disk", "save_to_disk_dict", "load_dataset"])
def test_a_folder_of_the_datasets_library_is_read_like_a_file(kept: str, tmp_path: Path) -> None:
    """A folder of `save_to_disk`, with or without splits, and one of plain files hold rows."""
    folder = tmp_path / "rows"
    texts, labels = [f"text {i}" for i in range(8)], ["a", "b"] * 4
    if kept == "save_to_disk":
        _dataset(texts, labels).save_to_disk(str(folder))
    elif kept == "save_to_disk_dict":
        datasets.DatasetDict({"train": _dataset(texts, labels)}).save_to_disk(str(folder))
    else:
        folder.mkdir()
        _write_csv(folder / "train.csv", texts, labels)

    task = _task(folder)

    assert _texts_of(task) == set(texts)
    assert task.labels == ("a", "b")


def test_a_data_sets_own_splits_are_used_and_can_be_renamed(tmp_path: Path) -> None:
    """`data.splits` says which split serves as what; a missing one is an error with the choice."""
    folder = tmp_path / "rows"
    parts = {
        name: _dataset([f"{name} {i}" for i in range(4)], ["a", "b"] * 2)
        for name in ("train", "dev", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(str(folder))

    task = _task(folder, splits={"validation": "dev"})

    assert set(task.validation.texts) == {f"dev {i}" for i in range(4)}
    assert task.evaluation[0] == "test"
    assert task.evaluation[1].texts == tuple(f"test {i}" for i in range(4))
    assert _fault(folder, splits={"validation": "devv"}) == (
        f"'{folder}' has no split 'devv'. Did you mean 'dev'? Available: dev, test, train. "
        "Set data.splits."
    ).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_byte_order_mark_and_line_endings_are_no_part_of_the_rows(
    ending: str, tmp_path: Path
) -> None:
    """A file saved by a spreadsheet on Windows reads like any other."""
    path = tmp_path / "rows.csv"
    path.write_bytes(("\ufefftext,label" + ending + "x,a" + ending + "y,b").encode())

    assert read_file(path).to_pylist() == [
        {"text": "x", "label": "a"},
        {"text": "y", "label": "b"},
    ]


def test_a_byte_order_mark_is_no_part_of_a_json_file_either(tmp_path: Path) -> None:
    """Arrow leaves the mark of a csv out by itself; in JSON it would be a syntax error."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"text": "x", "label": "a"}\r\n'.encode())

    assert read_file(path).to_pylist() == [{"text": "x", "label": "a"}]


def test_a_cell_may_be_larger_than_a_block_of_the_csv_reader(tmp_path: Path) -> None:
    """Arrow reads blocks of one MiB; a longer text with line breaks is still one cell."""
    text = "line\n" * 500_000
    path = _write_csv(tmp_path / "rows.csv", [text, "short"], ["a", "b"])

    assert read_file(path).column("text").to_pylist() == [text, "short"]


def test_an_id_column_names_the_rows_and_stays_text(tmp_path: Path) -> None:
    """An id such as 007 is no number; without the column, rows are numbered from 0."""
    path = tmp_path / "rows.csv"
    path.write_text("id,text,label\n007,x,a\n1e3,y,b\n")

    rows = _task(path, validation_file=str(path)).train
    plain = _task(path, validation_file=str(path), text_column="id").train

    assert rows.ids == ("007", "1e3")
    assert plain.texts == ("007", "1e3")
    assert _task(
        _write_csv(tmp_path / "no-id.csv", ["x", "y"], ["a", "b"]),
        validation_file=str(path),
    ).train.ids == ("0", "1")


# Labels


def test_labels_are_ids_or_names(tmp_path: Path) -> None:
    """With names given, a column of ids and a column of names say the same."""
    texts = ["x", "y", "z"]
    by_name = _write_csv(tmp_path / "names.csv", texts, ["good", "bad", "good"])
    by_id = _write_csv(tmp_path / "ids.csv", texts, ["1", "0", "1"])
    labels = ("bad", "good")

    for path in (by_name, by_id):
        assert _task(path, validation_file=str(path), labels=labels).train.labels == (1, 0, 1)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "a", "c"], ("a", "b", "c")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10.0", "2.5", "2.0"], ("2.0", "2.5", "10.0")),
        ([2, 10, 1], ("1", "2", "10")),
        ([1.0, 0.0], ("0", "1")),
        (["1", "1.0", "0.0"], ("0", "1")),
        (["2.0", "2", "2.5"], ("2", "2.5")),
        (["True", "true", "FALSE"], ("false", "true")),
        (["True", "False"], ("False", "True")),
        ([True, "true", "False"], ("false", "true")),
        (["1.0", "01", "1"], ("01", "1")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["--1", "0"], ("--1", "0")),
    ],
)
def test_labels_are_sorted_and_numbers_by_value(values: list[Any], names: tuple[str, ...]) -> None:
    """Without `data.labels`, ids follow the sorted names; 10 comes after 9.

    One number, or one truth value, in several spellings is one label; any other keeps its own.
    """
    assert label_names(values, source="rows") == names


def test_the_order_of_the_recipes_labels_holds(tmp_path: Path) -> None:
    """`data.labels` decides the ids, whatever the alphabet says."""
    path = _write_csv(tmp_path / "rows.csv", ["x", "y"], ["a", "z"])

    task = _task(path, validation_file=str(path), labels=("z", "a"))

    assert (task.labels, task.train.labels) == (("z", "a"), (1, 0))


def test_a_class_label_feature_brings_its_names(tmp_path: Path) -> None:
    """A data set that knows its labels' names and order needs no `data.labels`."""
    feature = datasets.ClassLabel(names=["sad", "happy"])
    rows = _dataset([f"t{i}" for i in range(6)], [1, 0] * 3).cast_column("label", feature)
    rows.save_to_disk(str(tmp_path / "rows"))

    task = _task(tmp_path / "rows")

    assert task.labels == ("sad", "happy")
    assert Counter(task.train.labels) + Counter(task.validation.labels) == {0: 3, 1: 3}
    by_text = dict(zip(task.train.texts, task.train.labels, strict=True))
    assert all(label == (int(text[1]) + 1) % 2 for text, label in by_text.items())


@pytest.mark.parametrize(
    ("class_names", "labels", "label_of_the_first"),
    [
        (("1", "2", "3"), None, "1"),
        (("bad", "good"), ("good", "bad"), "bad"),
        (("neg", "pos"), ("sad", "happy"), "sad"),
    ],
    ids=["numbers", "other order", "other names"],
)
def test_the_ids_of_a_class_label_feature_are_ids_of_its_own_names(
    class_names: tuple[str, ...],
    labels: tuple[str, ...] | None,
    label_of_the_first: str,
    tmp_path: Path,
) -> None:
    """Id 0 is the feature's first name, also where names are numbers or the recipe reorders them.

    Names that the feature does not know rename its own, id by id.
    """
    feature = datasets.ClassLabel(names=list(class_names))
    ids = list(range(len(class_names)))
    rows = _dataset([f"t{i}" for i in ids], ids).cast_column("label", feature)
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "rows"))

    task = _task(tmp_path / "rows", labels=labels)

    assert task.labels[task.train.labels[0]] == label_of_the_first


def _id_of(cell: object, names: tuple[str, ...]) -> int:
    """Read the label of a table with one row."""
    table = SplitTable("train", "rows", pa.table({"label": [cell]}), {})
    [found] = encode_labels(SINGLE_LABEL, table, "label", names)([0])
    return int(found)


def test_a_number_is_never_read_as_an_id_where_labels_are_numbers() -> None:
    """With the labels 1 to 3 a row labeled 0 is an error, and not the label of id 0."""
    with pytest.raises(DataError) as caught:
        _id_of("0", ("1", "2", "3"))
    assert str(caught.value) == (
        "rows: unknown label '0' in row 0. Available: 1, 2, 3. Mend data.labels or the rows."
    )


@pytest.mark.parametrize(
    ("cell", "names", "label"),
    [
        *((cell, ("bad", "good"), "good") for cell in ("1", "1.0", 1, 1.0, "1.")),
        *((cell, ("0", "1"), "1") for cell in ("1", "1.0", 1, 1.0, True, "true", "True")),
        *((cell, ("0.0", "1.0"), "1.0") for cell in ("1", "1.0", 1, 1.0, True)),
        *((cell, ("False", "True"), "True") for cell in (True, "true", "True", "TRUE", "1", 1)),
        *((cell, ("true", "false"), "true") for cell in (True, "true", "True")),
        *((cell, ("2", "1"), "1") for cell in ("1", "1.0", 1, 1.0)),
        *((cell, ("1.0", "1"), cell) for cell in ("1.0", "1")),
        ("-0.0", ("0", "1"), "0"),
        (-1.0, ("-1", "1"), "-1"),
    ],
)
def test_a_label_is_read_the_same_from_every_kind_of_file(
    cell: object, names: tuple[str, ...], label: str
) -> None:
    """A csv writes `1.0` or `True` where parquet has a number or a truth value, and JSON `true`."""
    assert names[_id_of(cell, names)] == label


@pytest.mark.parametrize(
    ("cell", "names"),
    [(True, ("bad", "good")), ("1", ("true", "false")), ("7.0", ("2", "3")), ("07", ("2", "3"))],
)
def test_a_label_that_could_be_meant_otherwise_is_refused(
    cell: object, names: tuple[str, ...]
) -> None:
    """A truth value names neither of two words, and 1 may be true or the second name."""
    with pytest.raises(DataError) as caught:
        _id_of(cell, names)
    assert str(caught.value) == (
        f"rows: unknown label '{cell}' in row 0. Available: {', '.join(sorted(names))}. "
        "Mend data.labels or the rows."
    )


def test_a_label_may_be_spelled_otherwise_in_another_kind_of_file(tmp_path: Path) -> None:
    """Training rows of a csv, validation of JSON and the test of parquet have the same two labels."""
    train = _write_csv(tmp_path / "train.csv", list("uvwxyz"), ["True", "False"] * 3)
    validation = _write_jsonl(tmp_path / "v.jsonl", _records(["m", "n"], [True, False]))
    _dataset(["o", "p"], [True, False]).to_parquet(str(tmp_path / "test.parquet"))

    task = _task(train, validation_file=str(validation), test_file=str(tmp_path / "test.parquet"))

    assert task.labels == ("False", "True")
    assert task.test is not None
    assert (task.validation.labels, task.test.labels) == ((1, 0), (1, 0))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "list.parquet"])
def test_a_file_that_datasets_wrote_brings_the_names_of_its_ids(kind: str, tmp_path: Path) -> None:
    """The names and their order stand in the file; a file is read as the folder that it lies in."""
    many = kind.startswith("list")
    feature = datasets.ClassLabel(names=["sad", "happy", "calm"])
    labels: list[Any] = [[2, 0], [1], [0], []] if many else [2, 0, 1, 1]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(feature) if many else feature}
    )
    rows = datasets.Dataset.from_dict({"text": list("wxyz"), "label": labels}, features=features)
    path = tmp_path / f"rows.{kind}"
    if kind == "arrow":
        rows.save_to_disk(str(tmp_path / "saved"))
        next((tmp_path / "saved").glob("*.arrow")).rename(path)
    else:
        rows.to_parquet(str(path))

    section = DataSection(train_file=str(path), validation_file=str(path))
    task = load_task(section, "multi-label" if many else "single-label")

    assert task.labels == ("sad", "happy", "calm")
    assert task.train.labels == (
        ((1, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)) if many else (2, 0, 1, 1)
    )
    if not many:
        turned = read_labeled(path, names=("calm", "happy", "sad"))
        assert turned.labels == (0, 2, 1, 1)


def test_the_features_of_a_file_that_nobody_can_read_are_refused(tmp_path: Path) -> None:
    """Ids whose names are lost would be taken for other labels."""
    table = pa.table({"text": ["x", "y"], "label": [0, 1]})
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({"huggingface": '{"info": []}'}), path
    )

    assert _fault(path) == (
        "'rows.parquet': the features that the file's metadata name under 'huggingface' cannot be "
        "read (TypeError: list indices must be integers or slices, not str). Write the file again "
        "with datasets, or without these metadata."
    )


# Faults


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    """A misspelt column is answered with the columns of the file."""
    path = _write_csv(tmp_path / "rows.csv", ["x", "y"], ["a", "b"])

    assert _fault(path, text_column="txt") == (
        "'rows.csv' has no column 'txt'. Did you mean 'text'? Available: label, text. "
        "Set data.text_column and data.label_column."
    )


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Nobody can say which of two columns of one name is meant."""
    path = tmp_path / "rows.csv"
    path.write_text("text,text,label\nx,y,a\nx,y,b\n")

    assert _fault(path) == "'rows.csv' has 2 columns named 'text'. Rename all but one."


def test_rows_without_a_label_are_named(tmp_path: Path) -> None:
    """The first five row numbers are given, and how many there are."""
    path = _write_csv(tmp_path / "one.csv", ["x", "y", "z"], ["a", "", "b"])
    many = _write_csv(tmp_path / "many.csv", list("abcdefgh"), ["a", *[""] * 6, "b"])

    assert _fault(path, labels=("a", "b")) == (
        "'one.csv': 1 row without a label, row 1. Add the labels or remove the rows."
    )
    assert _fault(many, labels=("a", "b")) == (
        "'many.csv': 6 rows without a label, rows 1, 2, 3, 4, 5, …. "
        "Add the labels or remove the rows."
    )


def test_an_empty_label_is_no_class_of_its_own(tmp_path: Path) -> None:
    """Without `data.labels` too, a cell without a label is a missing label."""
    path = _write_csv(tmp_path / "rows.csv", ["x", "y", "z"], ["a", "", "b"])

    assert _fault(path) == (
        "'rows.csv': 1 row without a label, row 1. Add the labels or remove the rows."
    )


def test_an_unknown_label_is_named_with_its_rows_and_the_nearest(tmp_path: Path) -> None:
    """A misspelt label is answered with the labels there are."""
    path = _write_csv(tmp_path / "rows.csv", list("wxyz"), ["good", "goood", "bad", "goood"])

    assert _fault(path, labels=("bad", "good")) == (
        "'rows.csv': unknown label 'goood' in rows 1, 3. Did you mean 'good'? "
        "Available: bad, good. Mend data.labels or the rows."
    )
    assert _fault(path, labels=("bad", "fine")) == (
        "'rows.csv': unknown label 'good' in row 0 (2 unknown labels in all). "
        "Available: bad, fine. Mend data.labels or the rows."
    )


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    """A classifier that sees one label learns nothing, and would score 1.00."""
    path = _write_csv(tmp_path / "rows.csv", ["x", "y"], ["a", "a"])

    assert _fault(path) == (
        "'rows.csv' has one label only: 'a'. A classifier needs at least two; "
        "check data.label_column."
    )
    assert _fault(path, labels=("a", "b")) == (
        "'rows.csv': all 2 rows have the label 'a'. At least two classes must occur; "
        "check the file and data.label_column."
    )


def test_rows_of_one_class_are_no_judges(tmp_path: Path) -> None:
    """A model that always gives that class would score 1.00 on them: test, or validation without one."""
    train = _write_csv(tmp_path / "train.csv", list("uvwxyz"), ["a", "b"] * 3)
    test = _write_csv(tmp_path / "test.csv", ["t1", "t2", "t3"], ["b"] * 3)
    fault = (
        "'test.csv': all 3 rows have the label 'b'. At least two classes must occur; "
        "check the file and data.label_column."
    )

    assert _fault(train, test_file=str(test)) == fault
    assert _fault(train, validation_file=str(test)) == fault
    judged = _write_csv(tmp_path / "judged.csv", ["j1", "j2"], ["a", "b"])
    assert _task(train, test_file=str(judged), validation_file=str(test)).evaluation[0] == "test"


def test_rows_without_text_are_an_error_or_dropped_or_kept(tmp_path: Path) -> None:
    """Blank texts are never passed over in silence."""
    path = _write_csv(tmp_path / "rows.csv", ["x", "", " ", "y"], ["a", "a", "b", "b"])
    other = str(path)

    assert _fault(path) == (
        "'rows.csv': 2 rows with an empty or missing text, rows 1, 2. "
        "Mend the rows, or set data.empty_text: drop (leave them out) or keep."
    )
    dropped = _task(path, validation_file=other, empty_text="drop")
    kept = _task(path, validation_file=other, empty_text="keep")
    assert (dropped.train.texts, dropped.train.ids) == (("x", "y"), ("0", "3"))
    assert dropped.dropped == {"train": 2, "validation": 2}
    assert (kept.train.texts, kept.dropped) == (
        ("x", "", " ", "y"),
        {"train": 0, "validation": 0},
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "empty.csv",
            b"",
            "'empty.csv' is empty; its first line must name the columns.",
        ),
        (
            "header.csv",
            b"text,label\n",
            "'header.csv' has no labels. A classifier needs at least two; check data.label_column.",
        ),
        ("empty.jsonl", b"\n", "'empty.jsonl' holds no rows."),
        (
            "ragged.csv",
            b"text,label\nx,a\ny,b,c\n",
            "'ragged.csv' line 3: 3 cells, but 2 columns (text, label): 'y | b | c'. Put a cell that holds a delimiter or a line end in quotes.",
        ),
        (
            "latin.csv",
            "text,label\nx,a\ncafé,b\n".encode("latin-1"),
            "'latin.csv' is not UTF-8: byte 0xe9 at position 18, line 3. It may be Windows-1252, which reads 'café' there. Save the file as UTF-8.",
        ),
        (
            "bad.jsonl",
            b'{"text": "x", "label": "a"}\n{"text": \n',
            "'bad.jsonl' line 2 is not valid JSON: Expecting value: line 1 column 10 (char 9).",
        ),
        (
            "list.jsonl",
            b"[1]\n",
            '\'list.jsonl\' line 1 is not a JSON object; each line must be one row such as {"text": "...", "label": "..."}.',
        ),
        (
            "half.jsonl",
            b'{"text": "x", "label": "a"}\n{"text": "\\ud83d", "label": "b"}\n',
            "'half.jsonl': row 1 holds half of a character, \\ud83d, in 'text'. Mend the row, or remove it.",
        ),
        ("object.json", b"{}", "'object.json' must hold a JSON array of objects, one a row."),
        (
            "columns.json",
            b'{"text": ["x", "y"], "label": ["a", "b"]}',
            "'columns.json' must hold a JSON array of objects, one a row; it holds one object, with 'text', 'label'. Write its rows as [{...}, {...}], or one a line.",
        ),
        (
            "semicolon.csv",
            b"text;label\nx, y;a\n",
            "'semicolon.csv' has one column with a comma between two cells, and several with a semicolon: 'text;label'. Set data.delimiter: \";\" in the recipe, or save the file with a comma.",
        ),
        (
            "tab.csv",
            b"text\tlabel\nx, y\ta\n",
            "'tab.csv' has one column with a comma between two cells, and several with a tab: 'text\\tlabel'. Set data.delimiter: \"\\t\" in the recipe, or save the file with a comma.",
        ),
        (
            "comma.tsv",
            b"text,label\nx,a\n",
            "'comma.tsv' has one column with a tab between two cells, and several with a comma: 'text,label'. Set data.delimiter: \",\" in the recipe, or save the file with a tab.",
        ),
        (
            "torn.parquet",
            b"PAR1",
            "'torn.parquet' is not a readable parquet file: Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes).",
        ),
        (
            "rows.xlsx",
            b"PK",
            "'rows.xlsx' is of no known kind. Allowed: .csv, .tsv, .json, .jsonl, .parquet, .arrow.",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    """The message names the file, the place in it and what to do."""
    (tmp_path / name).write_bytes(content)

    assert _fault(tmp_path / name) == message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A wrong path is not a traceback."""
    assert _fault(tmp_path / "rows.csv") == (
        "There is no file 'rows.csv'. A relative path in a recipe starts from the recipe's folder."
    )


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    """The message says what a folder must hold."""
    folder = tmp_path / "nothing"
    folder.mkdir()

    message = _fault(folder)

    assert message.startswith("'nothing' holds no readable data set (")
    assert message.endswith(
        "Name a folder written by save_to_disk, or one with train.csv, test.csv and so on."
    )


# Splits


def _rows(counts: Sequence[int]) -> Rows:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    # Rows of one class stand together, as in many published files: a first-n sample would show.
    return Rows(
        tuple(str(i) for i in range(len(labels))),
        tuple(f"text {i}" for i in range(len(labels))),
        tuple(labels),
    )


@pytest.mark.parametrize("counts", [(50, 30, 20), (97, 31, 5), (40, 40)])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_hold_out_has_the_share_of_every_class_within_a_row(
    counts: tuple[int, ...], share: float
) -> None:
    """Both parts look like the whole; together they are the whole; no row is in both."""
    rows = _rows(counts)

    stay, held = hold_out(rows, share, seed=0, key="validation_split")

    for label, count in enumerate(counts):
        assert abs(held.labels.count(label) - share * count) < 1
    assert sorted([*stay.ids, *held.ids], key=int) == list(rows.ids)
    assert list(stay.ids) == sorted(stay.ids, key=int)


def test_a_hold_out_depends_on_the_seed_alone() -> None:
    """The same seed holds out the same rows, another seed others."""
    rows = _rows((50, 50))
    first, again, other = (
        hold_out(rows, 0.2, seed=seed, key="validation_split")[1] for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other


def test_a_class_of_one_row_cannot_be_held_out() -> None:
    """The message names the key, the sizes and the cause."""
    with pytest.raises(DataError) as caught:
        hold_out(_rows((9, 1)), 0.5, seed=0, key="test_split")
    assert str(caught.value) == (
        "data.test_split: 0.5 of 10 rows cannot be held out so that every class is in both parts "
        "(the smallest class has 1). Add rows to it, or change data.test_split."
    )


@pytest.mark.parametrize("counts", [(50, 30, 20), (90, 9, 1), (33, 33, 34)])
@pytest.mark.parametrize("maximum", [3, 10, 50, 98, 99, 100, 500])
def test_a_limit_keeps_the_share_of_every_class(counts: tuple[int, ...], maximum: int) -> None:
    """Any number of rows can be asked for; no class gets lost, and none is off by over a row."""
    rows = _rows(counts)

    kept = limit(rows, maximum, seed=0, key="max_train_examples")

    assert len(kept) == min(maximum, len(rows))
    assert set(kept.labels) == set(rows.labels)
    assert list(kept.ids) == sorted(kept.ids, key=int)
    if maximum >= 50:
        for label, count in enumerate(counts):
            assert abs(kept.labels.count(label) - len(kept) * count / len(rows)) <= 1


def test_a_limit_is_seeded_and_never_the_first_rows() -> None:
    """The same seed keeps the same rows, another seed others."""
    rows = _rows((50, 50))
    first, again, other = (limit(rows, 10, seed=seed, key="k").ids for seed in (0, 0, 1))

    assert first == again
    assert first != other
    assert first != (*rows.ids[:5], *rows.ids[50:55])


def test_a_limit_below_the_number_of_classes_is_refused() -> None:
    """Two rows cannot show three classes."""
    with pytest.raises(DataError) as caught:
        limit(_rows((5, 5, 5)), 2, seed=0, key="max_train_examples")
    assert str(caught.value) == (
        "data.max_train_examples: 2 rows cannot hold all 3 classes. Ask for at least 3."
    )


def test_validation_and_test_are_held_out_of_train_where_there_are_none(tmp_path: Path) -> None:
    """Three disjoint parts whose union is the file; limits apply to each part alone."""
    path = _write_csv(tmp_path / "rows.csv", [f"t{i}" for i in range(100)], ["a", "b"] * 50)

    task = _task(path, test_split=0.2, validation_split=0.25)
    limited = _task(
        path,
        test_split=0.2,
        validation_split=0.25,
        max_train_examples=30,
        max_validation_examples=10,
        max_test_examples=4,
    )

    assert task.test is not None
    assert limited.test is not None
    parts = [set(part.texts) for part in (task.train, task.validation, task.test)]
    assert [len(part) for part in parts] == [60, 20, 20]
    assert len(set.union(*parts)) == 100
    assert [len(p) for p in (limited.train, limited.validation, limited.test)] == [30, 10, 4]
    assert set(limited.test.texts) <= parts[2]


def test_without_test_rows_validation_is_judged_and_said_so(tmp_path: Path) -> None:
    """The split of the final score is named after what it is."""
    path = _write_csv(tmp_path / "rows.csv", [f"t{i}" for i in range(20)], ["a", "b"] * 10)

    name, rows = _task(path).evaluation

    assert (name, len(rows)) == ("validation", 10)


def test_the_bundled_posts_are_balanced_and_disjoint() -> None:
    """800, 150 and 250 rows; no post is in two splits."""
    task = load_task(DataSection(dataset_name="bundled:posts"))

    assert task.test is not None
    splits = (task.train, task.validation, task.test)
    assert [len(rows) for rows in splits] == [800, 150, 250]
    assert task.labels == ("negative", "neutral", "positive")
    assert len({text for rows in splits for text in rows.texts}) == 1200


# Fingerprints


def test_the_fingerprint_changes_with_any_character_label_or_order() -> None:
    """Two tasks with one fingerprint hold the same rows in the same order."""
    rows = _rows((3, 3))
    texts, labels = list(rows.texts), list(rows.labels)

    def task(texts: Sequence[str], labels: Sequence[int], names: tuple[str, ...]) -> Task:
        train = Rows(rows.ids, tuple(texts), tuple(labels))
        return Task(names, train, rows, None, {})

    changed = [
        task([*texts[:-1], texts[-1] + " "], labels, ("a", "b")),
        task(texts, [*labels[:-1], 0], ("a", "b")),
        task([texts[1], texts[0], *texts[2:]], labels, ("a", "b")),
        task(texts, labels, ("b", "a")),
        Task(("a", "b"), rows, rows, rows, {}),
        Task(("a", "b"), rows, rows.take(range(5)), None, {}),
    ]
    same = task(texts, labels, ("a", "b")).fingerprint()

    assert same == Task(("a", "b"), rows, rows, None, {}).fingerprint()
    assert len({same, *(other.fingerprint() for other in changed)}) == len(changed) + 1


def test_documents_are_hashed_with_their_borders() -> None:
    """The same characters cut otherwise are other documents."""
    assert documents_sha256(["ab", "c"]) != documents_sha256(["a", "bc"])
    assert documents_sha256(["a", "b"]) != documents_sha256(["b", "a"])


# Documents


@pytest.mark.parametrize(
    ("name", "content", "documents"),
    [
        (
            "a.jsonl",
            '{"text": "one"}\n{"text": ""}\n{"text": "two\\n\\nthree"}\n',
            ("one", "two\n\nthree"),
        ),
        ("a.txt", "one\n\nstill one\ftwo\n", ("one\n\nstill one", "two")),
        ("a.txt", "one\nline two\n\n \t\n\nthree\n", ("one\nline two", "three")),
        ("a.txt", "one\r\n\r\ntwo\r\n", ("one", "two")),
    ],
    ids=["jsonl", "form feeds", "blank lines", "windows"],
)
def test_documents_are_rows_or_parts_between_form_feeds_or_blank_lines(
    name: str, content: str, documents: tuple[str, ...], tmp_path: Path
) -> None:
    """One document a line of jsonl; in a txt file form feeds win over blank lines."""
    (tmp_path / name).write_text(content, newline="")

    assert load_documents(LanguageModelLoss(file=str(tmp_path / name))) == documents


def test_a_limit_of_documents_spreads_over_the_whole_text(tmp_path: Path) -> None:
    """At most so many, none twice, from the beginning, the middle and the end alike."""
    path = _write_jsonl(tmp_path / "a.jsonl", [{"text": str(i)} for i in range(100)])

    few = load_documents(LanguageModelLoss(file=str(path), max_documents=7))
    all_of_them = load_documents(LanguageModelLoss(file=str(path), max_documents=1000))

    gaps = [int(b) - int(a) for a, b in itertools.pairwise(few)]
    assert len(few) == 7
    assert set(gaps) <= {14, 15}
    assert int(few[0]) < 15
    assert int(few[-1]) >= 85
    assert len(all_of_them) == 100


def test_a_probe_without_documents_is_refused(tmp_path: Path) -> None:
    """Nothing to measure is an error, not a zero."""
    (tmp_path / "a.txt").write_text("\n \n")

    with pytest.raises(DataError) as caught:
        load_documents(LanguageModelLoss(file=str(tmp_path / "a.txt"), name="prose"))
    assert str(caught.value) == ("'a.txt' holds no documents. Name a text with at least one.")


def test_a_probe_reads_a_saved_data_set(tmp_path: Path) -> None:
    """A folder of `save_to_disk` serves as text, by split."""
    saved = datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": ["one", "two"]})})
    saved.save_to_disk(str(tmp_path / "prose"))

    assert load_documents(LanguageModelLoss(dataset_name=str(tmp_path / "prose"))) == (
        "one",
        "two",
    )


# Texts without labels


def test_a_line_of_a_text_file_is_one_text_whatever_it_holds(tmp_path: Path) -> None:
    """Only line feeds end a line: the characters that Unicode calls line separators do not."""
    path = tmp_path / "texts.txt"
    path.write_bytes("one\u2028still one\r\n\x0btwo\x85\n\nfour".encode())

    assert read_texts(path) == ["one\u2028still one", "\x0btwo\x85", "", "four"]
    path.write_bytes(b"")
    assert read_texts(path) == []
