"""Files that somebody else may have written: read once and strictly, published whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_points import Reaper, watch

from peftune.errors import ArtifactError, StorageError, printable
from peftune.files import publishing
from peftune.files.hash_cache import read_entry, remembered, write_entry
from peftune.files.publishing import exchange, published, replace_file, replaced, write_file
from peftune.files.reading import MAX_ENTRIES, local_folder, read_plain
from peftune.files.safetensors_header import TensorSpec, check_header, read_header
from peftune.files.strict_json import parse_json, refuse_hidden


def _refusal(function: Callable[[], object]) -> str:
    with pytest.raises(ArtifactError) as caught:
        function()
    return str(caught.value)


# Plain files


def test_a_plain_file_is_read_whole(tmp_path: Path) -> None:
    """All of its bytes, up to the very limit."""
    path = tmp_path / "file"
    path.write_bytes(b"content")

    assert read_plain(path, limit=7) == b"content"
    assert _refusal(lambda: read_plain(path, limit=6)) == (
        f"'{path}' has 7 bytes, and may have 6; it is not read."
    )


def test_a_file_of_terabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    """A sparse file costs its sender nothing, and its reader nothing either."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 42)

    assert _refusal(lambda: read_plain(path, limit=10)).endswith("; it is not read.")


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "socket", "loop"])
def test_what_is_no_plain_file_is_not_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe would wait for ever, and a link leads out of the folder; both are refused at once."""
    path = tmp_path / "file"
    if kind == "link":
        (tmp_path / "other").write_text("text")
        path.symlink_to(tmp_path / "other")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        monkeypatch.chdir(tmp_path)  # a socket's path may have few characters
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("file")

    assert _refusal(lambda: read_plain(path, limit=10)) == (
        f"'{path}' is not a plain file, and is not opened."
    )


@pytest.mark.parametrize("change", [b"content and more", b"con"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    change: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that are checked are all the bytes there are."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    real = os.fstat

    def fstat(handle: int) -> os.stat_result:
        facts = real(handle)
        path.write_bytes(change)  # between the look at its size and the first byte
        return facts

    monkeypatch.setattr(os, "fstat", fstat)

    assert _refusal(lambda: read_plain(path, limit=1 << 30)) == (
        f"'{path}' changed while it was read. Fetch it again."
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With what the system says of it."""
    path = tmp_path / "nothing"

    assert _refusal(lambda: read_plain(path, limit=1)) == (
        f"'{path}' cannot be opened: {os.strerror(errno.ENOENT)}."
    )


def test_a_folder_of_a_thousand_files_is_not_walked(tmp_path: Path) -> None:
    """An artifact has a handful."""
    for index in range(MAX_ENTRIES + 1):
        (tmp_path / str(index)).touch()

    assert _refusal(lambda: local_folder(tmp_path)) == (
        f"'{tmp_path}' has more than {MAX_ENTRIES} entries, so it is not an artifact."
    )


def test_a_message_is_one_line_that_can_be_read() -> None:
    """Names out of a foreign file cannot steer a terminal, nor fill it."""
    assert printable("a\nb\x1b[2Jc\u202ed") == "a\\nb\\x1b[2Jc\\u202ed"
    assert len(printable("x" * 10_000)) == 2001


# JSON


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "'file' is not UTF-8 at byte 0."),
        ('﻿{"a": 1}'.encode(), "'file' is not valid JSON: "),
        (b'{"a": 1, "a": 2}', "'file' is not valid JSON: the key 'a' stands twice."),
        (b'{"a": {"b": 1, "b": 1}}', "'file' is not valid JSON: the key 'b' stands twice."),
        (b"NaN", "'file' is not valid JSON: NaN is not a JSON number."),
        (b"-1e999", "'file' is not valid JSON: -1e999 is beyond every number."),
        (b"9" * 41, "'file' is not valid JSON: a number has 41 digits."),
        (b"[" * 100_000, "'file' is not valid JSON: it is nested too deeply."),
        (b"[" * 34 + b"]" * 34, "'file' is not valid JSON: it is nested more than 32 deep."),
        (b"{} {}", "'file' is not valid JSON: "),
        (b'"\\ud800"', "'file' is not valid JSON: a string holds the hidden character U+D800."),
        (b'{"\\u0000": 1}', "'file' is not valid JSON: a string holds the hidden character U+0000."),
        (b'["\\u202e"]', "'file' is not valid JSON: a string holds the hidden character U+202E."),
    ],
)  # fmt: skip
def test_json_that_python_would_accept_or_choke_on_is_refused(
    content: bytes, message: str
) -> None:
    """One line each, whatever Python's own reader makes of it."""
    found = _refusal(lambda: parse_json(content, source="file"))

    assert found == message if message.endswith(".") else found.startswith(message)


