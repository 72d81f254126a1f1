"""`peftune predict`."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from peftune.cli.console import json_text, quiet_libraries
from peftune.cli.options import ArtifactArgument, BaseOption, TextColumnOption
from peftune.errors import DataError, UsageError
from peftune.progress import stage, working

if TYPE_CHECKING:
    from peftune.adapters import Classifier

logger = logging.getLogger(__name__)

_MOST_WAITING = 256
"""Lines of standard input that are classified at once, at most."""

_AT_ONCE = 4096
"""Texts of a file that are classified, and written, at once: those of like length share a batch."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("predict")(predict)


@working("predicting")
def predict(
    artifact: ArtifactArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Texts; without any, and without --text and --file, one a line from standard input.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text; may be given several times.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A file of texts: .txt (one a line), csv, tsv, json, jsonl or parquet; - is standard input."
        ),
    ] = None,
    text_column: TextColumnOption = None,
    output: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what an interrupted predict had written.")
    ] = False,
    base: BaseOption = None,
) -> None:
    """Classify texts: one JSON line each, in order, with text, label, score and probabilities.

    Multi-label says `labels` too; the score of a regression is its number.
    """
    given, from_input = _given(texts or [], text or [], file)
    if resume and (output is None or file is None or from_input):
        message = "--resume goes on with a --file that is written to --output. Name both."
        raise UsageError(message)
    lines = _lines_of_input() if from_input else iter(())
    first = None
    if from_input:
        with contextlib.suppress(OSError):  # no input at all
            first = next(lines, None)
    if not given and first is None and (file is None or from_input):
        message = "predict needs texts: on the command line, in a --file, or one a line from standard input."
        raise UsageError(message)
    if output is not None:
        output = _fit(output, resume=resume)
    quiet_libraries()
    from peftune.adapters import load

    classifier = load(artifact, base=base)
    known = [] if first is not None else given or _texts_of(file, classifier, text_column)

    def answers(begun: int = 0) -> Iterator[dict[str, object]]:
        pieces = _slices(known, begun) if first is None else _batches(first, lines)
        return _answers(classifier, pieces)

    if output is None:
        _print(answers())
    elif output.exists() and not output.is_file():  # a pipe or a device, which has a reader
        with output.open("wb") as device:
            device.writelines(map(_line, answers()))
    else:
        with _partial_of(output, resume=resume) as partial:
            partial.writelines(map(_line, answers(_begun(partial, known, classifier))))


def _fit(output: Path, *, resume: bool) -> Path:
    """Return the file that a name leads to, if it can be written and no answers wait beside it.

    Raises:
        UsageError: saying what to do.
    """
    from peftune.files.publishing import make_writable
    from peftune.files.reading import given_path

    output = given_path(output, "--output")
    if not output.parent.is_dir():
        message = f"There is no folder '{output.parent}' to write '{output.name}' into."
        raise UsageError(message)
    if output.is_dir():
        message = f"'{output}' is a folder. Name a file with --output."
        raise UsageError(message)
    if output.exists() and not output.is_file():
        return output
    output = output.resolve() if output.is_symlink() else output
    make_writable(output.parent)
    partial = _partial(output)
    if not resume and partial.exists() and partial.stat().st_size:
        raise _left_over(partial)
    return output


