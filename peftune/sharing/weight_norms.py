"""How far an artifact's trunk is from its base, weight by weight, where the base is at hand."""

from __future__ import annotations

import gc
from pathlib import Path

from peftune.artifacts.foreign import load_foreign_adapter
from peftune.artifacts.load import load_prepared
from peftune.artifacts.opened import Opened
from peftune.artifacts.own_base import base_of, folder_beside
from peftune.errors import ArtifactError, BaseModelError, GuardError, UsageError
from peftune.models.base import choose_device
from peftune.models.effective import effective_trunk
from peftune.models.fingerprint import trunk_weights
from peftune.models.parts import trunk_of
from peftune.models.prepare import preparation_of
from peftune.models.weight_changes import WeightChange, weight_changes
from peftune.sharing.raw import RawArtifact

Norms = tuple[tuple[WeightChange, ...] | None, str | None]
"""The weights that changed; or None, and why nothing is known of them."""


def weight_norms(raw: RawArtifact, *, base: str | None, use_cpu: bool) -> Norms:
    """Compare an artifact's trunk with its base, both in float32.

    Args:
        raw: the artifact.
        base: where the base lies; otherwise it is looked up on this machine.
        use_cpu: stay on the CPU even where there is a GPU.

    Raises:
        ArtifactError: the artifact does not fit the base that is given.
        BaseModelError: the base that is given cannot be found.
    """
    if raw.opened is None:
        return _of_plain(raw, base=base, use_cpu=use_cpu)
    try:
        base_of(raw.opened, base)
    except BaseModelError:
        if base is not None or folder_beside(raw.opened) is not None:
            raise
        return None, f"the base '{raw.opened.manifest.base.name}' is not on this machine"
    return _of_artifact(raw.opened, base=base, use_cpu=use_cpu)


def _of_artifact(opened: Opened, *, base: str | None, use_cpu: bool) -> Norms:
    if not opened.strategy.trains_trunk:
        return (), None
    model = load_prepared(opened, base=base, use_cpu=use_cpu, in_float32=True)
    source, config = preparation_of(model).base, trunk_of(model).config
    try:
        weights = effective_trunk(model)
    except (UsageError, GuardError) as error:
        return None, str(error)
    del model
    gc.collect()  # modules refer to each other
    return weight_changes(weights, trunk_weights(source.folder), config), None


def _of_plain(raw: RawArtifact, *, base: str | None, use_cpu: bool) -> Norms:
    try:
        model, source = load_foreign_adapter(raw.folder, base, choose_device(use_cpu=use_cpu))
    except (ArtifactError, BaseModelError) as error:
        if base is not None:
            raise
        return None, str(error)
    config = trunk_of(model).config
    trunk = trunk_of(model.merge_and_unload(safe_merge=True))
    weights = {name: weight.detach().cpu() for name, weight in trunk.named_parameters()}
    return weight_changes(weights, trunk_weights(Path(source.folder)), config), None
