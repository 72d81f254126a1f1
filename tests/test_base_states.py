"""The states in which a base lies on people's disks: read as plain transformers reads it, or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import peftune
from peftune.bundled import MODELS, bundled_folder
from peftune.cli.main import _exit_code
from peftune.errors import BaseModelError
from peftune.forgetting.scorer import LanguageModelScorer
from peftune.models.architecture import backbone_of
from peftune.models.base_files import find_base
from peftune.models.loading import load_backbone

LABELS = ("bad", "so-so", "good")
TEXTS = ["What a lovely day it was.", "no", "The soup was cold, and the waiter colder."]
TOKENS = 8192
MEND = "Mend config.json if it is the one that is wrong, or save the whole model again with save_pretrained."
SAVE_TOKENIZER = "Save the base's tokenizer there with save_pretrained."
SAVE_OWN = "Save the base's own tokenizer there with save_pretrained."


@dataclass
class Draft:
    """A base before it is written, as GPT-2 lies on the hub: no prefix, masks, and no pad token."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    files: dict[str, str]
    shards: int = 1
    drop: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write it, in as many files of weights as it has shards."""
        folder.mkdir(parents=True)
        names = sorted(self.tensors)
        parts = [names[start :: self.shards] for start in range(self.shards)]
        places: dict[str, str] = {}
        for index, part in enumerate(parts, start=1):
            file = "model.safetensors"
            if self.shards > 1:
                file = f"model-{index:05}-of-{self.shards:05}.safetensors"
            tensors = {name: self.tensors[name].contiguous().clone() for name in part}
            save_file(tensors, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(part, file)
        if self.shards > 1:
            index_file = {"metadata": {}, "weight_map": places}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
        for name, content in {"config.json": json.dumps(self.config), **self.files}.items():
            (folder / name).write_text(content, encoding="utf-8")
        for name in self.drop:
            (folder / name).unlink()
        return folder


State = Callable[[Draft], None]


@pytest.fixture(scope="module")
def published() -> Draft:
    """Draft a GPT-2 of two blocks with biases, norms and outlier channels that are not trivial."""
    bundled = bundled_folder(MODELS[0], among=MODELS)
    tokenizer = json.loads((bundled / "tokenizer.json").read_text(encoding="utf-8"))
    shape: dict[str, Any] = {
        "vocab_size": TOKENS,
        "n_positions": 64,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.2))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(".bias"):
                    weight.normal_(0, 0.15)
                elif ".ln_" in name:
                    weight.normal_(1, 0.25)
            model.transformer.wte.weight[:, 3] *= 8
    tensors = dict(model.transformer.state_dict())
    for block in range(2):
        tensors[f"h.{block}.attn.bias"] = torch.tril(torch.ones(64, 64)).view(1, 1, 64, 64)
    merges = "\n".join(
        one if isinstance(one, str) else " ".join(one) for one in tokenizer["model"]["merges"]
    )
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_ctx": 64,
        **shape,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.02,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "activation_function": "gelu_new",
    }
    files = {
        "vocab.json": json.dumps(tokenizer["model"]["vocab"]),
        "merges.txt": f"#version: 0.2\n{merges}\n",
        "tokenizer.json": json.dumps(tokenizer),
    }
    return Draft(tensors, config, files)


def _draft(published: Draft, state: State) -> Draft:
    draft = Draft(dict(published.tensors), dict(published.config), dict(published.files))
    state(draft)
    return draft


def _stored_as(kind: torch.dtype) -> State:
    def state(draft: Draft) -> None:
        draft.tensors = {name: weight.to(kind) for name, weight in draft.tensors.items()}
        draft.config["torch_dtype"] = str(kind).removeprefix("torch.")

    return state


def _configured(**values: object) -> State:
    return lambda draft: draft.config.update(values)


def _tokenizer_config(**values: object) -> State:
    return lambda draft: draft.files.update({"tokenizer_config.json": json.dumps(values)})


def _file(name: str, content: str | None = None) -> State:
    """Leave a file out, or give it another content."""

    def state(draft: Draft) -> None:
        draft.files.pop(name, None)
        if content is not None:
            draft.files[name] = content

    return state


def _both(*states: State) -> State:
    def state(draft: Draft) -> None:
        for one in states:
            one(draft)

    return state


def _sharded(draft: Draft) -> None:
    draft.shards = 3


def _shard_missing(draft: Draft) -> None:
    _sharded(draft)
    draft.drop = ["model-00002-of-00003.safetensors"]


def _prefixed(draft: Draft) -> None:
    draft.tensors = {f"transformer.{name}": weight for name, weight in draft.tensors.items()}


def _old_masks(draft: Draft) -> None:
    draft.tensors |= {f"h.{block}.attn.masked_bias": torch.tensor(-1e4) for block in range(2)}


def _without_masks(draft: Draft) -> None:
    for block in range(2):
        del draft.tensors[f"h.{block}.attn.bias"]


def _rows(count: int) -> State:
    """Give the embedding other rows than the tokenizer has tokens, and say so in the configuration."""

    def state(draft: Draft) -> None:
        generator = torch.Generator().manual_seed(1)
        rows = torch.randn(count, 16, generator=generator) * 0.2
        kept = min(count, TOKENS)
        rows[:kept] = draft.tensors["wte.weight"][:kept]
        draft.tensors["wte.weight"] = rows
        draft.config["vocab_size"] = count

    return state


def _added(draft: Draft) -> None:
    """Add two tokens to the tokenizer, as `add_tokens` and `save_pretrained` do."""
    tokenizer = json.loads(draft.files["tokenizer.json"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"] += [
        {"id": TOKENS + index, "content": word, **flags}
        for index, word in enumerate(("soup", "lovely"))
    ]
    draft.files["tokenizer.json"] = json.dumps(tokenizer)


def _padding_kept(draft: Draft) -> None:
    """Leave in tokenizer.json what it was last asked for: padding on the left, cut at four tokens."""
    tokenizer = json.loads(draft.files["tokenizer.json"])
    tokenizer["padding"] = {
        "strategy": {"Fixed": 30},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    tokenizer["truncation"] = {
        "direction": "Left",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    draft.files["tokenizer.json"] = json.dumps(tokenizer)


def _with_head(scale: float) -> State:
    """Store a language-model head beside the embedding."""

    def state(draft: Draft) -> None:
        _prefixed(draft)
        draft.tensors["lm_head.weight"] = draft.tensors["transformer.wte.weight"] * scale

    return state


def _of_a_classifier(draft: Draft) -> None:
    _prefixed(draft)
    draft.tensors["score.weight"] = torch.randn(5, 16)
    draft.config |= {
        "architectures": ["GPT2ForSequenceClassification"],
        "pad_token_id": 0,
        "problem_type": "multi_label_classification",
        "use_cache": False,
        "id2label": {str(index): f"l{index}" for index in range(5)},
        "label2id": {f"l{index}": index for index in range(5)},
    }


def _planted(name: str, value: float) -> State:
    def state(draft: Draft) -> None:
        draft.tensors[name] = draft.tensors[name].clone()
        draft.tensors[name].view(-1)[7] = value

    return state


def _without(name: str) -> State:
    def state(draft: Draft) -> None:
        del draft.tensors[name]

    return state


def _with(name: str, weight: torch.Tensor) -> State:
    return lambda draft: draft.tensors.update({name: weight})


def _merges_cut(draft: Draft) -> None:
    draft.files["merges.txt"] = "\n".join(draft.files["merges.txt"].splitlines()[:300])
    del draft.files["tokenizer.json"]


def _tokenizer_of_years_ago(draft: Draft) -> None:
    """No `model.type` and no `use_regex`, merges as strings, an added token that is normalized."""
    parts = json.loads(draft.files["tokenizer.json"])
    parts["model"].pop("type", None)
    merges = parts["model"]["merges"]
    parts["model"]["merges"] = [one if isinstance(one, str) else " ".join(one) for one in merges]
    for part in ("pre_tokenizer", "decoder", "post_processor"):
        (parts[part] or {}).pop("use_regex", None)
    for token in parts["added_tokens"]:
        token["normalized"] = True
    draft.files["tokenizer.json"] = json.dumps(parts)


SOUND: dict[str, State] = {
    "as published": lambda _: None,
    "float16": _stored_as(torch.float16),
    "bfloat16": _stored_as(torch.bfloat16),
    "float64": _stored_as(torch.float64),
    "sharded": _sharded,
    "prefixed": _prefixed,
    "masks of old versions": _old_masks,
    "no masks": _without_masks,
    "padded vocabulary": _rows(TOKENS + 64),
    "tokens added and resized": _both(_added, _rows(TOKENS + 2)),
    "end token as pad token": _both(
        _configured(pad_token_id=0),
        _tokenizer_config(pad_token="<|endoftext|>"),  # noqa: S106 - no password
    ),
    "pad token of its own and resized": _both(
        _tokenizer_config(pad_token="[PAD]"),  # noqa: S106 - no password
        _configured(pad_token_id=TOKENS),
        _rows(TOKENS + 1),
    ),
    "pad id out of range in the configuration": _configured(pad_token_id=10**6),
    "tied entry": _configured(tie_word_embeddings=True),
    "tied entry and a head": _both(_with_head(1.0), _configured(tie_word_embeddings=True)),
    "untied entry and an equal head": _both(
        _with_head(1.0), _configured(tie_word_embeddings=False)
    ),
    "tokenizer that pads on the left": _tokenizer_config(
        padding_side="left",
        truncation_side="left",
        pad_token="<|endoftext|>",  # noqa: S106 - no password
    ),
    "tokenizer.json with padding and truncation": _padding_kept,
    "classifier": _of_a_classifier,
    "vocab.json and merges.txt": _file("tokenizer.json"),
    "tokenizer.json": _both(_file("vocab.json"), _file("merges.txt")),
    "index of other files beside the one that holds all": _file(
        "model.safetensors.index.json", '{"weight_map": {"wte.weight": "gone.safetensors"}}'
    ),
    "n_inner that is four times n_embd": _configured(n_inner=64),
    "keys of years ago": _configured(
        _num_labels=2,
        num_labels=2,
        pruned_heads={},
        torchscript=False,
        task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}},
        output_past=True,
        finetuning_task=None,
        gradient_checkpointing=False,
        id2label={"0": "LABEL_0", "1": "LABEL_1"},
        label2id={"LABEL_0": 0, "LABEL_1": 1},
    ),
    "an unknown key that is only data": _configured(run={"epochs": 3, "notes": ["a", None]}),
    "tokenizer.json of years ago": _tokenizer_of_years_ago,
    "chat settings": _tokenizer_config(
        chat_template="{% for message in messages %}{{ message.content }}{% endfor %}",
        tokenizer_class="GPT2Tokenizer",
        name_or_path="gpt2",
        model_max_length=1024,
    ),
    "special tokens in a file of their own": _both(
        _file("special_tokens_map.json", '{"eos_token": "<|endoftext|>"}'),
        _file("added_tokens.json", '{"<|endoftext|>": 0}'),
    ),
}

_LACKS = "The base 'base' lacks the tensor "
_HOLDS = "The base 'base' holds the tensor "
_TOKENIZER = "The tokenizer in '{folder}' "
_UNUSABLE = "'{folder}' holds no usable tokenizer "
_BEYOND = f"and the base's embedding has {TOKENS} rows, for ids 0 to {TOKENS - 1}. If tokens were added, call model.resize_token_embeddings(len(tokenizer)) and save the model again; otherwise save the base's own tokenizer there."
_NO_VALUES = ", where a trained GPT-2 stays below 100. The file is damaged, or its training diverged: fetch it again or use another base."

UNSOUND: dict[str, tuple[State, str]] = {
    "vocab_size": (
        _configured(vocab_size=8000),
        f"{_HOLDS}'wte.weight' of shape [8192, 16], and its config.json asks for [8000, 16]. {MEND}",
    ),
    "n_positions": (
        _configured(n_positions=128),
        f"{_HOLDS}'wpe.weight' of shape [64, 16], and its config.json asks for [128, 16]. {MEND}",
    ),
    "n_embd": (
        _configured(n_embd=32),
        f"{_HOLDS}'wte.weight' of shape [8192, 16], and its config.json asks for [8192, 32]. {MEND}",
    ),
    "n_inner": (
        _configured(n_inner=32),
        f"{_HOLDS}'h.0.mlp.c_fc.weight' of shape [16, 64], and its config.json asks for [16, 32]. {MEND}",
    ),
    "fewer blocks": (
        _configured(n_layer=1),
        f"{_HOLDS}'h.1.attn.c_attn.bias' and 11 more, for which its config.json has no place. {MEND}",
    ),
    "more blocks": (
        _configured(n_layer=3),
        f"{_LACKS}'h.2.ln_1.weight' and 11 more, which its config.json asks for. {MEND}",
    ),
    "width that its heads do not divide": (
        _configured(n_head=3),
        f"The config.json of 'base' makes no GPT-2: `embed_dim` must be divisible by num_heads (got `embed_dim`: 16 and `num_heads`: 3). {MEND}",
    ),
    "missing tensor": (
        _without("h.1.mlp.c_proj.bias"),
        f"{_LACKS}'h.1.mlp.c_proj.bias', which its config.json asks for. {MEND}",
    ),
    "missing embedding": (
        _both(_with_head(1.0), _without("transformer.wte.weight")),
        f"{_LACKS}'wte.weight', which its config.json asks for. {MEND}",
    ),
    "unexpected tensor": (
        _both(_prefixed, _with("v_head.summary.weight", torch.ones(1, 16))),
        f"{_HOLDS}'v_head.summary.weight', for which its config.json has no place. {MEND}",
    ),
    "weight twice": (
        _with("transformer.ln_f.bias", torch.zeros(16)),
        "The base 'base' holds the weight 'ln_f.bias' twice: as 'ln_f.bias' in model.safetensors and as 'transformer.ln_f.bias' in model.safetensors. Save it again with save_pretrained.",
    ),
    "integers": (
        _with("h.0.mlp.c_fc.weight", torch.ones(16, 64, dtype=torch.int8)),
        f"{_HOLDS}'h.0.mlp.c_fc.weight' as I8; peftune reads BF16, F16, F32, F64. Save the model unquantized.",
    ),
    "head of its own": (
        _both(_with_head(1.5), _configured(tie_word_embeddings=False)),
        "The base 'base' has a language-model head 'lm_head.weight' that differs from its embedding 'transformer.wte.weight'. peftune measures forgetting with the tied head of GPT-2; use a base whose head is tied.",
    ),
    "untied entry without a head": (
        _configured(tie_word_embeddings=False),
        "The config.json of 'base' says 'tie_word_embeddings: false', and its files hold no lm_head.weight: transformers would make up a random language-model head. Remove the key if the head is the embedding, as in GPT-2, or add the head.",
    ),
    "NaN": (
        _planted("h.1.attn.c_attn.weight", float("nan")),
        f"The base 'base' holds values that are not finite (NaN or inf) in the tensor 'h.1.attn.c_attn.weight'{_NO_VALUES}",
    ),
    "infinity": (
        _planted("ln_f.bias", float("-inf")),
        f"The base 'base' holds values that are not finite (NaN or inf) in the tensor 'ln_f.bias'{_NO_VALUES}",
    ),
    "1e30": (
        _planted("wte.weight", -1e30),
        f"The base 'base' holds -1e+30 in the tensor 'wte.weight'{_NO_VALUES}",
    ),
    "shard missing": (
        _shard_missing,
        "'{folder}' lacks model-00002-of-00003.safetensors, which model.safetensors.index.json names. Fetch or copy every file of its weights.",
    ),
    "damaged index": (
        _both(_sharded, _file("model.safetensors.index.json", '{"weight_map": {}}')),
        "'{folder}/model.safetensors.index.json' names no files of weights in its own folder, so it is damaged; save the model again with save_pretrained.",
    ),
    "index that leaves the folder": (
        _both(
            _sharded,
            _file(
                "model.safetensors.index.json",
                '{"weight_map": {"wte.weight": "../a.safetensors"}}',
            ),
        ),
        "'{folder}/model.safetensors.index.json' names no files of weights in its own folder, so it is damaged; save the model again with save_pretrained.",
    ),
    "weights cut short": (
        _file("model.safetensors", "cut"),
        "The weights of the base 'base' cannot be read: 'model.safetensors' is not a readable safetensors file: it ends within its header. They are damaged or cut short: fetch or save them again.",
    ),
    "configuration that is not a configuration": (
        _configured(n_embd="wide"),
        "The config.json of 'base' has n_embd: 'wide', which must be a whole number from 1 to 16384. Mend it, or save the model again with save_pretrained.",
    ),
    "other weights by the configuration": (
        _configured(transformers_weights="other.safetensors"),
        "The config.json of 'base' has the key 'transformers_weights', which makes transformers load other code or other weights than its files. Remove it, or save the model again with save_pretrained.",
    ),
    "no tokenizer": (
        _both(_file("vocab.json"), _file("merges.txt"), _file("tokenizer.json")),
        f"'{{folder}}' holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt. {SAVE_TOKENIZER}",
    ),
    "no tokenizer but its settings": (
        _both(
            *(_file("vocab.json"), _file("merges.txt"), _file("tokenizer.json")),
            _tokenizer_config(tokenizer_class="GPT2Tokenizer"),
        ),
        f"'{{folder}}' holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt. {SAVE_TOKENIZER}",
    ),
    "no merges.txt": (
        _both(_file("merges.txt"), _file("tokenizer.json")),
        f"{_UNUSABLE}(ValueError: `vocab` and `merges` must be both be from memory or both filenames). {SAVE_TOKENIZER}",
    ),
    "no vocab.json": (
        _both(_file("vocab.json"), _file("tokenizer.json")),
        f"'{{folder}}' holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt. {SAVE_TOKENIZER}",
    ),
    "merges.txt cut short": (
        _merges_cut,
        f"{_TOKENIZER}splits most of its own tokens, such as ' other', so its merges are missing or incomplete. {SAVE_TOKENIZER}",
    ),
    "vocabulary of the end token alone": (
        _both(
            _file("vocab.json", '{"<|endoftext|>": 0}'),
            _file("merges.txt", ""),
            _file("tokenizer.json"),
        ),
        f"{_TOKENIZER}reads 'The quick brown fox jumps over the lazy dog, 123 times.' as 1 times the token '<|endoftext|>', so its vocabulary is missing or incomplete. {SAVE_TOKENIZER}",
    ),
    "damaged tokenizer.json": (
        _file("tokenizer.json", '{"version": '),
        f"'{{folder}}/tokenizer.json' is not valid JSON: Expecting value: line 1 column 13 (char 12). {SAVE_OWN}",
    ),
    "damaged tokenizer_config.json": (
        _file("tokenizer_config.json", "{oops"),
        f"'{{folder}}/tokenizer_config.json' is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1). {SAVE_OWN}",
    ),
    "tokens added and not resized": (
        _added,
        f"{_TOKENIZER}has the token 'soup' with id 8192 and 1 more, {_BEYOND}",
    ),
    "pad token added and not resized": (
        _tokenizer_config(pad_token="[PAD]"),  # noqa: S106 - no password
        f"{_TOKENIZER}has the token '[PAD]' with id 8192, {_BEYOND}",
    ),
    "end token that the vocabulary lacks": (
        _tokenizer_config(eos_token="</s>"),  # noqa: S106 - no password
        f"{_TOKENIZER}has the token '</s>' with id 8192, {_BEYOND}",
    ),
    "no end token": (
        _both(
            *(_file("vocab.json"), _file("merges.txt")),
            _tokenizer_config(tokenizer_class="PreTrainedTokenizerFast"),
        ),
        f"{_TOKENIZER}has no end token, which GPT-2 needs; save the base's own tokenizer there.",
    ),
    "fewer rows than tokens": (
        _rows(4000),
        f"{_TOKENIZER}has the token {{first}} with id 4000 and 4191 more, and the base's embedding has 4000 rows, for ids 0 to 3999. If tokens were added, call model.resize_token_embeddings(len(tokenizer)) and save the model again; otherwise save the base's own tokenizer there.",
    ),
}


@pytest.mark.parametrize("state", SOUND.values(), ids=SOUND)
def test_a_sound_base_computes_what_plain_transformers_computes(
    state: State, published: Draft, tmp_path: Path
) -> None:
    """States of the backbone and nats of texts agree to 1e-5, whatever file holds the weights."""
    folder = _draft(published, state).write(tmp_path / "base")
    model, tokenizer = peftune.prepare(
        str(folder), strategy=peftune.Full(), labels=LABELS, use_cpu=True, max_length=32
    )
    plain = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    head = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    reader = AutoTokenizer.from_pretrained(folder)
    reader.padding_side = reader.truncation_side = "right"

    scored = LanguageModelScorer(
        load_backbone(find_base(str(folder)), torch.device("cpu")), tokenizer
    )
    nats = scored.score_text(TEXTS).nats
    for text, found in zip(TEXTS, nats, strict=True):
        ids = reader(text, padding=False, truncation=False)["input_ids"]
        assert tokenizer(text)["input_ids"] == ids
        with torch.inference_mode():
            expected = plain(torch.tensor([ids])).last_hidden_state
            actual = backbone_of(model.eval())(torch.tensor([ids])).last_hidden_state
            inputs = torch.tensor([[0, *ids]])
            loss = head(inputs, labels=inputs).loss * len(ids)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
        assert found == pytest.approx(float(loss), rel=1e-5)
    assert (tokenizer.padding_side, tokenizer.pad_token_id) == ("right", 0)


@pytest.mark.skipif(os.name != "posix", reason="links need no permission there")
def test_a_base_of_links_is_read_where_the_user_names_it(published: Draft, tmp_path: Path) -> None:
    """As the cache of the hub holds it: every file a link to one that lies elsewhere."""
    folder = published.write(tmp_path / "base")
    linked = tmp_path / "snapshots" / "commit"
    linked.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = tmp_path / f"blob-{number}"
        path.rename(blob)
        (linked / path.name).symlink_to(f"../../{blob.name}")

    model, tokenizer = peftune.prepare(
        str(linked), strategy=peftune.Full(), labels=LABELS, use_cpu=True, max_length=32
    )

    assert model.num_labels == len(LABELS)
    assert len(tokenizer) == TOKENS


@pytest.mark.parametrize(("state", "message"), UNSOUND.values(), ids=UNSOUND)
def test_a_base_that_is_not_what_it_says_is_refused_in_one_line(
    state: State, message: str, published: Draft, tmp_path: Path
) -> None:
    """Nothing is made up, nothing is left out: the line names the tensor, the token or the file."""
    folder = _draft(published, state).write(tmp_path / "base")
    vocabulary = {
        index: token for token, index in json.loads(published.files["vocab.json"]).items()
    }

    with pytest.raises(BaseModelError) as caught:
        peftune.prepare(
            str(folder), strategy=peftune.Full(), labels=LABELS, use_cpu=True, max_length=32
        )

    assert str(caught.value) == message.format(folder=folder, first=repr(vocabulary.get(4000)))


@pytest.fixture(scope="module")
def sound(published: Draft, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a sound base, and an adapter that was made on it."""
    folder = published.write(tmp_path_factory.mktemp("sound") / "base")
    model, _ = peftune.prepare(
        str(folder), strategy=peftune.LoRA(r=2), labels=LABELS, use_cpu=True, max_length=32
    )
    return folder, peftune.save(model, folder.parent / "adapter")


