"""Hostile and damaged artifacts: each is refused in one line, soon, and nothing else happens.

The attacker of these cases knows the format: hashes and digest fit, wherever that is possible.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import CASES, Case
from hostile.attacked_bases import BESIDE_DAMAGES, DAMAGES, BaseDamage, put_beside
from hostile.case import FILES, MANIFEST, Artifact, Draft
from hostile.good import LABELS, Good, write_good
from hostile.loader import Loader, Verdict, loader_in
from hostile.payloads import numpy_objects, pickled, python_source, torch_archive
from hostile.raw_safetensors import packed, unpacked

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's count of a process's memory is read"
)

MOST_SECONDS = 10.0
"""Of work of the processor, whatever else runs beside it: what hangs or blows up takes minutes."""
MOST_MEGABYTES = 200.0
LONGEST_LINE = 1000
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    """Write the good artifacts and the bases."""
    return write_good(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    """Give a process that loads."""
    with loader_in(tmp_path_factory.mktemp("loader")) as one:
        yield one


@pytest.fixture(scope="module")
def before(good: Good, loader: Loader) -> dict[Artifact, str]:
    """Load every good artifact, and keep it loaded: digests of what it classifies."""
    verdicts = {name: _ask(loader, good, name, path, "remembered") for name, path in _all(good)}
    assert {verdict.outcome for verdict in verdicts.values()} == {"loaded"}, verdicts
    return {name: verdict.message for name, verdict in verdicts.items()}


@pytest.fixture(scope="module")
def hashes(good: Good) -> dict[Path, str]:
    """Hash every file of the bases and of the good artifacts."""
    return _hashes(good)


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that does not outlive the test: some cases are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def _all(good: Good) -> list[tuple[Artifact, Path]]:
    return list(good.artifacts.items())


def _hashes(good: Good) -> dict[Path, str]:
    folders = [*good.artifacts.values(), *good.bases.values()]
    files = [path for folder in folders for path in folder.rglob("*")]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _ask(
    loader: Loader, good: Good, artifact: Artifact, folder: Path, door: str = "load"
) -> Verdict:
    """Load a good artifact, or a copy of one that says the same, as it should be loaded."""
    return loader.ask(
        folder,
        base=None if artifact == "full" else good.bases["own"],
        door=door,
        labels=LABELS if artifact == "plain" else None,
    )


def _try(
    case: Case,
    good: Good,
    loader: Loader,
    workplace: Path,
    *,
    door: str = "load",
    without: tuple[str, ...] = (),
) -> tuple[Verdict, Draft]:
    """Damage a copy of a good artifact, and let the process load it."""
    draft = Draft.of(good.artifacts[case.artifact], good.bases["own"], workplace)
    case.damage(draft)
    verdict = loader.ask(
        draft.folder,
        base=None if case.base is None else good.bases[case.base],
        door=door,
        allowed=(workplace / "base",),  # where a run folder has it
        labels=LABELS if case.artifact == "plain" else None,
        without=without,
    )
    return verdict, draft


def _faults(verdict: Verdict) -> list[str]:
    """Say in which ways a verdict is not a refusal as it should be."""
    line = verdict.message
    checks = {
        f"{verdict.outcome}: {line[:300]!r}": verdict.outcome == "refused",
        f"not one line to print: {line[:300]!r}": line.isprintable() and line.strip() == line,
        f"a line of {len(line)} characters": 20 < len(line) <= LONGEST_LINE,
        "no sentence": line.endswith((".", "?")),
        f"{verdict.seconds:.2f} seconds": verdict.seconds <= MOST_SECONDS,
        f"{verdict.megabytes:.0f} megabytes": verdict.megabytes <= MOST_MEGABYTES,
        f"it did {verdict.events}": not verdict.events,
    }
    return [fault for fault, holds in checks.items() if not holds]


# The corpus


def test_the_corpus_is_large_and_every_case_has_a_name_of_its_own() -> None:
    """At least two hundred kinds x files over all kinds of artifacts."""
    assert len(CASES) >= 200
    assert max(Counter(case.name for case in CASES).values()) == 1
    assert {case.artifact for case in CASES} == set(FILES)


def test_the_corpus_knows_the_files_of_every_artifact(good: Good) -> None:
    """A file that an artifact gains is damaged too, or this fails."""
    found = {name: {path.name for path in folder.iterdir()} for name, folder in _all(good)}
    assert found == {name: set(files) for name, files in FILES.items()}


@pytest.mark.parametrize("artifact", [name for name in FILES if name != "plain"])
def test_an_artifact_whose_digest_the_attacker_made_anew_unchanged_loads(
    artifact: Artifact, good: Good, loader: Loader, workplace: Path, before: dict[Artifact, str]
) -> None:
    """The corpus can write what peftune writes, so no case is refused for a clumsy forgery."""
    draft = Draft.of(good.artifacts[artifact], good.bases["own"], workplace)

    draft.rehash(*(name for name in FILES[artifact] if name != MANIFEST))
    for name in FILES[artifact]:
        if name.endswith(".json") and name not in (MANIFEST, "tokenizer.json"):
            draft.edit_json(name)
    same = [draft.read(name) == (draft.outside / name).read_bytes() for name in FILES[artifact]]

    assert all(same)
    draft.forge(draft.weights, packed(unpacked(draft.read(draft.weights))))
    assert _ask(loader, good, artifact, draft.folder).message == before[artifact]


@pytest.mark.parametrize("payload", [pickled, torch_archive, numpy_objects, python_source])
def test_a_payload_leaves_its_mark_where_it_is_executed(payload: object, tmp_path: Path) -> None:
    """A mark that never appears would prove nothing."""
    marker = tmp_path / "executed"
    file = tmp_path / "payload"
    if payload is pickled:
        pickle.loads(pickled(marker))  # noqa: S301 - our own
    elif payload is torch_archive:
        file.write_bytes(torch_archive(marker))
        torch.load(file, weights_only=False)
    elif payload is numpy_objects:
        file.write_bytes(numpy_objects(marker))
        np.load(file, allow_pickle=True)
    else:
        subprocess.run([sys.executable, "-c", python_source(marker).decode()], check=True)

    assert marker.is_file()


# The laws


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_artifact_is_refused_in_one_line(
    case: Case, good: Good, loader: Loader, workplace: Path, before: dict[Artifact, str]
) -> None:
    """Within a second and 200 megabytes; nothing runs, is fetched, or is opened elsewhere."""
    assert before
    verdict, draft = _try(case, good, loader, workplace)

    assert _faults(verdict) == []
    assert not draft.marker.exists()
    forgotten = "its hash differs", "does not fit its hash"
    assert case.unfitting or not any(words in verdict.message for words in forgotten)


_DOORS = ("forget", "init_from", "rescale", "verify", "merge", "load_many")
_LOOKS = ("inspect", "diff")
_SAMPLE = (
    "lora: extra tensor transformer.ln_f.weight",
    "lora: NaN in score.weight",
    "lora: adapter_model.safetensors is a link out of the folder",
    "lora: peftune.json is a pipe",
    "lora: adapter_model.bin beside, listed",
    "lora: a torch archive instead of the tensors",
    "lora: r of a billion in the configuration",
    "lora: r 20000000",
    "lora: max_length 100",
    "lora: a manifest of deep brackets",
    "lora: labels in another order",
    "lora: a base of other weights",
    "lora: a base of another tokenizer",
    "head-only: extra tensor transformer.wte.weight",
    "lora-8bit: lora_alpha 32.0",
)


@pytest.mark.parametrize("door", _DOORS)
@pytest.mark.parametrize("name", _SAMPLE)
def test_every_public_door_refuses_what_load_refuses(
    name: str, door: str, good: Good, loader: Loader, workplace: Path
) -> None:
    """There is one reader, and no verb has a lenient one of its own."""
    verdict, draft = _try(BY_NAME[name], good, loader, workplace, door=door)

    assert [fault for fault in _faults(verdict) if "seconds" not in fault] == []
    assert not draft.marker.exists()
    assert {path.name for path in workplace.iterdir()} <= {"adapter", "beside"}


@pytest.mark.parametrize("door", _LOOKS)
@pytest.mark.parametrize("name", _SAMPLE)
def test_what_only_looks_at_an_artifact_comes_to_no_harm(
    name: str, door: str, good: Good, loader: Loader, workplace: Path
) -> None:
    """Without the base not every fault can be seen; what is not seen is not followed either."""
    verdict, draft = _try(BY_NAME[name], good, loader, workplace, door=door)

    if verdict.outcome == "loaded":  # it was looked at
        assert not verdict.events
        assert verdict.megabytes <= MOST_MEGABYTES
    else:
        assert [fault for fault in _faults(verdict) if "seconds" not in fault] == []
    assert not draft.marker.exists()


# Bases that an attacker wrote

_BESIDE = {**DAMAGES, **BESIDE_DAMAGES}
_ON_BASES = ("load", *_DOORS, "inspect", "predict", "evaluate", "diff_on_rows")
_DOORS_OF_BASES = {
    **{f"{door}, beside": (door, False) for door in _ON_BASES if door != "init_from"},
    **{f"{door}, named": (door, True) for door in _ON_BASES},
}
_BASE_SAMPLE = (
    "n_layer 100000",
    "config.json is a pipe",
    "an index that names a file of the system",
    "a normalizer that grows texts",
    "weights of ten gigabytes of holes",
)


def _attacked(
    damage: BaseDamage | None,
    good: Good,
    loader: Loader,
    workplace: Path,
    *,
    named: bool = False,
    door: str = "load",
) -> Verdict:
    """Let the process load a good artifact on a damaged base."""
    draft = Draft.of(good.artifacts["lora"], good.bases["own"], workplace)
    base = workplace / "base"
    if named:
        shutil.copytree(good.bases["own"], base)
    else:
        assert put_beside(draft) == base
    if damage is not None:
        damage(base)
    rows = draft.folder.parent / "rows.csv"
    rows.write_text("text,label\na day of rain,bad\n", encoding="utf-8")
    # A device is opened without waiting, to see that it is one.
    allowed = (base, Path("/dev/zero"), rows)
    return loader.ask(draft.folder, base=base if named else None, door=door, allowed=allowed)


def _faults_of_base(verdict: Verdict) -> list[str]:
    """A base that is only found to be another one was read without a guard."""
    by_chance = ["refused by its fingerprint"] if "fingerprint" in verdict.message else []
    return _faults(verdict) + by_chance


def test_a_sound_base_is_read_beside_an_artifact_and_where_it_is_named(
    good: Good, loader: Loader, tmp_path: Path, before: dict[Artifact, str]
) -> None:
    """So no case is refused for a clumsy forgery."""
    assert len(_BESIDE) >= 60
    assert len(DAMAGES) >= 40
    for named in (False, True):
        workplace = tmp_path / str(named)
        workplace.mkdir()
        found = _attacked(None, good, loader, workplace, named=named)
        assert (found.message, found.events) == (before["lora"], ())


@pytest.mark.costly
@pytest.mark.parametrize("name", _BESIDE)
def test_a_hostile_base_beside_an_artifact_is_refused_in_one_line(
    name: str, good: Good, loader: Loader, workplace: Path
) -> None:
    """Whoever made the artifact made it; nothing of its size is made, and nothing else is opened."""
    assert _faults_of_base(_attacked(_BESIDE[name], good, loader, workplace)) == []


@pytest.mark.parametrize("name", DAMAGES)
def test_a_hostile_base_that_the_user_names_is_refused_in_one_line(
    name: str, good: Good, loader: Loader, workplace: Path
) -> None:
    """A base that was sent to somebody is opened by its name."""
    verdict = _attacked(DAMAGES[name], good, loader, workplace, named=True)

    assert _faults_of_base(verdict) == []


@pytest.mark.parametrize("door", _DOORS_OF_BASES)
@pytest.mark.parametrize("name", _BASE_SAMPLE)
def test_every_public_door_refuses_a_hostile_base(
    name: str, door: str, good: Good, loader: Loader, workplace: Path
) -> None:
    """There is one reader of bases."""
    verb, named = _DOORS_OF_BASES[door]
    verdict = _attacked(DAMAGES[name], good, loader, workplace, named=named, door=verb)

    assert [fault for fault in _faults_of_base(verdict) if "seconds" not in fault] == []


# What comes through where a guard is off

_GUARDS = {
    "peftune.adapters.loading:check_reference_logits": "lora: LoRA twice as strong",
    "peftune.adapters.loading:check_peft_config": "lora: r of a billion in the configuration",
    "peftune.adapters.loading:check_length": "lora: max_length 100",
    "peftune.adapters.loading:_check_tokenizer": "lora: a tokenizer hash of another",
    "peftune.adapters.loading:_refuse_other_precision": "lora: a precision of int8, throughout",
    "peftune.adapters.manifest:_refuse_other_layout": "lora: a manifest on one line",
    "peftune.models.fingerprint:refuse_hidden": "lora: a base name with a line separator",
    "peftune.adapters.full_model:_refuse_unknown": "full: custom pipelines in config.json",
    "peftune.adapters.full_model:_refuse_other_strategy": "full: strategy lora",
    "peftune.adapters.tensors:check_header": "lora: extra tensor transformer.ln_f.weight",
    "peftune.files.safetensors_header:_refuse_padding": "lora: a megabyte of spaces behind the header",
    "peftune.files.strict_json:_refuse_depth": "lora: rather deep brackets in a value",
}


@pytest.mark.parametrize("guard", _GUARDS)
def test_a_case_comes_through_where_its_guard_is_off(
    guard: str, good: Good, loader: Loader, workplace: Path
) -> None:
    """Each guard refuses something that nothing else would, so the cases can fail."""
    without = (guard, *(("peftune.files.strict_json:refuse_hidden",) if "hidden" in guard else ()))
    verdict, _ = _try(BY_NAME[_GUARDS[guard]], good, loader, workplace, without=without)

    assert verdict.outcome in ("loaded", "raised"), verdict


@pytest.mark.slow
def test_the_process_sees_memory_hangs_and_deaths(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What the laws above are measured with."""
    with loader_in(tmp_path_factory.mktemp("control")) as control:

        def verdict(kind: str) -> Verdict:
            return control.ask(tmp_path, base=Path(kind), door="misbehave", patience=3)

        assert verdict("eats").megabytes > 290
        assert verdict("sleeps").outcome == "hung"
        assert verdict("dies") == Verdict("died", "exit code 7")  # another process by then


# Last of all


@pytest.mark.slow
def test_the_good_artifacts_load_after_all_of_them(
    good: Good, loader: Loader, before: dict[Artifact, str], hashes: dict[Path, str]
) -> None:
    """In the same process, with the same logits, as do those that were loaded before."""
    for name, path in _all(good):
        assert _ask(loader, good, name, path).message == before[name]
        assert _ask(loader, good, name, path, "remembered").message == before[name]
    assert _hashes(good) == hashes
    assert json.loads((good.bases["own"] / "config.json").read_bytes())["n_layer"] == 2
