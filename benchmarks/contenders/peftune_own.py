"""P: peftune, through what it offers everyone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback

import peftune
from benchmarks.contenders.int8 import no_int8
from benchmarks.contenders.setup import ALPHA, RANK, TARGET, Classify, Contender, Session, Setup
from benchmarks.rows import LABELS, MAX_LENGTH, Row, read_rows
from peftune.data.rows import Rows
from peftune.data.task_data import Task
from peftune.recipe.training import TrainingSection
from peftune.training.train import train

_TRUNK_DROPOUT = "trunk_dropout"
_NEVER = 10**9


class Peftune(Contender):
    """Prepare, train, save and load with peftune's defaults.

    Args:
        strategies: what this variant is measured on.
        bf16: whether bfloat16 is computed in; None leaves the choice to peftune.
        trunk_dropout: False switches the base's own dropout off, which is on by default.
    """

    def __init__(
        self, *, strategies: tuple[str, ...], bf16: bool | None = None, trunk_dropout: bool = True
    ) -> None:
        self.strategies = strategies
        self._bf16 = bf16
        self._trunk_dropout = trunk_dropout

    def absent(self, strategy: str) -> str | None:
        """Say that an option or a library is missing."""
        if not self._trunk_dropout and _TRUNK_DROPOUT not in TrainingSection.model_fields:
            return f"this version has no option training.{_TRUNK_DROPOUT}"
        return no_int8() if strategy == "lora-8bit" else None

    def build(self, setup: Setup) -> Session:
        """Prepare the base for the strategy."""
        options: dict[str, object] = {}
        if self._bf16 is not None:
            options["bf16"] = self._bf16
        if not self._trunk_dropout:
            options[_TRUNK_DROPOUT] = False
        return _PeftuneSession(setup, options)


class _PeftuneSession(Session):
    def __init__(self, setup: Setup, options: dict[str, object]) -> None:
        self._setup = setup
        self._section = _section(setup, options)
        self.model, _ = peftune.prepare(
            setup.base,
            strategy=_strategy(setup),
            labels=LABELS,
            max_length=MAX_LENGTH,
            seed=setup.seed,
            use_cpu=setup.device == "cpu",
        )
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")

    def train(self, callbacks: Sequence[TrainerCallback]) -> None:
        setup = self._setup
        learned = read_rows(setup.rows, setup.count)
        scored = read_rows(setup.validation) if setup.validation else learned[:1]
        train(
            self.model,
            Task(LABELS, _rows(learned), _rows(scored), None, {}),
            self._section,
            checkpoints=Path(self._folder.name) / "checkpoints",
            run_identity="benchmark",
            keep_checkpoints=False,
            callbacks=callbacks,
        )

    def classifier(self) -> Classify:
        folder = Path(self._folder.name) / "artifact"
        self.save(folder)
        classifier = peftune.load(
            folder, base=self._setup.base, use_cpu=self._setup.device == "cpu"
        )

        def classify(texts: Sequence[str]) -> list[int]:
            return [LABELS.index(str(found.label)) for found in classifier.predict(texts)]

        return classify

    def save(self, folder: Path) -> None:
        peftune.save(self.model, folder)


def _strategy(setup: Setup) -> peftune.strategies.Strategy:
    if setup.strategy == "full":
        return peftune.Full()
    kind = {"lora": peftune.LoRA, "lora-8bit": peftune.LoRA8bit}[setup.strategy]
    return kind(
        r=RANK, lora_alpha=ALPHA, lora_dropout=setup.adapter_dropout, target_modules=(TARGET,)
    )


def _section(setup: Setup, options: dict[str, object]) -> TrainingSection:
    return TrainingSection.model_validate(
        {
            "max_steps": setup.steps,
            "per_device_train_batch_size": setup.batch,
            "learning_rate": setup.learning_rate,
            "weight_decay": 0.0,
            "max_grad_norm": setup.max_grad_norm,
            "eval_strategy": "steps",
            "eval_steps": setup.eval_every or _NEVER,
            "metric_for_best_model": "accuracy",
            "use_cpu": setup.device == "cpu",
            "seed": setup.seed,
            **({"logging_steps": 1} if setup.log_every_step else {}),
            **options,
        }
    )


def _rows(rows: Sequence[Row]) -> Rows:
    return Rows(
        [str(place) for place in range(len(rows))],
        [row.text for row in rows],
        tuple(row.label for row in rows),
    )