def test_a_base_in_a_local_folder_is_found_again_without_being_named(
    sound: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """`prepare` remembered where it lies, so `predict` does not ask; the artifact holds no path."""
    base, adapter = sound

    assert peftune.load(adapter, use_cpu=True).labels == LABELS
    assert _exit_code(["predict", str(adapter), "--text", "a day"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "a day"
    assert str(base.parent) not in (adapter / "peftune.json").read_text()


REFUSED_BY_EVERY_VERB = (
    "vocab_size",
    "missing tensor",
    "NaN",
    "head of its own",
    "no tokenizer",
    "tokens added and not resized",
)


@pytest.mark.costly
@pytest.mark.parametrize("name", REFUSED_BY_EVERY_VERB)
def test_every_way_in_refuses_it_before_anything_is_computed(
    name: str,
    published: Draft,
    sound: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 3 and the line; `run` and `compare` leave no folder behind."""
    state, message = UNSOUND[name]
    folder = _draft(published, state).write(tmp_path / "base")
    line = message.format(folder=folder)
    base, adapter = sound
    output = tmp_path / "out"
    recipe = ["quickstart", f"model.name_or_path={folder}", "model.max_length=32"]
    commands = [
        ["run", *recipe, "--output", str(output)],
        ["compare", *recipe, "--strategies", "lora,head-only", "--output", str(output)],
        ["check", *recipe],
        ["forget", str(base), "--base", str(folder)],
        ["predict", str(adapter), "--base", str(folder), "--text", "a day"],
    ]
    if (
        "token" not in name
    ):  # a checkpoint's own tokenizer is not asked for: its base reads the text
        commands.append(["forget", str(folder), "--base", str(base)])
    for arguments in commands:
        assert _exit_code(arguments) == 3, arguments
        shown = capsys.readouterr()
        assert line in shown.err, arguments
        assert "Traceback" not in shown.err
        assert shown.out == ""
        assert not output.exists()
