"""Shapes of GPT-2: the recipe's own base by its `config.json`, and the four that are published."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import skip_init
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerBase

from peftune.bundled import MODELS, bundled_folder, is_bundled
from peftune.errors import BaseModelError, UsageError, suggestion
from peftune.fastpath.mapped_memory import mapped_files
from peftune.models.architecture import backbone_of
from peftune.models.base_files import BaseSource, check_config, find_base
from peftune.models.loading import load_classifier
from peftune.recipe.task_type import TaskName, has_head
from peftune.strategies import Strategy

OWN = "own"
_PUBLISHED = {
    "small": (12, 768, 12),
    "medium": (24, 1024, 16),
    "large": (36, 1280, 20),
    "xl": (48, 1600, 25),
}
SIZES = (OWN, *_PUBLISHED)
"""What `--sizes` takes: the recipe's own base, and GPT-2 as it was published."""

_DESCRIPTION = [
    "config.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
]
_COUNTS = {
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
"""Numbers of a configuration that make a shape, with what transformers takes where one is missing."""

_FEW_HEADS = 4
"""Heads of a shape on which passes are measured: what they need grows with the number of heads."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A GPT-2 without its weights.

    Args:
        size: one of `SIZES`.
        name: what it is called in tables.
        config: what its `config.json` says.
    """

    size: str
    name: str
    config: Mapping[str, Any]

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return self._count("n_layer")

    @property
    def width(self) -> int:
        """How wide its hidden states are."""
        return self._count("n_embd")

    @property
    def heads(self) -> int:
        """How many heads attention has."""
        return self._count("n_head")

    @property
    def inner(self) -> int:
        """How wide the hidden states inside an MLP are."""
        return int(self.config.get("n_inner") or 4 * self.width)

    @property
    def positions(self) -> int:
        """How many tokens a text may have."""
        return self._count("n_positions")

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._count("vocab_size")

    @property
    def stored_type(self) -> torch.dtype:
        """In which type the checkpoint holds its weights, as far as the configuration tells."""
        name = self.config.get("dtype") or self.config.get("torch_dtype") or "float32"
        found: torch.dtype = getattr(torch, str(name).removeprefix("torch."), torch.float32)
        return found

    def narrowed(self) -> Shape:
        """Return the same shape with a few of its heads, and with so much of its width."""
        heads = min(self.heads, _FEW_HEADS)
        size = {"n_head": heads, "n_embd": self.width * heads // self.heads}
        if self.config.get("n_inner"):
            size["n_inner"] = max(1, self.inner * heads // self.heads)
        return Shape(self.size, self.name, {**self.config, **size})

    @property
    def alike(self) -> str:
        """What shapes have in common that differ in depth alone."""
        return json.dumps({**self.config, "n_layer": None}, sort_keys=True)

    def _count(self, key: str) -> int:
        return int(self.config.get(key, _COUNTS[key]))


def describe_base(name_or_path: str, revision: str | None = None) -> BaseSource:
    """Find a base's configuration and tokenizer; its weights are not fetched and not read.

    Raises:
        BaseModelError: there is no such model, or it is no GPT-2.
    """
    folder = Path(name_or_path).expanduser()
    if is_bundled(name_or_path):
        found = bundled_folder(name_or_path, among=MODELS)
        source = BaseSource(name_or_path, None, found, "bundled")
    elif folder.is_dir():
        source = BaseSource(folder.resolve().name, None, folder.resolve(), "folder")
    elif name_or_path.startswith((".", "/", "~")):
        return find_base(name_or_path)  # which says that there is none
    else:
        source = _described_by_hub(name_or_path, revision)
    check_config(source)
    return source


def _described_by_hub(name: str, revision: str | None) -> BaseSource:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_DESCRIPTION))
    except Exception as error:
        message = (
            f"The base model '{name}' is no local folder and its config.json could not be fetched from the hub "
            f"({type(error).__name__}). Check the name and the connection, or use a local folder or bundled:tiny-gpt2."
        )
        raise BaseModelError(message) from error
    return BaseSource(name, folder.name, folder, "hub")


def shapes_of(source: BaseSource, sizes: tuple[str, ...]) -> list[Shape]:
    """Return the shapes that are asked for, in the order of `SIZES`.

    Args:
        source: the recipe's base.
        sizes: of `SIZES`.

    Raises:
        BaseModelError: the base's configuration makes no GPT-2.
        UsageError: a size that is none.
    """
    for size in sizes:
        if size not in SIZES:
            message = f"Unknown size '{size}'. {suggestion(size, SIZES)}"
            raise UsageError(message)
    found = [Shape(OWN, source.name, _checked(source))]
    for size, (blocks, width, heads) in _PUBLISHED.items():
        config = {"n_layer": blocks, "n_embd": width, "n_head": heads}
        found.append(Shape(size, f"GPT-2 {size}", config))
    return [shape for shape in found if shape.size in sizes]


def _checked(source: BaseSource) -> dict[str, Any]:
    config = check_config(source)
    values = {key: config.get(key, usual) for key, usual in _COUNTS.items()}
    for key, value in values.items():
        if type(value) is not int or value < 1:
            message = f"The config.json of '{source.name}' has {key}: {value!r}, which must be a whole number above 0."
            raise BaseModelError(message)
    if values["n_embd"] % values["n_head"]:
        message = f"The config.json of '{source.name}' divides a width of {values['n_embd']} among {values['n_head']} heads, which leaves a rest."
        raise BaseModelError(message)
    return config


@dataclass(frozen=True, slots=True)
class Sample:
    """Blocks that stand for all: the first, the last, and one of each kind between, in their order.

    Args:
        blocks: those.
        pairs: for each kind that there are more of: the blocks with a second one of it.
        more: for each of these kinds, how many more than one there are.
        pattern: the same of models that differ only in width and in `more`.
    """

    blocks: Sequence[nn.Module]
    pairs: Sequence[Sequence[nn.Module]]
    more: Sequence[int]
    pattern: Hashable


def sample_of(model: nn.Module) -> Sample:
    """Choose blocks by what learns in them, and by whether a gradient goes on below them."""
    backbone: Any = backbone_of(model)
    blocks: list[nn.Module] = list(backbone.h)
    embeddings = (*backbone.wte.parameters(), *backbone.wpe.parameters())
    below = any(weight.requires_grad for weight in embeddings)
    kinds: list[Hashable] = []
    places: dict[Hashable, list[int]] = {}
    for place, block in enumerate(blocks):
        learns = tuple((name, weight.requires_grad) for name, weight in block.named_parameters())
        kinds.append((learns, below))
        if 0 < place < len(blocks) - 1:
            places.setdefault(kinds[-1], []).append(place)
        below = below or any(of_weight for _, of_weight in learns)
    once = sorted({0, len(blocks) - 1} | {of_kind[0] for of_kind in places.values()})
    several = [of_kind for of_kind in places.values() if len(of_kind) > 1]
    return Sample(
        blocks=[blocks[place] for place in once],
        pairs=[[blocks[place] for place in sorted([*once, of_kind[1]])] for of_kind in several],
        more=[len(of_kind) - 1 for of_kind in several],
        pattern=(*(kinds[place] for place in once), *(kinds[of_kind[0]] for of_kind in several)),
    )


@contextlib.contextmanager
def only_blocks(model: nn.Module, blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Let a backbone consist of some blocks inside."""
    backbone: Any = backbone_of(model)
    own = backbone.h
    backbone.h = nn.ModuleList(blocks)
    try:
        yield
    finally:
        backbone.h = own


_VOCABULARY = 256
"""Tokens of the block's checkpoint: an embedding is a table, whose size changes no computation."""

_TILE = 2**20
_PLACEHOLDERS = ("0", "1")


@dataclass(frozen=True, slots=True)
class Hollow:
    """A prepared classifier of a shape whose blocks share the memory of one.

    Args:
        model: in train mode.
        folder: of the block's checkpoint.
    """

    model: nn.Module
    folder: Path


@contextlib.contextmanager
def one_block(shape: Shape) -> Iterator[BaseSource]:
    """Write a random checkpoint of one block of a shape, in the type of the base's own, for a while."""
    folder = Path(tempfile.mkdtemp(prefix="peftune-plan-"))
    try:
        special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
        size = {"n_layer": 1, "vocab_size": _VOCABULARY, "architectures": None}
        config = GPT2Config.from_dict({**shape.config, **special, **size})
        config.save_pretrained(folder)
        with torch.device("meta"):
            empty = GPT2ForSequenceClassification(config)
        weights = {
            name: _noise(weight.shape).to(shape.stored_type)
            for name, weight in empty.transformer.state_dict(prefix="transformer.").items()
        }
        file = folder / "model.safetensors"
        safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
        yield BaseSource(shape.name, None, folder, "folder")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _noise(size: torch.Size) -> torch.Tensor:
    """Repeat some random numbers: no result of a computation with them is read."""
    count = size.numel()
    tile = torch.empty(min(count, _TILE)).normal_(0.0, 0.02)
    return tile.repeat(-(-count // len(tile)))[:count].view(size)


def prepare_hollow(
    shape: Shape,
    block: BaseSource,
    strategy: Strategy,
    *,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    task: TaskName,
    device: torch.device,
    checkpointing: bool = False,
) -> Hollow:
    """Load the block as the strategy loads a base, repeat it, and let the strategy choose what learns.

    Args:
        shape: what the model is to be.
        block: from `one_block`.
        strategy: which weights learn.
        tokenizer: of the recipe's base.
        labels: label names in the order of their ids.
        task: what is learned.
        device: where.
        checkpointing: recompute activations in the backward pass.

    Raises:
        PeftuneError: the strategy cannot be put on this shape.
    """
    classifies = has_head(task)
    model = load_classifier(
        block,
        tokenizer,
        strategy=strategy,
        labels=labels if classifies else _PLACEHOLDERS,
        device=device,
        seed=0,
        task=task if classifies else "single-label",
    )
    backbone: Any = model.transformer
    backbone.h.extend(_twin(backbone.h[0], index) for index in range(1, shape.blocks))
    kind = backbone.wte.weight.dtype
    backbone.wte = skip_init(nn.Embedding, 1, shape.width, dtype=kind, device=device)
    # Memory that nobody writes to is not there: a table of all tokens costs nothing.
    backbone.wte.weight.data = torch.empty(
        shape.vocabulary, shape.width, dtype=kind, device=device
    )
    backbone.wte.weight.data[:_VOCABULARY].zero_()
    backbone.wte.num_embeddings = shape.vocabulary
    model.config.n_layer, model.config.vocab_size = shape.blocks, shape.vocabulary
    model.config.pad_token_id = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        prepared = strategy.prepare(model)
    if not classifies:
        model.score.requires_grad_(False)
    if checkpointing:
        _checkpoint(model)
    return Hollow(prepared.train(), block.folder)


def _checkpoint(model: Any) -> None:  # noqa: ANN401 - both names of one method, of a transformers model
    """Switch the recomputing of activations on, as Trainer does; transformers 5.23 renamed it."""
    own = getattr(model, "activation_checkpointing_enable", None)
    (own or model.gradient_checkpointing_enable)({"use_reentrant": False})


def _twin(block: nn.Module, index: int) -> nn.Module:
    """Copy a block's modules, with weights of their own that share its memory."""
    shared: dict[int, torch.Tensor] = {
        id(weight): _sharing(weight) for weight in block.parameters()
    }
    shared.update({id(buffer): buffer for buffer in block.buffers()})
    twin: Any = copy.deepcopy(block, shared)
    twin.attn.layer_idx = index
    copied: nn.Module = twin
    return copied


def _sharing(weight: nn.Parameter) -> nn.Parameter:
    twin: Any = torch.Tensor._make_subclass(  # noqa: SLF001 - as nn.Parameter makes its own
        type(weight), weight.data, weight.requires_grad
    )
    twin.__dict__.update(weight.__dict__)
    found: nn.Parameter = twin
    return found


def mapped_weights(module: nn.Module, folder: Path) -> set[int]:
    """Return the ids of the weights that lie in a file of a folder, mapped into memory."""
    files = [file for file in mapped_files() if file.path.startswith(f"{folder}/")]
    return {
        id(weight) for weight in module.parameters() if any(file.holds(weight) for file in files)
    }
