"""Plain PEFT adapters, made elsewhere and without a manifest, that must not load either."""

from __future__ import annotations

from hostile.adapter_configs import CHANGED, RAW, edited
from hostile.case import CONFIG, WEIGHTS, Case, Damage, Draft, cases
from hostile.headers import HEADER_DAMAGES
from hostile.payloads import torch_archive
from hostile.tensors import NAME_DAMAGES, PLAIN_DAMAGES


def _pickle_instead(draft: Draft) -> None:
    (draft.folder / WEIGHTS).unlink()
    draft.write("adapter_model.bin", torch_archive(draft.marker))


def _without(name: str) -> Damage:
    return lambda draft: (draft.folder / name).unlink()


_HEADERS = {
    name: damage
    for name, damage in HEADER_DAMAGES.items()
    if name != "two tensors that exchange their places"  # nothing says which is which
}

PLAIN_CASES: tuple[Case, ...] = (
    *cases("plain", {**edited(CHANGED), **RAW, **NAME_DAMAGES, **PLAIN_DAMAGES, **_HEADERS}),
    *cases(
        "plain",
        {
            "a torch archive instead of the tensors": _pickle_instead,
            "no tensors": _without(WEIGHTS),
            "no configuration": _without(CONFIG),
        },
    ),
    *cases(
        "plain",
        {"a base that is shallower": lambda _: None},
        base="shallower",
    ),
    *cases("plain", {"no base is named": lambda _: None}, base=None),
)
