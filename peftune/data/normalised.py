"""When two texts count as equal."""

from __future__ import annotations

import re
import unicodedata

LINK = re.compile(r"(?:https?://|(?<!\w)www\.)\S+", re.IGNORECASE)
HANDLE = re.compile(r"(?<!\w)@\w+")
"""The name of an account as it is mentioned; not what follows the name in an e-mail address."""


def normalised(text: str) -> str:
    """Return what is left of a text without case, links, handles and white space between words.

    Texts that are equal afterwards are one text to checks, to cleaning, and where rows are held
    out. A text of links and handles alone keeps them.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = HANDLE.sub(" ", LINK.sub(" ", folded)).split()
    return " ".join(words or folded.split())
