"""The faults that are planted, each with the check that finds it and the rows that it names."""

from __future__ import annotations

import unicodedata

from planted import GENERAL, TRAIN, Fault, Splits, both, change, copied, every, put, words

T7, T11, T20 = {"train": [7]}, {"train": [11]}, {"train": [20]}
NEW_CLASS = frozenset({"label-not-held-out", "class-imbalance"})
JSON = ("jsonl",)


def _remove(key: str, row: int) -> object:
    def plant(splits: Splits) -> None:
        del splits["train"][row][key]

    return plant


def _with_another_word(text: str) -> str:
    words = text.split()
    return " ".join([*words[:5], "umbrella", *words[6:]])


def _reversed(text: str) -> str:
    return " ".join(text.split()[::-1])


def _accented(text: str) -> str:
    return f"{text} caf\u00e9"


TEXTS = [
    Fault("an empty text", "empty-text", put("train 7", "text", ""), T7, "fail"),
    Fault("a blank text", "empty-text", put("train 7", "text", " \t "), T7, "fail"),
    Fault("a null text", "empty-text", put("train 7", "text", None), T7, "fail", kinds=JSON),
    Fault("a row without the key", "empty-text", _remove("text", 7), T7, "fail", kinds=JSON),  # type: ignore[arg-type]
    Fault(
        "a text of unseen characters",
        "empty-text",
        put("train 7", "text", "\u200b\u200b"),
        T7,
        "fail",
        frozenset({"unseen-characters"}),
    ),
    Fault("an empty test text", "empty-text", put("test 3", "text", ""), {"test": [3]}, "fail"),
    Fault("nan for a text", "placeholder-text", put("train 7", "text", "nan"), T7),
    Fault("None for a text", "placeholder-text", put("train 7", "text", "None"), T7),
    Fault("an error of a spreadsheet", "placeholder-text", put("train 7", "text", "#N/A"), T7),
    Fault("a deleted post", "placeholder-text", put("train 7", "text", "[deleted]"), T7),
    Fault("a link alone", "addresses-alone", put("train 7", "text", "https://a.b/c"), T7),
    Fault("handles alone", "addresses-alone", put("train 7", "text", "@ann @bob!"), T7),
    Fault(
        "the header among the rows",
        "repeated-header",
        both(put("train 7", "text", "text"), put("train 7", "label", "label")),
        T7,
        "fail",
        NEW_CLASS,
    ),
    Fault(
        "a column of numbers for the text",
        "wrong-text-column",
        every("train", "text", lambda row: str(10_000 + 7 * row)),
        {"train": list(range(TRAIN))},
    ),
]

LABELS = [
    Fault("an empty label", "missing-label", put("train 7", "label", ""), T7, "fail"),
    Fault("a blank label", "missing-label", put("train 7", "label", "  "), T7, "fail"),
    Fault("a null label", "missing-label", put("train 7", "label", None), T7, "fail", kinds=JSON),
    Fault("no label key", "missing-label", _remove("label", 7), T7, "fail", kinds=JSON),  # type: ignore[arg-type]
    Fault(
        "a label that the recipe does not name",
        "unknown-label",
        put("train 7", "label", "neutral"),
        T7,
        "fail",
        data={"labels": ["negative", "positive"]},
    ),
    Fault(
        "an id beyond the labels",
        "unknown-label",
        put("train 7", "label", 2),
        T7,
        "fail",
        data={"labels": ["negative", "positive"]},
    ),
    Fault(
        "a label that only the test has",
        "unknown-label",
        put("test 3", "label", "neutral"),
        {"test": [3]},
        "fail",
    ),
    *(
        Fault(
            f"a label {how}",
            "look-alike-labels",
            put("train 11", "label", label),
            T11,
            "fail",
            NEW_CLASS | {"hidden-label"},
        )
        for how, label in {
            "in another case": "Positive",
            "after a space": " positive",
            "before a space": "positive ",
            "with a Cyrillic o": "p\u043esitive",
            "with a full-width letter": "\uff50ositive",
            "with a zero-width space": "posi\u200btive",
            "with a hyphen": "posi-tive",
        }.items()
    ),
    *(
        Fault(
            f"a label {how}",
            "hidden-label",
            put("train 11", "label", label),
            T11,
            "fail",
            NEW_CLASS | {"look-alike-labels"},
        )
        for how, label in {
            "that a tag rides on": "positive\U000e0041",
            "with a mark from right to left": "\u200fpositive",
            "with a terminal escape": "positive\x1b[2J",
        }.items()
    ),
    Fault(
        "nan for a label",
        "placeholder-label",
        put("train 7", "label", "nan"),
        T7,
        beside=NEW_CLASS,
    ),
    Fault(
        "ids for labels",
        "many-labels",
        both(*(every(split, "label", lambda row: f"c{row}") for split in ("train", "validation", "test"))),
        {},
        beside=frozenset({"label-not-held-out"}),
    ),
    Fault(
        "a label without training rows",
        "label-not-in-train",
        lambda _: None,
        {},
        data={"labels": ["negative", "neutral", "positive"]},
    ),
    Fault(
        "a held-out split without a label",
        "label-not-held-out",
        every("validation", "label", lambda _: "positive"),
        {},
        beside=frozenset({"label-shift"}),
    ),
    Fault(
        "a rare label",
        "class-imbalance",
        every("train", "label", lambda row: "positive" if row % 15 else "negative"),
        {"train": [0, 15, 30, 45]},
        beside=frozenset({"label-shift"}),
    ),
    Fault(
        "labels mixed unlike train",
        "label-shift",
        every("validation", "label", lambda row: "positive" if row % 12 else "negative"),
        {},
    ),
]  # fmt: skip

