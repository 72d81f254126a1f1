"""Cleaning of texts and rows, done only where the recipe asks for it, every step counted."""

from __future__ import annotations

import html
import html.parser
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from peftune.data.labels import LabelTexts, label_key, read_labels
from peftune.data.rows import Strings
from peftune.data.similarity import sequence_keys, shares_a_sequence
from peftune.data.split_tables import SplitTable
from peftune.data.text_column import texts_of
from peftune.data.text_hashes import HANDLE, LINK, NO_TEXT, are_among, text_keys
from peftune.recipe.data import CleaningStep, DataSection, SplitName, TextStep
from peftune.recipe.task_type import TaskType

_TAGS = "a|abbr|article|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|s|script|section|small|span|strong|style|sub|sup|svg|table|tbody|td|th|thead|title|tr|u|ul|video"
_TAG = rf"</?(?:{_TAGS})(?:\s+[^<>]*=[^<>]*)?\s*/?>|<!--|<!doctype\b"
_ENTITY = r"&(?:[a-z]{2,8}\d?|#\d{1,7}|#x[0-9a-f]{1,6});"

HTML = re.compile(f"{_TAG}|{_ENTITY}", re.IGNORECASE)
"""A tag of HTML, a comment, or an entity; not a `<` between numbers or names, nor `<3`."""

_MARKUP, _ENTITIES = re.compile(_TAG, re.IGNORECASE), re.compile(_ENTITY, re.IGNORECASE)
_SPACES = re.compile(" {2,}")
_BLOCKS = frozenset({"address", "blockquote", "br", "dd", "div", "dl", "dt", "h1", "h2", "h3"}) | {
    "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul",
}  # fmt: skip
_UNREAD = frozenset({"script", "style"})


def without_html(text: str) -> str:
    """Remove tags and comments and spell out entities; a block's end is a space.

    A `<` that begins no tag, as in `x < 3` or `<3`, stays.
    """
    if not _MARKUP.search(text):
        return _ENTITIES.sub(lambda entity: html.unescape(entity[0]), text)
    reader = _TextOfHtml()
    reader.feed(text)
    reader.close()
    return _SPACES.sub(" ", "".join(reader.parts)).strip()


class _TextOfHtml(html.parser.HTMLParser):
    """Collect the text between tags."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - of the library
        self._unread += tag in _UNREAD
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._unread -= tag in _UNREAD and self._unread > 0
        if tag in _BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self.parts.append(data)


UNSEEN = re.compile("[\u00ad\u200b\u2060-\u2064\ufeff\ufff9-\ufffb]")
"""Soft hyphen, zero-width space, word joiner, byte order mark: they part equal words unseen.

The zero-width joiners stay: they hold emoji together and spell words in Persian and Hindi.
"""

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


LEAVES_OUT: tuple[CleaningStep, ...] = ("drop-duplicates", "drop-leaked")
"""Steps that leave rows out of train; every other one changes texts."""


@dataclass(frozen=True, slots=True)
class CleaningCount:
    """What one step of cleaning did to one split.

    Args:
        step: the step, as in `data.clean`.
        split: the split.
        changed: rows whose text it changed.
        dropped: rows that it left out.
    """

    step: str
    split: str
    changed: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Cleaning:
    """The texts of every split after cleaning; rows keep their numbers.

    Args:
        texts: one a row of the source, by split, those of dropped rows included.
        dropped: numbers of the rows of train that are left out.
        counts: what each step did to each split, in the order of the steps.
    """

    texts: Mapping[SplitName, Strings]
    dropped: frozenset[int] = frozenset()
    counts: Sequence[CleaningCount] = ()


def clean_tables(
    tables: Mapping[SplitName, SplitTable],
    section: DataSection,
    task: TaskType,
    *,
    general: Sequence[Any] = (),
) -> Cleaning:
    """Clean the texts of tables as their recipe asks for it; most ask for nothing.

    Args:
        tables: the splits as they were read.
        section: which columns, and which steps.
        task: the task type; equal texts with unlike labels are distinct in classification alone.
        general: documents of probes, which `drop-leaked` keeps out of train.

    Raises:
        DataError: a column is missing.
    """
    texts = {split: texts_of(table, section) for split, table in tables.items()}
    labels = None
    if "drop-duplicates" in section.clean and task.has_classes:
        labels = read_labels(task, tables["train"], section.label_column, section.labels).texts
    return clean(texts, section.clean, labels=labels, general=general)


def clean(
    texts: Mapping[SplitName, Strings],
    steps: Sequence[CleaningStep],
    *,
    labels: Sequence[LabelTexts] | None = None,
    general: Sequence[Any] = (),
) -> Cleaning:
    """Clean texts in the order of the steps; the source stays as it is.

    Texts are changed in every split, so that train and test are written alike. Rows leave train
    alone: what is held out stays whole.

    Args:
        texts: the text of every row, by split.
        steps: what to do, in this order.
        labels: the labels of each row of train. Of equal texts the first stays where all have
            the same, and none where they differ: nobody knows which is right. Without labels the
            first stays.
        general: documents of probes; a row of train that shares 13 words in a row with them, or
            all of its words, is leaked too.
    """
    cleaning = Cleaning(dict(texts))
    for step in steps:
        if step in _REWRITERS:
            cleaning = _rewritten(cleaning, step)
        else:
            leaving = (
                _repeated(cleaning, labels)
                if step == "drop-duplicates"
                else _leaked(cleaning, general)
            )
            count = CleaningCount(step, "train", 0, len(leaving))
            dropped = cleaning.dropped | leaving
            cleaning = Cleaning(cleaning.texts, dropped, (*cleaning.counts, count))
    return cleaning


def with_normal_unicode(text: str) -> str:
    """Compose characters (NFC), and remove those that nobody sees: zero-width, control, direction.

    Not NFKC: it would write `½` and `①` as other signs, which is a change of what the text says.
    """
    return unicodedata.normalize("NFC", UNSEEN.sub("", CONTROL.sub("", text)))


URL = "http"
MENTION = "@user"
"""What stands for a link and for the name of an account, as in TweetEval.

