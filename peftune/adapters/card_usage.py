"""The part of a model card that says how to use the artifact, with peftune and without."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from peftune.bundled import is_bundled
from peftune.data.cleaning import CONTROL, MENTION, UNSEEN, URL
from peftune.data.text_hashes import HANDLE, LINK
from peftune.errors import visible
from peftune.models.prepare import Preparation
from peftune.recipe.data import TextStep
from peftune.recipe.task_type import TaskName

_FOLDER = "PATH/TO/THIS/FOLDER"
_BASE = "PATH/TO/THE/BASE"
_HUB_NAME = re.compile(r"(?:bundled:)?[A-Za-z0-9./_-]+")

_WITH_PEFTUNE = """With peftune, which checks it; of an artifact on the hub, `user/name@commit` stands for the path:

```python
import peftune

classifier = {load}
classifier.predict(["what a lovely day"])
```"""

_WITH_PEFT = """With plain PEFT:

```python
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({base})
tokenizer.pad_token = tokenizer.eos_token
base = AutoModelForSequenceClassification.from_pretrained({base}, num_labels={count}, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32)
model = PeftModel.from_pretrained(base, "{folder}").eval()
# ids to labels: {labels}
```"""

_MERGED = """With plain transformers, once it is merged into its base:

```sh
peftune adapter merge {folder} merged{base_option}
```

"""

_CLASSIFY = """```python
from transformers import pipeline

classify = pipeline("text-classification", "{folder}"{options})
classify(["what a lovely day"], truncation=True, max_length={max_length})
```"""

_CONTINUE = """```python
from transformers import pipeline

pipeline("text-generation", "{folder}")("What a")
```"""

_PLAIN = "With plain transformers:\n\n"

_START = """As the start of a run of peftune, which puts a new head on it; of an artifact on the hub, `user/name@commit` stands for the path:

```yaml
model:
  name_or_path: {base}
  init_from: {folder}
```"""

_LANGUAGE_MODEL_WITH_PEFT = """With plain PEFT:

```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({base})
base = AutoModelForCausalLM.from_pretrained({base}, dtype=torch.float32)
model = PeftModel.from_pretrained(base, "{folder}").eval()
```"""

_CODE: Mapping[TextStep, Sequence[str]] = {
    "normalize-unicode": (
        f're.sub({CONTROL.pattern!a}, "", text)',
        f'unicodedata.normalize("NFC", re.sub({UNSEEN.pattern!a}, "", text))',
    ),
    "strip-html": ("without_html(text)",),
    "replace-urls": (f're.sub(r"(?i){LINK.pattern}", "{URL}", text)',),
    "replace-mentions": (f're.sub(r"{HANDLE.pattern}", "{MENTION}", text)',),
}
"""Each step of cleaning as lines of Python."""

_IMPORTS = ("import re", "import unicodedata")
_HTML_IMPORT = "from peftune.data.cleaning import without_html  # tags and comments go, entities are spelled out"

_OPTIONS: dict[TaskName, str] = {
    "multi-label": ", top_k=None",
    "regression": ', function_to_apply="none"',
}


def load_line(artifact: str, *, base: str, revision: str | None) -> str:
    """Write the call that loads an artifact, on a machine that has not seen its base yet.

    Args:
        artifact: a folder, or `user/name@commit`.
        base: the name of its base.
        revision: the commit of a base on the hub; None for any other.
    """
    given = _given_base(base, revision)
    return f"peftune.load({_quoted(artifact)}" + (f", base={_quoted(given)})" if given else ")")


def _quoted(text: str) -> str:
    """Write a text as Python and YAML read it, in which no name of others ends what it stands in."""
    written = json.dumps(visible(text), ensure_ascii=False)
    return written.replace("<", "\\x3c").replace("`", "\\x60")


def _given_base(base: str, revision: str | None) -> str | None:
    """Say what a reader must pass for the base; None where it comes with peftune."""
    if is_bundled(base):
        return None
    return base if revision and _HUB_NAME.fullmatch(base) else _BASE


def ways_to_use(
    preparation: Preparation, *, kind: str, is_peft: bool, clean: Sequence[TextStep] = ()
) -> str:
    """Write how an artifact is used.

    Args:
        preparation: what is known of the model.
        kind: `adapter` or `model`.
        is_peft: whether plain PEFT can load it.
        clean: how every text is cleaned before it is read.
    """
    base, labels = preparation.base, preparation.labels
    named = base.hub_id or _BASE
    if preparation.task_type.has_head:
        load = load_line(_FOLDER, base=base.name, revision=base.revision)
        ways = [_WITH_PEFTUNE.format(load=load)]
        if clean:
            ways.append(how_to_clean(clean))
        with_peft = _WITH_PEFT.format(
            base=_quoted(named), count=len(labels), folder=_FOLDER, labels=_by_id(labels)
        )
    else:
        start = base.name if is_bundled(base.name) else named
        ways = [_START.format(base=_in_yaml(start), folder=_FOLDER)]
        with_peft = _LANGUAGE_MODEL_WITH_PEFT.format(base=_quoted(named), folder=_FOLDER)
    if is_peft:
        ways.append(with_peft)
    ways.append(_with_transformers(preparation, is_merged=kind == "model"))
    return "\n\n".join(ways)


def _by_id(labels: Sequence[str]) -> str:
    """Write the labels by id as Python, whatever stands in them."""
    return "{" + ", ".join(f"{index}: {_label(name)}" for index, name in enumerate(labels)) + "}"


def _label(name: str) -> str:
    return repr(name).replace("<", "\\x3c").replace("`", "\\x60")


def _in_yaml(name: str) -> str:
    """Leave a name that is one word to YAML as it is, and quote any other."""
    return name if _HUB_NAME.fullmatch(name) else _quoted(name)


def how_to_clean(steps: Sequence[TextStep]) -> str:
    """Write what whoever reads without peftune does to a text first, as a function."""
    lines = [f"    text = {line}" for step in steps for line in _CODE[step]]
    note = f"It learned from texts that were cleaned: {', '.join(f'`{step}`' for step in steps)}. peftune does so with every text; without it, do so first:"
    code = [*_IMPORTS, "", "", "def clean(text):", *lines, "    return text"]
    if "strip-html" in steps:
        code.insert(len(_IMPORTS), _HTML_IMPORT)
    return "\n".join([note, "", "```python", *code, "```"])


def _with_transformers(preparation: Preparation, *, is_merged: bool) -> str:
    folder, before = _FOLDER, _PLAIN
    if not is_merged:
        given = _given_base(preparation.base.name, preparation.base.revision)
        folder = "merged"
        before = _MERGED.format(folder=_FOLDER, base_option=f" --base {given}" if given else "")
    if not preparation.task_type.has_head:
        return before + _CONTINUE.format(folder=folder)
    return before + _CLASSIFY.format(
        folder=folder,
        options=_OPTIONS.get(preparation.task, ""),
        max_length=preparation.max_length,
    )