def _partial(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def _left_over(partial: Path) -> UsageError:
    return UsageError(
        f"'{partial}' holds the answers of a predict that did not end. With a --file, --resume goes on from there; otherwise remove it."
    )


@contextlib.contextmanager
def _partial_of(output: Path, *, resume: bool) -> Iterator[BinaryIO]:
    """Give the file that the answers are written to until the last one: what is kept of an interrupt.

    Raises:
        UsageError: another predict writes it, or has left answers that nobody wants to resume.
        StorageError: it cannot be written.
    """
    from peftune.files.lock import hold
    from peftune.files.publishing import writing

    partial = _partial(output)
    with writing(partial), partial.open("a+b") as file:
        if not hold(file.fileno()):
            message = f"'{partial}' is being written by another predict. Wait for it, or choose another --output."
            raise UsageError(message)
        if file.seek(0, os.SEEK_END) and not resume:
            raise _left_over(partial)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                partial.chmod(stat.S_IMODE(output.stat().st_mode))
            os.replace(partial, output)  # noqa: PTH105 - says that it is atomic
        except BaseException as error:
            with contextlib.suppress(OSError):
                file.flush()
            if type(error) is UsageError:
                pass  # it is about the answers that lie there
            elif file.seek(0, os.SEEK_END):
                message = "'%s' keeps the answers so far; of a --file, --resume goes on from there"
                logger.warning(message, partial)
            else:
                partial.unlink(missing_ok=True)
            raise


def _slices(texts: Sequence[str], begun: int) -> Iterator[Sequence[str]]:
    """Go through texts in pieces, behind those that are answered already."""
    for start in range(begun, len(texts), _AT_ONCE):
        piece = texts[start : start + _AT_ONCE]
        if len(texts) <= _AT_ONCE:
            yield piece
            continue
        with stage(f"texts {start + 1:,} to {start + len(piece):,} of {len(texts):,}"):
            yield piece


def _begun(partial: BinaryIO, texts: Sequence[str], classifier: Classifier) -> int:
    """Cut what an interrupted predict had written to whole pieces, and count their answers.

    The first piece is classified again: only the same artifact says the same of it.

    Raises:
        UsageError: its lines are not what this artifact says of these texts.
    """
    first: list[bytes] = []
    count = size = kept = kept_size = 0
    partial.seek(0)
    for line in itertools.takewhile(lambda one: one.endswith(b"\n"), partial):
        if count >= len(texts) or _read(line).get("text") != texts[count]:
            raise _other_answers(partial.name, count)
        if count < _AT_ONCE:
            first.append(line)
        count, size = count + 1, size + len(line)
        if count % _AT_ONCE == 0 or count == len(texts):
            kept, kept_size = count, size
    again = _answers(classifier, iter([texts[:_AT_ONCE]])) if first else iter(())
    for number, (line, own) in enumerate(zip(first, again, strict=False)):
        if not _alike(_read(line), own):
            raise _other_answers(partial.name, number)
    partial.truncate(kept_size)
    return kept


def _alike(written: dict[str, object], own: dict[str, object]) -> bool:
    """Compare answers, but for what another machine rounds otherwise."""
    if any(written.get(key) != own.get(key) for key in ("label", "labels")):
        return False
    score, again = written.get("score"), own.get("score")
    if isinstance(score, int | float) and isinstance(again, int | float):
        return math.isclose(score, again, rel_tol=1e-3, abs_tol=1e-3)
    return score == again  # of a text without a label there is none


def _other_answers(partial: str, number: int) -> UsageError:
    return UsageError(
        f"Line {number + 1} of '{partial}' is not what this artifact says of text {number + 1} of the file. Name the artifact and the file that it was begun with, or remove it."
    )


def _read(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _texts_of(file: Path | None, classifier: Classifier, text_column: str | None) -> Sequence[str]:
    """Read the texts of a file, and say where they were trained on."""
    from peftune.adapters.classifier import columns_of
    from peftune.data.text_column import read_texts
    from peftune.experiments.evaluate import seen_by

    if file is None:
        return []
    texts = read_texts(file, columns_of(classifier.manifest, text_column=text_column))
    if classifier.manifest is not None:
        seen_by(
            classifier.manifest,
            texts,
            what=f"texts of '{file.name}'",
            consequence="their labels do not show what it makes of other texts",
        )
    return texts


def _line(answer: dict[str, object]) -> bytes:
    return f"{json_text(answer, encoding='utf-8')}\n".encode()


def _print(answers: Iterator[dict[str, object]]) -> None:
    """Print each answer as soon as it is there."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for answer in answers:
        sys.stdout.write(json_text(answer, encoding=encoding) + "\n")
        sys.stdout.flush()


def _given(
    texts: Sequence[str], options: Sequence[str], file: Path | None
) -> tuple[list[str], bool]:
    """Return the texts of the command line, and whether they come from standard input instead."""
    if list(texts) == ["-"] and not options and file is None:
        return [], True
    given = [*texts, *options]
    if given and file is not None:
        message = "predict takes texts either from the command line or from a --file, not both."
        raise UsageError(message)
    for one in texts:
        if _is_file(one):
            message = f"'{one}' is a file. Name it with --file, or, if it is a text, give it with --text."
            raise UsageError(message)
    for one in given:
        if not _is_unicode(one):
            message = f"The text {one.encode(errors='backslashreplace').decode()!r} is not UTF-8. Read it from a file that is."
            raise UsageError(message)
    is_piped = sys.stdin is not None and not sys.stdin.isatty()
    return given, str(file) == "-" or (not given and file is None and is_piped)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines_of_input() -> Iterator[str]:
    """Read standard input, one text a line, as it comes.

    Raises:
        DataError: a line is not UTF-8.
    """
    stream = getattr(sys.stdin, "buffer", None)
    for number, line in enumerate(stream if stream is not None else (), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            message = f"Standard input is not UTF-8: byte 0x{byte:02x} in line {number}."
            raise DataError(message) from error
        yield text.rstrip("\r\n")


def _batches(first: str, lines: Iterator[str]) -> Iterator[list[str]]:
    """Gather what has come so far, so that a slow writer is answered line by line.

    Raises:
        DataError: a line is not UTF-8; the lines before it are answered.
    """
    arrived: Queue[str | BaseException | None] = Queue(4 * _MOST_WAITING)

    def read() -> None:
        try:
            for line in lines:
                arrived.put(line)
        except BaseException as error:  # noqa: BLE001 - raised where the lines are used
            arrived.put(error)
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    batch, ended = [first], False
    while not ended:
        try:
            one = arrived.get(block=not batch, timeout=None)
        except Empty:
            yield batch
            batch = []
            continue
        if isinstance(one, str):
            batch.append(one)
        if len(batch) >= _MOST_WAITING or not isinstance(one, str):
            ended = not isinstance(one, str)
            if batch:
                yield batch
            batch = []
        if isinstance(one, BaseException):
            raise one


def _answers(
    classifier: Classifier, batches: Iterator[Sequence[str]]
) -> Iterator[dict[str, object]]:
    for texts in batches:
        for text, found in zip(texts, classifier.predict(texts), strict=True):
            yield {"text": text, **found.as_json()}
