"""What is fed to the model and which tokens of it are scored, each exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """One forward pass of one document: what is fed, and which tokens its end predicts.

    Args:
        document: index of the document.
        inputs: token ids that are fed.
        targets: token ids that the last `len(targets)` positions predict.
    """

    document: int
    inputs: tuple[int, ...]
    targets: tuple[int, ...]


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Cover the targets `0 … length - 1` exactly once with overlapping windows.

    Yields:
        `(begin, done, end)`: feed `([prefix] + tokens)[begin:end]`, score `tokens[done:end]`.
    """
    done = 0
    while done < length:
        end = min(length, window) if done == 0 else min(length, done + stride)
        yield max(0, end - window), done, end
        done = end


def text_pieces(
    encoded: Sequence[Sequence[int]], *, prefix: int, window: int, stride: int
) -> Iterator[Piece]:
    """Cut documents into windows, each document after a prefix token."""
    for document, ids in enumerate(encoded):
        fed = (prefix, *ids)
        for begin, done, end in windows(len(ids), window, stride):
            yield Piece(document, tuple(fed[begin:end]), tuple(ids[done:end]))


def continuation_piece(
    document: int, context: Sequence[int], continuation: Sequence[int], *, window: int
) -> Piece:
    """Feed a context and its continuation; a context that is too long loses its beginning.

    Raises:
        ValueError: the continuation alone is longer than the window.
    """
    if len(continuation) > window:
        message = f"a continuation of {len(continuation)} tokens is longer than the window of {window}; shorten it"
        raise ValueError(message)
    fed = (*context, *continuation)[:-1]
    return Piece(document, tuple(fed[-window:]), tuple(continuation))
