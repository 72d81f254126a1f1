"""The part of a model card that says how to use the artifact, with peftune and without."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.bundled import is_bundled
from peftune.models.source import BaseSource
from peftune.recipe.task import TaskName, has_head

_FOLDER = "PATH/TO/THIS/FOLDER"
_BASE = "PATH/TO/THE/BASE"

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

tokenizer = AutoTokenizer.from_pretrained("{base}")
tokenizer.pad_token = tokenizer.eos_token
base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={count}, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32)
model = PeftModel.from_pretrained(base, "{folder}").eval()
# ids to labels: {labels}
```"""

_MERGED = """With plain transformers, once it is merged into its base:

```sh
peftune adapter merge {folder} --output merged
```

"""

_WITH_TRANSFORMERS = """```python
from transformers import pipeline

pipeline("{pipeline}", "{folder}"{options})({text})
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

tokenizer = AutoTokenizer.from_pretrained("{base}")
base = AutoModelForCausalLM.from_pretrained("{base}", dtype=torch.float32)
model = PeftModel.from_pretrained(base, "{folder}").eval()
```"""

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
    if is_bundled(base):
        return f'peftune.load("{artifact}")'
    return f'peftune.load("{artifact}", base="{base if revision else _BASE}")'


def ways_to_use(
    *, kind: str, is_peft: bool, base: BaseSource, task_name: TaskName, labels: Sequence[str]
) -> str:
    """Write how an artifact is used.

    Args:
        kind: `adapter` or `model`.
        is_peft: whether plain PEFT can load it.
        base: which base it belongs to.
        task_name: the kind of task.
        labels: label names in the order of their ids.
    """
    named = base.hub_id or _BASE
    if has_head(task_name):
        load = load_line(_FOLDER, base=base.name, revision=base.revision)
        ways = [_WITH_PEFTUNE.format(load=load)]
        with_peft = _WITH_PEFT.format(
            base=named, count=len(labels), folder=_FOLDER, labels=dict(enumerate(labels))
        )
    else:
        start = base.name if is_bundled(base.name) else named
        ways = [_START.format(base=start, folder=_FOLDER)]
        with_peft = _LANGUAGE_MODEL_WITH_PEFT.format(base=named, folder=_FOLDER)
    if is_peft:
        ways.append(with_peft)
    ways.append(_with_transformers(is_merged=kind == "model", task_name=task_name))
    return "\n\n".join(ways)


def _with_transformers(*, is_merged: bool, task_name: TaskName) -> str:
    before = _PLAIN if is_merged else _MERGED.format(folder=_FOLDER)
    return before + _WITH_TRANSFORMERS.format(
        pipeline="text-classification" if has_head(task_name) else "text-generation",
        folder=_FOLDER if is_merged else "merged",
        options=_OPTIONS.get(task_name, ""),
        text='["what a lovely day"]' if has_head(task_name) else '"What a"',
    )
