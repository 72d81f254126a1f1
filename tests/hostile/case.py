"""One case of the corpus: what is damaged, how, and which base the load is given."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

MANIFEST = "peftune.json"
WEIGHTS = "adapter_model.safetensors"
MODEL_WEIGHTS = "model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
DIGEST = "sha256"

Artifact = Literal["lora", "head-only", "lora-8bit", "full", "plain"]
"""Which good artifact is damaged; `plain` is a PEFT adapter without a manifest."""

FILES: dict[Artifact, tuple[str, ...]] = {
    "lora": (CARD, CONFIG, WEIGHTS, MANIFEST),
    "head-only": (CARD, WEIGHTS, MANIFEST),
    "lora-8bit": (CARD, CONFIG, WEIGHTS, MANIFEST),
    "full": (
        CARD,
        "config.json",
        MODEL_WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        MANIFEST,
    ),
    "plain": (CONFIG, WEIGHTS),
}
"""What `peftune.save` writes for each; a test holds it against the good artifacts."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A copy of a good artifact that an attacker edits.

    Args:
        folder: the copy; it is what will be loaded.
        outside: the good artifact: the same bytes, where a load must not reach them.
        true_base: the base that it belongs to.
        marker: a file that any executed payload writes.
    """

    folder: Path
    outside: Path
    true_base: Path
    marker: Path

    @classmethod
    def of(cls, good: Path, true_base: Path, workplace: Path) -> Draft:
        """Copy a good artifact into an empty folder."""
        shutil.copytree(good, workplace / "adapter")
        return cls(workplace / "adapter", good, true_base, workplace / "executed")

    @property
    def weights(self) -> str:
        """The file that holds the tensors."""
        return MODEL_WEIGHTS if (self.folder / MODEL_WEIGHTS).is_file() else WEIGHTS

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Replace or add a file, without any hash."""
        (self.folder / name).write_bytes(content)

    def values(self, name: str) -> dict[str, Any]:
        """Parse a JSON file of the artifact."""
        values: dict[str, Any] = json.loads(self.read(name))
        return values

    def manifest(self) -> dict[str, Any]:
        """Return the manifest's values, without its seal."""
        values = self.values(MANIFEST)
        values.pop(DIGEST)
        return values

    def write_manifest(self, values: Mapping[str, Any], *, sealed: bool = True) -> None:
        """Write a manifest as peftune would; `sealed` with the hash that fits it."""
        seal = digest_of(values) if sealed else self.values(MANIFEST)[DIGEST]
        self.write(
            MANIFEST, manifest_text({**values, DIGEST: seal}).encode("utf-8", "surrogatepass")
        )

    def edit(self, *, sealed: bool = True, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Replace values of the manifest."""
        self.write_manifest({**self.manifest(), **values}, sealed=sealed)

    def edit_json(self, name: str, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Replace values of a JSON file, written as transformers and peft write theirs."""
        self.write_json(name, {**self.values(name), **values})

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file as transformers and peft write theirs, and hash it."""
        ending = "\n" if self.read(name).endswith(b"\n") else ""
        text = json.dumps(values, indent=2, sort_keys=True) + ending
        self.forge(name, text.encode())

    def forge(self, name: str, content: bytes) -> None:
        """Replace or add a file, and let the manifest list it with the hash that fits."""
        self.write(name, content)
        self.rehash(name)

    def rehash(self, *names: str) -> None:
        """Bring the manifest's hashes of files up to date; of an artifact that has a manifest."""
        if not (self.folder / MANIFEST).exists():
            return
        files = self.manifest()["files"]
        self.edit(files={**files, **{name: sha256_of(self.read(name)) for name in names}})


def sha256_of(content: bytes) -> str:
    """Hash bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_of(values: Mapping[str, Any]) -> str:
    """Compute a manifest's seal as anyone can who knows the format."""
    return sha256_of(json.dumps(values, sort_keys=True).encode())


def manifest_text(values: Mapping[str, Any]) -> str:
    """Lay a manifest out as peftune does."""
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


Damage = Callable[[Draft], object]


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile artifact.

    Args:
        name: what is wrong with it, unique; the id of its test.
        artifact: which good artifact it was.
        damage: edits the copy.
        base: which base the load is given; see `hostile.good`. None gives none, so that only the
            name in the artifact could lead to one.
        unsealed: whether the hashes give it away: bit rot, or an attacker who forgot them.
    """

    name: str
    artifact: Artifact
    damage: Damage
    base: str | None = "own"
    unsealed: bool = False


def cases(
    artifact: Artifact,
    damages: Mapping[str, Damage],
    *,
    base: str | None = "own",
    unsealed: bool = False,
) -> Iterator[Case]:
    """Name several damages of one artifact; a whole model is loaded without a base."""
    given = None if artifact == "full" else base
    for name, damage in damages.items():
        yield Case(f"{artifact}: {name}", artifact, damage, base=given, unsealed=unsealed)


def edits(**values: Any) -> Damage:  # noqa: ANN401 - JSON values
    """Replace values of the manifest, and seal it again."""
    return lambda draft: draft.edit(**values)


def in_json(name: str, **values: Any) -> Damage:  # noqa: ANN401 - JSON values
    """Replace values of a JSON file, and hash it again."""
    return lambda draft: draft.edit_json(name, **values)


def forges(name: str, content: bytes) -> Damage:
    """Replace or add a file, and list it with its hash."""
    return lambda draft: draft.forge(name, content)


def inside(part: str, **values: Any) -> Damage:  # noqa: ANN401 - JSON values
    """Replace values within one part of the manifest, and seal it again."""
    return with_part(part, lambda found: {**found, **values})


def with_part(part: str, change: Callable[[Any], object]) -> Damage:
    """Change one part of the manifest, and seal it again."""

    def damage(draft: Draft) -> None:
        changed: dict[str, Any] = {part: change(draft.manifest()[part])}
        draft.edit(**changed)

    return damage
