"""A corpus of hostile and damaged artifacts: named cases, and a process that tries to load them."""

from hostile.adapter_configs import CONFIG_CASES
from hostile.case import Case
from hostile.checkpoints import CHECKPOINT_CASES
from hostile.files import FILE_CASES
from hostile.in_place import IN_PLACE_CASES
from hostile.layouts import LAYOUT_CASES
from hostile.manifests import MANIFEST_CASES
from hostile.other_bases import BASE_CASES
from hostile.other_tensors import OTHER_TENSOR_CASES
from hostile.plain import PLAIN_CASES
from hostile.reference_logits import REFERENCE_LOGITS_CASES
from hostile.strategies import STRATEGY_CASES
from hostile.tensors import TENSOR_CASES

CASES: tuple[Case, ...] = (
    *IN_PLACE_CASES,
    *FILE_CASES,
    *LAYOUT_CASES,
    *MANIFEST_CASES,
    *REFERENCE_LOGITS_CASES,
    *STRATEGY_CASES,
    *CONFIG_CASES,
    *TENSOR_CASES,
    *OTHER_TENSOR_CASES,
    *CHECKPOINT_CASES,
    *BASE_CASES,
    *PLAIN_CASES,
)
"""Every way to damage a good artifact that must not load."""

__all__ = ["CASES", "Case"]
