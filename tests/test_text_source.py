"""Which part of a text is read: articles out of WikiText's lines, whole words, an even choice."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from peftune.configuration import TextSource
from peftune.data.documents import load_documents

BREAD = [
    " = Bread = ",
    "",
    " Bread is flour , water and salt . ",
    "",
    " = = Baking = = ",
    "",
    " An oven = heat = is needed . ",
    " = = = Crust = = = ",
    " = 2 = loaves . ",
]
RIVERS = [" = River Ouse ( Yorkshire ) = ", " It floods . "]
ONE_LETTER = [" = E = ", " A letter . "]
LINES = [*BREAD, "", *RIVERS, *ONE_LETTER]


def write_lines(folder: Path, kind: str, lines: list[str]) -> TextSource:
    """Write WikiText in one of the forms in which it comes, and name it."""
    if kind == "txt":
        (folder / "wiki.txt").write_text("\n".join(lines), encoding="utf-8")
        return TextSource(file=str(folder / "wiki.txt"), articles=True)
    if kind == "windows":
        (folder / "wiki.txt").write_bytes("\r\n".join(lines).encode())
        return TextSource(file=str(folder / "wiki.txt"), articles=True)
    rows = [line and f"{line}\n" for line in lines]  # as in the data set on the hub
    if kind == "jsonl":
        text = "".join(json.dumps({"text": row}) + "\n" for row in rows)
        (folder / "wiki.jsonl").write_text(text, encoding="utf-8")
        return TextSource(file=str(folder / "wiki.jsonl"), articles=True)
    saved = datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": rows})})
    saved.save_to_disk(str(folder / "wiki"))
    return TextSource(dataset_name=str(folder / "wiki"), articles=True)


@pytest.mark.parametrize("kind", ["txt", "windows", "jsonl", "data set"])
def test_an_article_goes_from_its_title_to_the_next_one(kind: str, tmp_path: Path) -> None:
    """One equals sign a side is a title; two or more are sections, and other lines are text."""
    source = write_lines(tmp_path, kind, LINES)

    assert load_documents(source) == (
        "\n".join([*BREAD, ""]),
        "\n".join(RIVERS),
        "\n".join(ONE_LETTER),
    )


def test_what_stands_before_the_first_title_is_read_too(tmp_path: Path) -> None:
    """No line is lost; blank ones alone are not a document."""
    headless = write_lines(tmp_path, "txt", [" and so it ended . ", *RIVERS])
    assert load_documents(headless) == (" and so it ended . ", "\n".join(RIVERS))

    blank = write_lines(tmp_path, "txt", ["", " ", *RIVERS])
    assert load_documents(blank) == ("\n".join(RIVERS),)


def test_without_articles_a_row_is_a_document(tmp_path: Path) -> None:
    """Lines are joined only where it is asked for."""
    source = write_lines(tmp_path, "jsonl", RIVERS).model_copy(update={"articles": False})

    assert load_documents(source) == tuple(RIVERS)


@pytest.mark.parametrize(
    ("text", "most", "read"),
    [
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two"),
        ("one two three", 8, "one two"),
        ("one two three", 7, "one two"),
        ("one two three", 6, "one"),
        ("one two three", 3, "one"),
        ("one two three", 2, "on"),
        ("one  two", 5, "one"),
        ("one\n\ntwo three", 9, "one\n\ntwo"),
        ("žluťoučký kůň pěl", 14, "žluťoučký kůň"),
        ("unbroken", 5, "unbro"),
    ],
)
def test_a_document_is_cut_at_a_whole_word(
    text: str, most: int, read: str, tmp_path: Path
) -> None:
    """The longest beginning of at most so many characters that ends with a word, or in the first."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")

    source = TextSource(file=str(tmp_path / "a.jsonl"), max_characters=most)

    assert load_documents(source) == (read,)


def test_each_document_is_cut_after_articles_are_joined(tmp_path: Path) -> None:
    """The limit is of articles, not of their lines."""
    source = write_lines(tmp_path, "txt", LINES).model_copy(update={"max_characters": 24})

    assert load_documents(source) == (
        " = Bread = \n\n Bread is",
        " = River Ouse (",
        "\n".join(ONE_LETTER),
    )


@pytest.mark.parametrize(
    ("most", "chosen"),
    [
        (1, [0]),
        (2, [0, 5]),
        (3, [0, 3, 6]),
        (4, [0, 2, 5, 7]),
        (7, [0, 1, 2, 4, 5, 7, 8]),
        (10, list(range(10))),
        (11, list(range(10))),
        (None, list(range(10))),
    ],
)
def test_documents_are_chosen_evenly(most: int | None, chosen: list[int], tmp_path: Path) -> None:
    """The k-th of m out of n is number floor(k n / m): in order, none twice, all parts of the text."""
    (tmp_path / "a.txt").write_text("\n\n".join(f"d{number}" for number in range(10)))

    source = TextSource(file=str(tmp_path / "a.txt"), max_documents=most)

    assert load_documents(source) == tuple(f"d{number}" for number in chosen)


def test_blank_documents_and_lines_are_not_counted_among_the_chosen(tmp_path: Path) -> None:
    """The choice is among articles that hold text."""
    source = write_lines(tmp_path, "jsonl", ["", *LINES]).model_copy(update={"max_documents": 2})

    assert [text.split("\n")[0] for text in load_documents(source)] == [BREAD[0], RIVERS[0]]
