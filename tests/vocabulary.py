"""The words that the vocabulary replaces, in identifiers and in prose."""

from __future__ import annotations

import re

REPLACED = re.compile(
    r"""\b(?:
      trunk | (?-i:arms?) | rungs? | ladders? | dials? | foreign | behaviours? | rooms
    | seal(?:s|ed|ing)? | judg(?:e|es|ed|ing)
    | (?:tell|tells|told|telling)\ (?:\w+\ )?apart
    | said\ (?:from|of) | begins?\ as | nobody\ says | (?:is|are)\ had
    | what\ learns | (?:weights?|numbers?|biases|parameters)\ (?:that\ )?learn(?:s|ed)?
    | kinds?\ of\ (?:tasks?|fine-tuning) | task\ kinds?
    | (?:is|are)\ no\ (?!longer|more|less|better|worse|larger|smaller|slower|faster|higher|lower|fewer|other\ than|merit\ of)(?<!there\ is\ no\ )(?<!there\ are\ no\ )\w+
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words and turns of phrase of the vocabulary's last column, and sentences of the form "is no X"."""

IN_NAMES = frozenset(
    [
        "trunk",
        "arm",
        "arms",
        "rung",
        "rungs",
        "ladder",
        "ladders",
        "dial",
        "dials",
        "foreign",
        "behaviour",
        "rooms",
        "seal",
        "seals",
        "sealed",
        "judge",
        "judged",
        "judges",
        "judging",
        "paid",
        "hollow",
        "asking",
        "said",
        "told",
        "lean",
        "reaches",
        "walks",
    ]
)
"""What no identifier holds between its underscores."""

KEYS = frozenset({"trunk_dropout", "ladder", "told_apart", "behaviour", "rows_judged"})
"""Keys of recipes, reports and artifacts, which keep their names."""
