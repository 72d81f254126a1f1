"""A checkpoint as transformers writes it, less what no classifier needs and no load would take."""

from __future__ import annotations

import json
from pathlib import Path

from peftune.artifacts.manifest import MODEL_CONFIG, MODEL_FILES, TOKENIZER, TOKENIZER_CONFIG
from peftune.artifacts.model_config import KNOWN_KEYS, wanted_instead
from peftune.models.tokenizer_files import CONFIG_KEYS

_STATE = ("truncation", "padding")
"""What a tokenizer was last asked for; it is asked anew each time."""


def keep_plain(folder: Path) -> None:
    """Drop what a checkpoint's files say beyond what a load reads: it computes nothing.

    GPT-2's own files carry keys of years ago and settings for generating text, other bases chat
    templates; transformers writes all of it on.

    Args:
        folder: a checkpoint of a classifier, just written by `save_pretrained`.
    """
    for path in folder.iterdir():
        if path.name not in MODEL_FILES:
            path.unlink()
    for name, known in ((MODEL_CONFIG, KNOWN_KEYS), (TOKENIZER_CONFIG, CONFIG_KEYS)):
        values = json.loads((folder / name).read_bytes())
        kept = {
            key: value
            for key, value in values.items()
            if key in known and not (name == MODEL_CONFIG and wanted_instead(key, value))
        }
        text = json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")
    parts = json.loads((folder / TOKENIZER).read_bytes())
    parts |= dict.fromkeys(_STATE)
    text = json.dumps(parts, indent=2, ensure_ascii=False)
    (folder / TOKENIZER).write_text(text, encoding="utf-8")