def test_json_of_every_language_is_read() -> None:
    """What is seen is allowed: line ends and tabs, joined emoji, writing from right to left."""
    values = {"a": ["Grüße\n\t", "👩‍👩‍👧", "שלום", "مرحبا", 1.5, None, True]}

    assert parse_json(json.dumps(values).encode(), source="file") == values
    with pytest.raises(ValueError, match=r"U\+000A"):
        refuse_hidden("a\nb", layout="")


# Headers of tensors

SPEC = {"a": TensorSpec("F32", (2, 3)), "b": TensorSpec("BF16", (4,))}


def _file(header: object, data: int = 32, *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + bytes(data)


def _entry(dtype: object, shape: object, begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


NOT_AN_ENTRY: list[object] = [
    {**_entry("F32", [2, 3], 0, 24), "extra": 1},
    _entry("I64", [3], 0, 24),
    _entry("F32", [2, 3], 0, 20),
    _entry("F32", [-2, -3], 0, 24),
    _entry("F32", [True, 6], 0, 24),
    _entry("F32", [2, 3], 24, 0),
    _entry("F32", [2.0, 3], 0, 24),
    _entry(None, [2, 3], 0, 24),
    [],
]
A, B = _entry("F32", [2, 3], 0, 24), _entry("BF16", [4], 24, 32)


def test_a_sound_header_is_read_in_any_order() -> None:
    """Names, types and shapes; the order in the header is not that of the data."""
    for header in ({"a": A, "b": B}, {"b": B, "a": A}, {"__metadata__": {"format": "pt"}, "a": A, "b": B}):  # fmt: skip
        found = read_header(_file(header), source="file")
        check_header(found, SPEC, source="file")
        assert found == SPEC


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'file' is not a readable safetensors file: it ends within its header."),
        (_file({"a": A, "b": B}, length=1 << 63), "'file' is not a readable safetensors file: it ends within its header."),
        (_file(b"{}" + b" " * (1 << 20), 0), "'file' has a header of 1048578 bytes, and may have 1048576; it is not read."),
        (_file(b' {"a": 1}', 0), "'file' is not a readable safetensors file: its header begins with no brace."),
        (_file(b"{}" + b" " * 14, 0), "'file' is not a sound safetensors file: its header is padded beyond eight bytes."),
        (_file({"__metadata__": {"a": "b"}}, 0), "'file' holds metadata beside its tensors, which is not read. Save it again with safetensors.torch."),
        (_file({"a": A, "b": B}, 33), "'file' is not a sound safetensors file: its tensors do not tile its data."),
        (_file({"a": A, "b": _entry("BF16", [4], 25, 33)}, 33), "'file' is not a sound safetensors file: its tensors do not tile its data."),
        (_file({"a": A, "b": _entry("BF16", [4], 16, 24)}, 24), "'file' is not a sound safetensors file: its tensors do not tile its data."),
        *(
            (_file({"a": entry}, 24), "'file': the header's entry of tensor 'a' is not a type of F32, F16, BF16, a shape and the offsets that follow from them.")
            for entry in NOT_AN_ENTRY
        ),
    ],
)  # fmt: skip
def test_a_header_that_does_not_add_up_is_refused(content: bytes, message: str) -> None:
    """Before a byte of data becomes a tensor."""
    assert _refusal(lambda: read_header(content, source="file")) == message


def test_a_million_empty_tensors_cost_nothing() -> None:
    """The header is refused by its length, before it is parsed: it would not parse."""
    header = b'{"' + b'a":1,"' * 12_000_000

    assert "and may have 1048576" in _refusal(lambda: read_header(_file(header, 0), source="file"))


# Publishing


def test_two_folders_change_places_in_one_step(tmp_path: Path) -> None:
    """Each is whole under the other's name."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)

    assert exchange(tmp_path / "a", tmp_path / "b") is True
    assert [(tmp_path / name / "file").read_text() for name in ("a", "b")] == ["b", "a"]
    with pytest.raises(OSError, match="No such file"):
        exchange(tmp_path / "a", tmp_path / "nothing")


def test_where_folders_cannot_change_places_two_renames_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system without the call the new folder still takes the place, and nothing is left."""
    monkeypatch.setattr(sys, "platform", "unknown")
    assert exchange(tmp_path, tmp_path) is False
    for content in (b"old", b"new"):
        with published(tmp_path / "folder") as staging:
            write_file(staging / "file", content)

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"


