"""Manifests that lack something, or say what no artifact of peftune says."""

from __future__ import annotations

from collections.abc import Callable

from hostile.case import CONFIG, WEIGHTS, Case, Damage, Draft, cases, edits, inside

CONTROL_TEXTS = {
    "a terminal escape": "\x1b[2J\x1b[31mowned",
    "a new line": "good\nbad",
    "a carriage return": "good\rbad",
    "a NUL": "good\0",
    "a backspace": "good\b\b\b\bbad",
    "a one-byte escape": "good\x9b31m",
    "a line separator": "good\u2028bad",
    "a change of direction": "good\u202edab",
    "half a character": "good\ud800",
}
UNSEEN_TEXTS = {
    "a space without width": "go\u200bod",
    "a joiner": "go\u200dod",
    "a mark from right to left": "\u200fgood",
    "a word joiner": "good\u2060",
    "a byte-order mark": "\ufeffgood",
    "a soft hyphen": "go\u00adod",
    "a tag": "good\U000e0041",
    "a filler": "good\u3164",
}
TWINS = {
    "Unicode's form": ("caf\u00e9", "cafe\u0301"),
    "the width of a blank": ("so so", "so\u00a0so"),
    "a blank at the end": ("so so", "so so "),
    "the form of a heart": ("\u2764", "\u2764\ufe0f"),
}
REQUIRED = (
    "format_version",
    "peftune_version",
    "kind",
    "strategy",
    "base",
    "task_name",
    "labels",
    "max_length",
    "tokenizer_sha256",
    "pad_token_id",
    "precision",
    "dtype",
    "files",
    "behaviour",
)


def _without(key: str) -> Damage:
    def damage(draft: Draft) -> None:
        values = draft.manifest()
        values.pop(key)
        draft.write_manifest(values)

    return damage


def _without_file(name: str) -> Damage:
    def damage(draft: Draft) -> None:
        files = draft.manifest()["files"]
        files.pop(name)
        draft.edit(files=files)

    return damage


def _hashes(change: Callable[[str], object]) -> Damage:
    def damage(draft: Draft) -> None:
        listed = draft.manifest()["files"]
        draft.edit(files={name: change(value) for name, value in listed.items()})

    return damage


_VALUES: dict[str, tuple[object, ...]] = {
    "format_version": (0, 1, 2.0, 3, 99, "2", True, None),
    "kind": ("model", "pickle", "", None, 1),
    "labels": ("bad", [1, 2, 3], ["bad", "so-so", None], {"0": "bad"}, None, []),
    "max_length": ("48", 48.5, True, -1, 0, 1, 8, 100, 10**9, 10**30, None),
    "pad_token_id": ("0", -1, 1, 10**12, False, None),
    "task_name": ("clustering", "regression", "language-modeling", "", None),
    "precision": ("float8", "int8", "", 32, None),
    "dtype": ("bfloat16", "float16", "int8", "os.system", "", None, 1),
    "files": ([], {}, None, {WEIGHTS: 1}),
    "clean": ([], None, "replace-urls", ["drop-leaked"], ["os.system"], ["replace-urls", "replace-urls"], [1], {"replace-urls": 1}),
}  # fmt: skip
_KEYS: dict[str, Damage] = {
    **{f"no {key}": _without(key) for key in REQUIRED},
    "an unknown key": edits(loader="os.system"),
    "an unknown key of the base": inside("base", path="/etc"),
    "an unknown key of the strategy": inside("strategy", loader="os.system"),
    "an unknown key of the behaviour": inside("behaviour", tolerance=1e9),
    "an unknown key that is a terminal escape": edits(**{"\x1b[2J": 1}),
    **{
        f"{key} {value!r}": edits(**{key: value})
        for key, values in _VALUES.items()
        for value in values
    },
    "peftune_version of another type": edits(peftune_version=1),
    "a peftune_version that is a terminal escape": edits(peftune_version="\x1b[2J"),
    "a tokenizer hash of another": edits(tokenizer_sha256="0" * 64),
    "a tokenizer hash that is empty": edits(tokenizer_sha256=""),
    "label thresholds of another count": edits(label_thresholds=[0.5]),
    "label thresholds beyond one": edits(label_thresholds=[0.5, 0.5, 1.5]),
    "label thresholds for one label each": edits(label_thresholds=[0.9, 0.1, 0.1]),
    "task results that are a list": edits(task=[1]),
    "forgetting results that are not a list": edits(forgetting={"name": "prose"}),
    "rescaled beyond the tuned model": edits(rescaled={"alpha": 5.0, "shallow": None, "head": "kept", "from_sha256": "0" * 64}),
    "started from a pickle": edits(started_from={"kind": "pickle", "sha256": "0" * 64}),
}  # fmt: skip

_LABELS: dict[str, Damage] = {
    "two labels of three": edits(labels=["bad", "so-so"]),
    "four labels of three": edits(labels=["bad", "so-so", "good", "great"]),
    "a hundred thousand labels": edits(labels=[str(index) for index in range(100_000)]),
    "a label twice": edits(labels=["bad", "so-so", "bad"]),
    **{
        f"a label with {what}": edits(labels=["bad", "so-so", text])
        for what, text in {**CONTROL_TEXTS, **UNSEEN_TEXTS}.items()
    },
    "an empty label": edits(labels=["bad", "so-so", ""]),
    "a blank label": edits(labels=["bad", "so-so", " \u3000"]),
    **{
        f"labels that differ in {what}": edits(labels=["bad", one, other])
        for what, (one, other) in TWINS.items()
    },
}
_STRINGS: dict[str, Damage] = {
    **{f"a base name with {what}": inside("base", name=text) for what, text in CONTROL_TEXTS.items()},
    "a base revision with a terminal escape": inside("base", revision="\x1b[2J"),
    "a task result with a terminal escape": edits(task={"data": "\x1b[2J"}),
    "a task result whose name is a terminal escape": edits(task={"\x1b[2J": 1.0}),
    "a forgetting result with a terminal escape": edits(forgetting=[{"name": "\x1b[2J"}]),
}  # fmt: skip

_FILE_LIST: dict[str, Damage] = {
    "hashes in capitals": _hashes(str.upper),
    "hashes of nothing": _hashes(lambda _: ""),
    "hashes that are numbers": _hashes(lambda _: 0),
    "hashes of another kind": _hashes(lambda value: f"md5:{value[:32]}"),
    f"{WEIGHTS} not listed": _without_file(WEIGHTS),
    f"{CONFIG} not listed": _without_file(CONFIG),
    "the card not listed": _without_file("README.md"),
}

MANIFEST_CASES: tuple[Case, ...] = (
    *cases("lora", {**_KEYS, **_LABELS, **_STRINGS, **_FILE_LIST}),
    *cases(
        "full",
        {
            "kind 'adapter'": edits(kind="adapter"),
            "labels of another count": edits(labels=["bad", "good"]),
            "labels in another order": edits(labels=["good", "so-so", "bad"]),
            "labels of other names": edits(labels=["a", "b", "c"]),
            "dtype 'bfloat16'": edits(dtype="bfloat16"),
            "pad_token_id 1": edits(pad_token_id=1),
            "max_length 8": edits(max_length=8),
            "max_length 100": edits(max_length=100),
            "task_name 'multi-label'": edits(task_name="multi-label"),
            "a tokenizer hash of another": edits(tokenizer_sha256="0" * 64),
        },
    ),
    *cases(
        "head-only",
        {
            "two labels of three": _LABELS["two labels of three"],
            "four labels of three": _LABELS["four labels of three"],
        },
    ),
)
