"""The baseline `linear_probe`: a classification head fitted to the frozen trunk of the base."""

from __future__ import annotations

from torch import nn

from peftune.data.rows import Rows
from peftune.data.task import Task
from peftune.models.inference import predict_logits
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.rescale import fit_head, with_head
from peftune.recipe import Recipe
from peftune.strategies import HeadOnly


def linear_probe_predictions(model: nn.Module, train: Rows, judged: Rows) -> list[int]:
    """Fit a logistic regression to what the head reads of train, and classify the rows.

    The head reads the last token's state after the last layer norm. What `head-only` reaches in
    many steps is found here at its optimum, so it is what the pre-trained features alone are worth.

    Args:
        model: a prepared model whose trunk is the base; it is as it was afterwards.
        train: the only rows that are fitted.
        judged: rows to classify.

    Raises:
        UsageError: a label has no rows in train.

    References:
        Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes,
        arXiv:1610.01644.
    """
    preparation = preparation_of(model)
    head = fit_head(model, train.texts, train.labels)
    with with_head(model, head):
        logits = predict_logits(
            model, preparation.tokenizer, judged.texts, max_length=preparation.max_length
        )
    return [int(label) for label in logits.argmax(-1)]


def frozen_base(recipe: Recipe, task: Task) -> nn.Module:
    """Load the base in float32 with a head to fit; its trunk is frozen, so it stays the base."""
    return prepare_model(
        recipe.model.name_or_path,
        HeadOnly(),
        labels=task.labels,
        revision=recipe.model.revision,
        max_length=recipe.model.max_length,
        use_cpu=recipe.training.use_cpu,
    )
