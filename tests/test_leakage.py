"""Shared text: the share of 13-word sequences, counted by hand, and what is refused above 1%."""

from __future__ import annotations

from typing import Any

import pytest

from peftune.data.leakage import refuse_overlap, shared_share
from peftune.errors import LeakageError
from peftune.probes.linear_probe import LabelledText
from peftune.probes.minimal_pairs import MinimalPair
from peftune.probes.multiple_choice import Question


def words(first: int, last: int) -> str:
    """Write a text in which no word comes twice: `w1 w2 w3`, both ends included."""
    return " ".join(f"w{number}" for number in range(first, last + 1))


THIRTEEN = words(1, 13)
TWENTY = words(1, 20)
"""Of 8 sequences of 13 words: from w1, w2, … w8 on."""


@pytest.mark.parametrize(
    ("judged", "read", "share"),
    [
        pytest.param([TWENTY], [TWENTY], 1.0, id="the same text"),
        pytest.param([TWENTY], [words(101, 200)], 0.0, id="another text"),
        pytest.param([TWENTY], [words(3, 16)], 2 / 8, id="14 words of it"),
        pytest.param([TWENTY], [THIRTEEN], 1 / 8, id="13 words of it"),
        pytest.param([TWENTY], [words(1, 12)], 0.0, id="12 words of it, which are no sequence"),
        pytest.param([words(3, 16)], [TWENTY], 1.0, id="a part of what is read"),
        pytest.param([TWENTY], [f"so {words(3, 16)} so"], 2 / 8, id="quoted inside another text"),
        pytest.param([TWENTY, words(31, 50)], [TWENTY], 8 / 16, id="one of two documents"),
        pytest.param([TWENTY, TWENTY], [TWENTY, TWENTY], 1.0, id="twice, counted once"),
        pytest.param([TWENTY], [words(1, 10), words(11, 20)], 0.0, id="cut between documents"),
        pytest.param(
            [words(1, 12), words(13, 24)], [words(1, 24)], 0.0, id="never across a border"
        ),
        pytest.param(
            [TWENTY], [f"{words(1, 9)} x {words(11, 20)}"], 0.0, id="a word changed in each"
        ),
    ],
)
def test_the_share_is_of_sequences_of_thirteen_words(
    judged: list[str], read: list[str], share: float
) -> None:
    """Of n words in order there are n - 12 sequences; those that are in the other text count."""
    assert shared_share(judged, read) == share


@pytest.mark.parametrize(
    ("judged", "read", "share"),
    [
        pytest.param(["so good"], ["so good"], 1.0, id="the same"),
        pytest.param(["so good"], ["so good it is"], 0.0, id="the beginning of a longer one"),
        pytest.param(["so good", "so bad"], ["so bad", "so so"], 1 / 2, id="one of two"),
        pytest.param(["so good", TWENTY], ["so good"], 1 / 9, id="beside a long one"),
        pytest.param([words(1, 12)], [words(1, 12)], 1.0, id="twelve words"),
        pytest.param(["one"], ["one"], 1.0, id="one word"),
        pytest.param(["", " \n"], ["", "so good"], 0.0, id="blank"),
        pytest.param([], ["so good"], 0.0, id="nothing judged"),
        pytest.param(["so good"], [], 0.0, id="nothing read"),
    ],
)
def test_a_text_of_fewer_words_is_one_sequence(
    judged: list[str], read: list[str], share: float
) -> None:
    """It counts where it is a whole document on both sides, as rows of a task are."""
    assert shared_share(judged, read) == share


def test_case_and_white_space_do_not_matter() -> None:
    """The same words, written and broken otherwise, are the same text."""
    written = "\tW1 w2\n\nW3   w4\u00a0w5 " + words(6, 20).upper() + "\r\n"

    assert shared_share([TWENTY], [written]) == shared_share([written], [TWENTY]) == 1.0


@pytest.mark.parametrize(
    ("document", "read", "share"),
    [
        pytest.param(MinimalPair("so good", "so well"), "so good", 1 / 2, id="a short pair"),
        pytest.param(MinimalPair(TWENTY, words(21, 33)), TWENTY, 8 / 9, id="a long pair"),
        pytest.param(LabelledText("so good", "praise"), "so good", 1 / 2, id="a labelled text"),
        pytest.param(Question(TWENTY, ("yes", "no"), 0), TWENTY, 8 / 10, id="a question"),
        pytest.param(Question("", ("so good", "so well"), 0), "so well", 1 / 2, id="its options"),
        pytest.param(MinimalPair(words(1, 7), words(8, 14)), TWENTY, 0.0, id="never across parts"),
    ],
)
def test_each_part_of_a_document_is_a_text(
    document: tuple[Any, ...], read: str, share: float
) -> None:
    """A sentence, an option or a labelled text is known where it is read alone."""
    assert shared_share([document], [read]) == share
    assert shared_share([document], [document]) == 1.0


def test_one_sequence_in_a_hundred_may_be_shared_and_two_may_not() -> None:
    """The limit is 1%, that included; the message names both texts and what to do."""
    judged = [words(1, 112)]
    assert shared_share(judged, [words(50, 62)]) == 1 / 100

    refuse_overlap(judged, [words(50, 62)], judged_name="probe 'prose'", read_name="the rows")
    with pytest.raises(LeakageError) as refused:
        refuse_overlap(judged, [words(50, 63)], judged_name="probe 'prose'", read_name="the rows")

    assert str(refused.value) == (
        "2.0% of the 13-word sequences of probe 'prose' are in the rows too; at most 1% may be. "
        "What is measured must share nothing with what training reads or decides by: give one of them another text."
    )
    assert refused.value.exit_code == 2
