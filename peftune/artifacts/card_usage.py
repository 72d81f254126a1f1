"""The part of a model card that says how to use the artifact, with peftune and without."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.models.source import BaseSource
from peftune.recipe.task import TaskName, has_head

_WITH_PEFTUNE = """```python
import peftune

classifier = peftune.load("{folder}"{base_argument})
classifier.predict(["what a lovely day"])
```"""

_WITH_PEFT = """```python
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{base}")
tokenizer.pad_token = tokenizer.eos_token
base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={count}, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32)
model = PeftModel.from_pretrained(base, "{folder}").eval()
# ids to labels: {labels}
```"""

_WITH_TRANSFORMERS = """```python
from transformers import pipeline

pipeline("text-classification", "{folder}")(["what a lovely day"])
```"""

_START = """As the start of a run of peftune, which puts a new head on it:

```yaml
model:
  name_or_path: {base}
  init_from: {folder}
```"""

_LANGUAGE_MODEL_WITH_PEFT = """```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{base}")
base = AutoModelForCausalLM.from_pretrained("{base}", dtype=torch.float32)
model = PeftModel.from_pretrained(base, "{folder}").eval()
```"""

_LANGUAGE_MODEL_WITH_TRANSFORMERS = """```python
from transformers import pipeline

pipeline("text-generation", "{folder}")("What a")
```"""

_FOLDER = "PATH/TO/THIS/FOLDER"


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
    named = base.hub_id or "PATH/TO/THE/BASE"
    if not has_head(task_name):
        ways = [_START.format(base=base.name, folder=_FOLDER)]
        with_peft = _LANGUAGE_MODEL_WITH_PEFT.format(base=named, folder=_FOLDER)
        with_transformers = _LANGUAGE_MODEL_WITH_TRANSFORMERS
    else:
        base_argument = f', base="{base.name}"' if base.kind == "folder" else ""
        ways = [_WITH_PEFTUNE.format(folder=_FOLDER, base_argument=base_argument)]
        with_peft = _WITH_PEFT.format(
            base=named, count=len(labels), folder=_FOLDER, labels=dict(enumerate(labels))
        )
        with_transformers = _WITH_TRANSFORMERS
    if is_peft:
        ways.append(f"With plain PEFT:\n\n{with_peft}")
    if kind == "model":
        ways.append(f"With plain transformers:\n\n{with_transformers.format(folder=_FOLDER)}")
    return "\n\n".join(ways)