COPIES = [
    Fault("a text twice", "duplicate-text", copied("train 2", "train 20"), T20),
    Fault("in capitals", "duplicate-text", copied("train 2", "train 20", str.upper), T20),
    Fault(
        "with other white space",
        "duplicate-text",
        copied("train 2", "train 20", lambda text: f"  {text.replace(' ', '  ')}\t"),
        T20,
    ),
    Fault(
        "with another link",
        "duplicate-text",
        both(
            copied("train 2", "train 20", lambda text: f"{text} https://a.b/2"),
            change("train 2", lambda text: f"{text} http://c.d/1"),
        ),
        T20,
    ),
    Fault(
        "for another reader",
        "duplicate-text",
        both(
            copied("train 2", "train 20", lambda text: f"@ann {text}"),
            change("train 2", lambda text: f"@bob {text}"),
        ),
        T20,
    ),
    Fault(
        "in another Unicode form",
        "duplicate-text",
        both(
            change("train 2", _accented),
            copied("train 2", "train 20", lambda text: unicodedata.normalize("NFD", text)),
        ),
        T20,
    ),
    Fault("a test text twice", "duplicate-text", copied("test 2", "test 10"), {"test": [10]}),
    Fault(
        "a text but for a letter",
        "near-duplicate",
        copied("train 2", "train 20", lambda text: f"{text}s"),
        T20,
    ),
    Fault(
        "a text but for a word",
        "near-duplicate",
        copied("train 2", "train 20", _with_another_word),
        T20,
    ),
    Fault(
        "one text with two labels",
        "conflicting-labels",
        copied("train 2", "train 21"),
        {"train": [2, 21]},
        beside=frozenset({"duplicate-text"}),
    ),
    Fault("an id twice", "duplicate-id", copied("train 2", "train 20", key="id"), T20),
    Fault(
        "an id in two splits",
        "duplicate-id",
        copied("train 2", "test 10", key="id"),
        {"test": [10]},
    ),
    Fault(
        "a training text in the test",
        "leakage",
        copied("train 2", "test 10"),
        {"train": [2], "test": [10]},
        "fail",
    ),
    Fault(
        "a training text in validation",
        "leakage",
        copied("train 2", "validation 10"),
        {"train": [2], "validation": [10]},
        "fail",
    ),
    Fault(
        "a validation text in the test",
        "leakage",
        copied("validation 2", "test 10"),
        {"validation": [2], "test": [10]},
        "fail",
    ),
    Fault(
        "a training text in the test, sent on",
        "leakage",
        copied("train 2", "test 10", lambda text: f"@ann {text.title()}  www.a.b"),
        {"train": [2], "test": [10]},
        "fail",
    ),
    Fault(
        "a training text in the test but for a letter",
        "near-leakage",
        copied("train 2", "test 10", lambda text: f"{text}s"),
        {"train": [2], "test": [10]},
    ),
    Fault(
        "a training text in the test but for a word",
        "near-leakage",
        copied("train 2", "test 10", _with_another_word),
        {"train": [2], "test": [10]},
    ),
    Fault(
        "a training text in the test in another order",
        "near-leakage",
        copied("train 2", "test 10", _reversed),
        {"train": [2], "test": [10]},
    ),
    Fault(
        "an author in two splits",
        "group-leakage",
        copied("train 2", "test 10", key="author"),
        {"train": [2, 3], "test": [10]},
        "fail",
        data={"group_column": "author"},
    ),
    Fault("a probe's text in train", "probe-leakage", put("train 7", "text", GENERAL[0]), T7, "fail"),
    Fault(
        "a probe's text in the test",
        "probe-leakage",
        put("test 3", "text", f"They say: {GENERAL[1]}"),
        {"test": [3]},
    ),
]  # fmt: skip