def test_only_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    """Another save to the same place may be under way; one of another machine cannot be asked."""
    prefix = publishing._prefix(tmp_path / "folder")
    dead, alive, elsewhere = (
        tmp_path / f"{prefix}999999999-x.partial",
        tmp_path / f"{prefix}{os.getpid()}-x.partial",
        tmp_path / ".folder.00000000-999999999-x.partial",
    )
    for folder in (dead, alive, elsewhere):
        folder.mkdir()
    with published(tmp_path / "folder") as staging:
        write_file(staging / "file", b"content")

    assert {path.name for path in tmp_path.iterdir()} == {"folder", alive.name, elsewhere.name}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """SIGKILL before each file operation: never a part, and the next write leaves nothing beside it."""
    path = tmp_path / "recipe.yaml"
    seen, kills = {b"old", b"new"}, 0
    for at in range(100):
        path.write_bytes(b"old")
        child = os.fork()
        if child == 0:
            watch(Reaper(tmp_path, at))
            replace_file(path, "new")
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert path.read_bytes() in seen
        replace_file(path, "next")
        assert [one.name for one in tmp_path.iterdir()] == ["recipe.yaml"]
        assert path.read_bytes() == b"next"
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1

    assert kills >= 3  # the file, the disk, the place


def test_a_write_that_fails_leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    """An error while the content is made, or from the disk, which names no file itself."""
    path = tmp_path / "report.json"
    replace_file(path, "old")

    def fail() -> None:
        with replaced(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError) as caught:
        fail()

    assert str(caught.value).startswith(f"'{path}' could not be written: No space left on device")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


# Hashes that are remembered


def test_a_hash_is_worked_out_again_when_its_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path, size and time are the key; in memory, and on disk for the next process."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("peftune.files.hash_cache._SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    calls = []

    def compute() -> str:
        calls.append(1)
        return f"{len(calls):064x}"

    def ask(facts: str = "") -> str:
        return remembered("kind", [path], compute, facts=facts)

    assert [ask(), ask()] == [f"{1:064x}"] * 2
    monkeypatch.setattr("peftune.files.hash_cache._known", {})  # another process
    assert ask() == f"{1:064x}"
    assert ask("other facts") == f"{2:064x}"
    path.write_bytes(b"CONTENT")
    assert ask() == f"{3:064x}"
    for place in (tmp_path / "cache" / "kind").iterdir():
        place.write_text("garbage")
    monkeypatch.setattr("peftune.files.hash_cache._known", {})
    assert ask() == f"{4:064x}"


def test_the_hash_of_a_file_that_was_written_just_now_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be written again within the same tick of its clock, and look the same."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "file"
    path.write_bytes(b"content")
    answers = iter(["0" * 64, "1" * 64])

    assert remembered("kind", [path], lambda: next(answers)) == "0" * 64
    assert remembered("kind", [path], lambda: next(answers)) == "1" * 64


Damage = Callable[[Path], object]

DAMAGE: dict[str, Damage] = {
    "other digits without a checksum": lambda entry: entry.write_text("0" * 64),
    "other digits": lambda entry: entry.write_bytes(entry.read_bytes()[:65] + b"0" * 64),
    "one flipped bit": lambda entry: entry.write_bytes(
        entry.read_bytes()[:-1] + bytes([entry.read_bytes()[-1] ^ 1])
    ),
    "the entry of another key": lambda entry: entry.write_bytes(
        next(e for e in entry.parent.iterdir() if e != entry).read_bytes()
    ),
    "cut": lambda entry: os.truncate(entry, 100),
    "empty": lambda entry: os.truncate(entry, 0),
    "no text": lambda entry: entry.write_bytes(b"\xff" * 129),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_worked_out_again_and_replaced(
    damage: Damage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry carries a checksum of its key and its content, so 64 digits alone prove nothing."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("peftune.files.hash_cache._SETTLED_NS", 0)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    calls: list[str] = []

    def ask(facts: str = "") -> str:
        monkeypatch.setattr("peftune.files.hash_cache._known", {})  # another process

        def compute() -> str:
            calls.append(facts)
            return hashlib.sha256(facts.encode()).hexdigest()

        return remembered("kind", [path], compute, facts=facts)

    sound = ask()
    (entry,) = (tmp_path / "cache" / "kind").iterdir()
    whole = entry.read_bytes()
    ask("other facts")
    calls.clear()
    damage(entry)

    assert ask() == sound
    assert calls == [""]
    assert entry.read_bytes() == whole
    assert ask() == sound
    assert calls == [""]


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_an_entry_that_is_no_plain_file_is_not_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe in the cache would wait for ever; what cannot be replaced is done without."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    entry = tmp_path / "cache" / "kind" / "key"
    entry.parent.mkdir(parents=True)
    if kind == "folder":
        entry.mkdir()
    elif kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to(entry)

    assert read_entry("kind", "key") is None


def test_what_is_kept_is_read_again_from_its_own_key_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any bytes, an empty content and line ends included; under another key they are nothing."""
    monkeypatch.setenv("PEFTUNE_CACHE", str(tmp_path / "cache"))
    for content in (b"", b"\n", b"one\ntwo\n", bytes(range(256))):
        write_entry("kind", "key", content)
        assert read_entry("kind", "key") == content
    folder = tmp_path / "cache" / "kind"
    (folder / "key").rename(folder / "another")
    assert read_entry("kind", "another") is None
