"""What is noted while any contender trains: seconds of each step, losses, gradients, memory by part."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.memory import gradient_bytes, optimizer_bytes, weight_bytes


class StepClock(TrainerCallback):
    """Take the time between the ends of optimizer steps, reading the rows included.

    Evaluations are left out: the clock goes on when one has ended.

    Attributes:
        seconds: of each optimizer step, in order.
        parts: bytes of weights, gradients and optimizer state after the first step.
        scores: at each evaluation the step, the training seconds before it, and the accuracy.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.parts: dict[str, int] = {}
        self.scores: list[dict[str, float]] = []
        self._mark = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - Trainer's signature
        """Start the clock."""
        self._mark = _now()

    def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:  # noqa: ANN401
        """Count the gradients while they are there."""
        if "gradients" not in self.parts:
            self.parts["gradients"] = gradient_bytes(given["model"])

    def on_step_end(self, *_: Any, **given: Any) -> None:  # noqa: ANN401
        """Take the time of the step."""
        now = _now()
        self.seconds.append(now - self._mark)
        if "weights" not in self.parts:
            self.parts["weights"] = weight_bytes(given["model"])
            self.parts["optimizer"] = optimizer_bytes(given["optimizer"])
        self._mark = _now()

    def on_evaluate(self, *args: Any, **given: Any) -> None:  # noqa: ANN401
        """Note the score, and start the clock again."""
        metrics, state = given["metrics"], args[1]
        if "eval_accuracy" in metrics:
            self.scores.append(
                {
                    "step": state.global_step,
                    "seconds": sum(self.seconds),
                    "accuracy": float(metrics["eval_accuracy"]),
                }
            )
        self._mark = _now()


class FirstStep(TrainerCallback):
    """Keep the loss and the gradients of the first optimizer step, by name of the weight.

    Attributes:
        loss: nats, mean over the rows of the step; None before the step.
        gradients: float32, on the CPU.
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:  # noqa: ANN401
        """Copy the gradients before the optimizer may touch them."""
        if not self.gradients:
            self.gradients = {
                name: weight.grad.detach().float().cpu().clone()
                for name, weight in given["model"].named_parameters()
                if weight.grad is not None
            }

    def on_log(self, *_: Any, **given: Any) -> None:  # noqa: ANN401
        """Keep the first loss that is logged."""
        if self.loss is None and "loss" in given["logs"]:
            self.loss = float(given["logs"]["loss"])


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