_GIVEN = list(range(1, TRAIN - 10, 2))

CHARACTERS = [
    Fault(
        "a token that gives the label away",
        "giveaway-token",
        both(*(change(f"train {row}", lambda text: f"{text} zq7") for row in _GIVEN)),
        {"train": _GIVEN},
    ),
    Fault(
        "many texts beyond the longest",
        "truncation",
        both(*(put(f"train {row}", "text", words(100, row)) for row in range(5))),
        {"train": [0, 1, 2, 3, 4]},
    ),
    Fault("rows joined to one", "overlong-text", put("train 7", "text", words(600)), T7),
    *(
        Fault(name, code, change("train 7", lambda text, added=added: f"{text} {added}"), T7)  # type: ignore[misc]
        for name, code, added in (
            ("UTF-8 read as Latin-1", "mojibake", "caf\u00c3\u00a9"),
            ("UTF-8 read as Windows-1252", "mojibake", "it\u00e2\u20ac\u2122s"),
            ("an emoji read as Windows-1252", "mojibake", "\u00f0\u0178\u02dc\u20ac"),
            ("a lost character", "lost-characters", "caf\ufffd"),
            ("a bell", "control-characters", "ring \x07"),
            ("a turn of direction", "control-characters", "\u202egnirts"),
            ("a zero-width space", "unseen-characters", "vel\u200bvet"),
            ("a byte order mark", "unseen-characters", "\ufeffvelvet"),
            ("a soft hyphen", "unseen-characters", "vel\u00advet"),
            ("a line end spelled out", "escape-residue", r"one\ntwo"),
            ("a code point spelled out", "escape-residue", r"caf\u00e9"),
            ("a code point as R writes it", "escape-residue", "<U+1F600>"),
            ("a tag of HTML", "html", "<br />"),
            ("an entity of HTML", "html", "salt &amp; pepper"),
        )
    ),
    *(
        Fault(f"a row in {name}", "other-language", put("train 7", "text", text), T7)
        for name, text in {
            "Spanish": "no me gusta nada porque todo esto es muy caro para los de aquí",
            "Russian": "сегодня утром мы долго ждали автобус",
            "Chinese": "今天早上我们等了很久的公共汽车",
        }.items()
    ),
]

SCORES = {"label_column": "score"}
FLAGS = {"label_column": ["loud", "long"]}

OTHER_TASKS = [
    Fault("no score", "missing-label", put("train 7", "score", ""), T7, "fail", data=SCORES, task="regression"),
    Fault("a word for a score", "label-no-number", put("train 7", "score", "high"), T7, "fail", data=SCORES, task="regression"),
    Fault("an endless score", "label-no-number", put("test 3", "score", "inf"), {"test": [3]}, "fail", data=SCORES, task="regression"),
    Fault("a lost decimal point", "label-outlier", put("train 7", "score", "345"), T7, data=SCORES, task="regression"),
    Fault("one score for all", "constant-label", every("validation", "score", lambda _: "3.0"), {}, "fail", data=SCORES, task="regression"),
    Fault("nothing said of any label", "missing-label", both(put("train 7", "loud", ""), put("train 7", "long", "")), T7, "fail", data=FLAGS, task="multi-label"),
    Fault("neither yes nor no", "unknown-label", put("train 7", "loud", "2"), T7, "fail", data=FLAGS, task="multi-label"),
    Fault("a label that never applies", "label-not-in-train", every("train", "loud", lambda _: "0"), {}, data=FLAGS, task="multi-label"),
    Fault("an empty document", "empty-text", put("train 7", "text", ""), T7, "fail", task="language-modeling"),
    Fault("a document in two splits", "leakage", copied("train 2", "test 10"), {"train": [2], "test": [10]}, "fail", task="language-modeling"),
]  # fmt: skip

FAULTS = [*TEXTS, *LABELS, *COPIES, *CHARACTERS, *OTHER_TASKS]
