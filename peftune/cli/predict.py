"""`peftune predict`."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Annotated

import typer

from peftune.cli.console import quiet_libraries
from peftune.cli.options import ArtifactArgument, BaseOption, TextColumnOption
from peftune.display import json_text
from peftune.errors import DataError, UsageError
from peftune.progress import working

if TYPE_CHECKING:
    from peftune.adapters.classifier import Text
    from peftune.experiments.predictions_file import Answer

_MOST_WAITING = 256
"""Lines of standard input that are classified at once, at most."""


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
    quiet_libraries()
    from peftune.adapters import load
    from peftune.experiments import predictions_file

    if output is not None:
        output = predictions_file.writable_output(output, resume=resume)
    classifier = load(artifact, base=base)
    known: Sequence[Text] = given
    if file is not None and not from_input:
        known = predictions_file.read_texts_for(classifier, file, text_column=text_column)

    def answers() -> Iterator[Answer]:
        if first is None:
            return predictions_file.answers_in_order(classifier, known)
        return predictions_file.answers_of(classifier, _batches(first, lines))

    if output is None:
        _print(answers())
    else:
        more = answers if first is not None else None
        predictions_file.write_answers(output, classifier, known, resume=resume, more=more)


def _print(answers: Iterator[Answer]) -> None:
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