References:
    Barbieri et al. 2020, TweetEval: Unified Benchmark and Comparative Evaluation for Tweet
    Classification.
"""


def without_urls(text: str) -> str:
    """Write `http` in the place of every link: from `http://`, `https://` or `www.` to a space."""
    return LINK.sub(URL, text)


def without_mentions(text: str) -> str:
    """Write `@user` in the place of every `@name`; an e-mail address stays."""
    return HANDLE.sub(MENTION, text)


_REWRITERS: dict[TextStep, Callable[[str], str]] = {
    "normalize-unicode": with_normal_unicode,
    "strip-html": without_html,
    "replace-urls": without_urls,
    "replace-mentions": without_mentions,
}


def text_steps(steps: Sequence[CleaningStep]) -> list[TextStep]:
    """Return the steps that change texts, in their order; the others leave rows out."""
    return [step for step in steps if step in _REWRITERS]


def cleaned_text(text: str, steps: Sequence[TextStep]) -> str:
    """Clean one text by the steps that change texts, in their order."""
    for step in steps:
        text = _REWRITERS[step](text)
    return text


def _rewritten(cleaning: Cleaning, step: TextStep) -> Cleaning:
    rewrite = _REWRITERS[step]
    counts = [
        CleaningCount(step, split, sum(rewrite(text) != text for text in texts), 0)
        for split, texts in cleaning.texts.items()
    ]
    texts = {split: found.mapped(rewrite) for split, found in cleaning.texts.items()}
    return Cleaning(texts, cleaning.dropped, (*cleaning.counts, *counts))


def _repeated(cleaning: Cleaning, labels: Sequence[LabelTexts] | None) -> frozenset[int]:
    keys = text_keys(cleaning.texts["train"])
    rows: dict[int, list[int]] = {}
    for row, key in enumerate(keys.tolist()):
        if key != NO_TEXT and row not in cleaning.dropped:
            rows.setdefault(key, []).append(row)
    leaving: set[int] = set()
    for equal in rows.values():
        one_label = labels is None or len({_compared(labels[row]) for row in equal}) == 1
        leaving.update(equal[1:] if one_label else equal)
    return frozenset(leaving)


def _compared(labels: LabelTexts) -> LabelTexts:
    return None if labels is None else tuple(map(label_key, labels))


def _leaked(cleaning: Cleaning, general: Sequence[Any]) -> frozenset[int]:
    train, keys = cleaning.texts["train"], text_keys(cleaning.texts["train"])
    probed = sequence_keys(general)
    leaving: set[int] = set()
    for split, texts in cleaning.texts.items():
        if split != "train":
            leaving.update(np.flatnonzero(are_among(keys, text_keys(texts))).tolist())
    if probed:
        leaving |= {row for row, text in enumerate(train) if shares_a_sequence(text, probed)}
    return frozenset(leaving - cleaning.dropped)
