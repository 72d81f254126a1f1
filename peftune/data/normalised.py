"""When two texts count as equal."""

from __future__ import annotations

import re
import unicodedata

_LINK = re.compile(r"(?:https?://|www\.)\S+")
_HANDLE = re.compile(r"(?<!\w)@\w+")


def normalised(text: str) -> str:
    """Return what is left of a text without case, links, handles and white space between words.

    Texts that are equal afterwards are one text to checks, to cleaning, and where rows are held
    out. A text of links and handles alone keeps them.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = _HANDLE.sub(" ", _LINK.sub(" ", folded)).split()
    return " ".join(words or folded.split())
