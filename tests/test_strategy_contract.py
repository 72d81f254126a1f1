"""Every registered strategy keeps the contract that plug-ins are held to."""

from __future__ import annotations

from typing import Any

from peftune.strategies import STRATEGIES, LoRA
from peftune.testing import StrategyContract

# Int8 looks for outlier columns over the whole batch unless its threshold is 0.
FIELDS: dict[str, dict[str, Any]] = {"lora-8bit": {"llm_int8_threshold": 0.0}}


def _contract_of(name: str) -> type[StrategyContract]:
    chosen = STRATEGIES.get(name)
    strategy = chosen(**FIELDS.get(name, {}))
    return type(f"Test{chosen.__name__}", (StrategyContract,), {"strategy": strategy})


# One class a registered strategy, so that a new one is held to the contract without a word here.
for _contract in map(_contract_of, STRATEGIES.names()):
    globals()[_contract.__name__] = _contract


class TestDoRA(StrategyContract):
    """LoRA with every field off its default.

    DoRA keeps its magnitudes under names of their own, and they are not factors of an update.
    """

    strategy = LoRA(
        r=4,
        lora_alpha=6.5,
        lora_dropout=0.25,
        target_modules=("c_attn", "c_fc"),
        use_rslora=True,
        use_dora=True,
    )


def test_every_registered_strategy_has_its_class() -> None:
    """No strategy escapes: each registered one is checked above."""
    checked = {
        contract.strategy.name
        for contract in globals().values()
        if isinstance(contract, type)
        and issubclass(contract, StrategyContract)
        and contract is not StrategyContract
    }

    assert checked >= {"full", "head-only", "lora", "lora-8bit"}
    assert checked == set(STRATEGIES.names())
