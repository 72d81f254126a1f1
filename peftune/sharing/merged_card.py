"""The model card of a merged checkpoint: what it was made of, and how close it is to that."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from peftune.artifacts.card_usage import how_to_clean
from peftune.artifacts.manifest import Manifest
from peftune.artifacts.opened import Opened
from peftune.errors import printable
from peftune.escaping import markdown_code, markdown_text
from peftune.sharing.merged import Merged

_CLASSIFY = """```python
from transformers import pipeline

classify = pipeline("text-classification", "PATH/TO/THIS/FOLDER")
classify(["what a lovely day"], truncation=True, max_length={max_length})
```"""

_CONTINUE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH/TO/THIS/FOLDER")
tokenizer = AutoTokenizer.from_pretrained("PATH/TO/THIS/FOLDER")
```"""


def merged_card(opened: Opened, merged: Merged) -> str:
    """Write the card.

    Args:
        opened: the artifact that was merged.
        merged: the checkpoint.
    """
    manifest, name = opened.manifest, opened.manifest.base.name
    strategy = str(manifest.strategy["name"])
    front = ModelCardData(
        base_model=printable(name) if manifest.base.revision is not None else None,
        library_name="transformers",
        pipeline_tag="text-generation" if merged.lm else "text-classification",
        tags=["peftune", strategy, "merged"],
    )
    use = _CONTINUE if merged.lm else _CLASSIFY.format(max_length=manifest.max_length)
    if manifest.clean and not merged.lm:
        use = f"{how_to_clean(manifest.clean)}\n\n{use}"
    return "\n".join(
        [
            "---",
            str(front.to_yaml()).strip(),
            "---",
            "",
            f"# {markdown_text(f'{strategy} on {name}')}, merged",
            "",
            f"{_what(manifest, lm=merged.lm)}. A plain transformers checkpoint in {merged.dtype}, merged with [peftune](https://pypi.org/project/peftune/)",
            f"out of the base {markdown_code(name)} and the artifact whose `peftune.json` has the `sha256`",
            f"`{opened.seal}`. What that scored and what it forgot stands in its own card.",
            "",
            "## Checked",
            "",
            *_checked(merged, len(manifest.behaviour.texts)),
            "",
            "## Use",
            "",
            use,
            "",
        ]
    )


def _what(manifest: Manifest, *, lm: bool) -> str:
    if lm:
        return "A language model: the trunk of a fine-tuned GPT-2 with its own, tied output head, so that any language-model evaluation can measure it"
    noun = "regression" if manifest.task_name == "regression" else "classifier"
    labels = list(map(markdown_text, manifest.labels))
    what = f"A {noun} of {', '.join(labels)}"
    if manifest.label_thresholds is None:
        return what
    limits = zip(labels, manifest.label_thresholds, strict=True)
    return f"{what}, where a label is said from a probability on: {', '.join(f'{label} {limit:.3g}' for label, limit in limits)}"


def _checked(merged: Merged, texts: int) -> list[str]:
    unit = "of a token's log-probability, in nats" if merged.lm else "of a logit"
    lines = [
        f"Over {texts} texts the largest difference {unit} from the artifact in float32 is {merged.difference.largest:.2e}",
        f"(allowed: {merged.allowed:.2e}).",
    ]
    if merged.difference.label_flips is not None:
        flips = round(merged.difference.label_flips * texts)
        lines.append(f"Of these texts {flips} have another label than there.")
    return lines
