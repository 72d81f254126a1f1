"""Predictions written to a file, answer by answer, and resumed where an interrupt ended them."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from peftune.adapters.classifier import Classifier, Text, columns_of
from peftune.data.text_column import read_texts
from peftune.display import json_text
from peftune.errors import UsageError
from peftune.experiments.evaluate import seen_by
from peftune.files.lock import hold
from peftune.files.publishing import make_writable, writing
from peftune.files.reading import given_path
from peftune.progress import stage

logger = logging.getLogger(__name__)

_AT_ONCE = 4096
"""Texts of a file that are classified, and written, at once: those of like length share a batch."""

Answer = dict[str, Any]
"""One line of the output: `text`, `label`, `score`, `probabilities`, and `labels` for multi-label."""


def read_texts_for(
    classifier: Classifier, file: Path, *, text_column: str | None = None
) -> Sequence[Text]:
    """Read the texts of a file as a classifier reads them, and warn of those it was trained on.

    Args:
        classifier: what will classify them.
        file: .txt (one text a line), csv, tsv, json, jsonl or parquet.
        text_column: column of the texts, in the place of the one the classifier was trained on.

    Raises:
        DataError: the file cannot be read, or has no such column.
    """
    texts = read_texts(file, columns_of(classifier.manifest, text_column=text_column))
    if classifier.manifest is not None:
        seen_by(
            classifier.manifest,
            texts,
            what=f"texts of '{file.name}'",
            consequence="their labels do not show what it makes of other texts",
        )
    return texts


def writable_output(output: Path, *, resume: bool = False) -> Path:
    """Return the file that a name leads to, if it can be written and no answers wait beside it.

    Raises:
        UsageError: saying what to do.
    """
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


def answers_in_order(
    classifier: Classifier, texts: Sequence[Text], *, begun: int = 0
) -> Iterator[Answer]:
    """Classify texts piece by piece, behind those that are answered already."""
    return answers_of(classifier, _slices(texts, begun))


def answers_of(classifier: Classifier, batches: Iterator[Sequence[Text]]) -> Iterator[Answer]:
    """Classify batches of texts as they come."""
    for texts in batches:
        for text, found in zip(texts, classifier.predict(texts), strict=True):
            yield {"text": text, **found.as_json()}


def write_answers(
    output: Path,
    classifier: Classifier,
    texts: Sequence[Text],
    *,
    resume: bool = False,
    more: Callable[[], Iterator[Answer]] | None = None,
) -> None:
    """Write one JSON line per text to a file that has its name once it is whole.

    Until then the answers lie beside it in `NAME.partial`, which an interrupt leaves there.

    Args:
        output: the file, or a pipe or device, as `writable_output` returned it.
        classifier: what classifies.
        texts: what is classified, in order.
        resume: go on from the answers that an interrupted call left.
        more: gives the answers where the texts come one by one; `texts` is empty then.

    Raises:
        UsageError: another process writes the file, or answers of other texts or of another
            artifact lie there.
        StorageError: it cannot be written.
    """
    if output.exists() and not output.is_file():  # a pipe or a device, which has a reader
        with output.open("wb") as device:
            device.writelines(map(_line, more() if more else answers_in_order(classifier, texts)))
        return
    with _partial_of(output, resume=resume) as partial:
        begun = _begun(partial, texts, classifier)
        answers = more() if more else answers_in_order(classifier, texts, begun=begun)
        partial.writelines(map(_line, answers))


def _slices(texts: Sequence[Text], begun: int) -> Iterator[Sequence[Text]]:
    """Go through texts in pieces, behind those that are answered already."""
    for start in range(begun, len(texts), _AT_ONCE):
        piece = texts[start : start + _AT_ONCE]
        if len(texts) <= _AT_ONCE:
            yield piece
            continue
        with stage(f"texts {start + 1:,} to {start + len(piece):,} of {len(texts):,}"):
            yield piece


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


def _begun(partial: BinaryIO, texts: Sequence[Text], classifier: Classifier) -> int:
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
    again = answers_of(classifier, iter([texts[:_AT_ONCE]])) if first else iter(())
    for number, (line, own) in enumerate(zip(first, again, strict=False)):
        if not _alike(_read(line), own):
            raise _other_answers(partial.name, number)
    partial.truncate(kept_size)
    return kept


def _alike(written: Answer, own: Answer) -> bool:
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


def _read(line: bytes) -> Answer:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(answer: Answer) -> bytes:
    return f"{json_text(answer, encoding='utf-8')}\n".encode()
