"""Folders of full fine-tuning whose configuration or tokenizer was replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

from hostile.case import MODEL_WEIGHTS, Case, Damage, Draft, cases, forges, in_json
from hostile.payloads import EVIL_MODULE, python_source, torch_archive
from hostile.strategies import BOMB

_CONFIG = "config.json"
_TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_INDEX = "model.safetensors.index.json"

_AUTO_CLASSES = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
_CHANGED: dict[str, dict[str, Any]] = {
    "an auto_map": {"auto_map": dict.fromkeys(_AUTO_CLASSES, f"{EVIL_MODULE}.Model")},
    "an auto_map to another repository": {"auto_map": {"AutoModel": "evil/repo--model.Model"}},
    "a quantization_config": {
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}
    },
    "a quantization_config of another kind": {"quantization_config": {"quant_method": EVIL_MODULE}},
    "an attention of a repository": {"_attn_implementation_internal": "evil/kernels"},
    "an attention of a repository, in public": {"attn_implementation": "evil/kernels"},
    "an experts' implementation": {"_experts_implementation_internal": "evil/kernels"},
    "another architecture": {"architectures": ["GPT2LMHeadModel"]},
    "an evil architecture": {"architectures": [f"{EVIL_MODULE}.Model"]},
    **{f"model_type {name!r}": {"model_type": name} for name in ("llama", "bert", EVIL_MODULE, None, 3, "")},
    **{
        f"{key} {value!r}": {key: value}
        for key, values in {
            "n_layer": (10**6, 10**9, 3, 1, 0, -1, True, "2", 2.0, None),
            "vocab_size": (10**9, 258, 256, 0, -1, "257"),
            "n_embd": (10**6, 64, 0, -32, "32"),
            "n_positions": (10**9, 32, 0, -1),
            "n_head": (4, 0, -2, 10**9),
            "n_inner": (10**9, 64, -1),
            "activation_function": ("relu", "evil", "os.system", None),
            "layer_norm_epsilon": (1e9, 1e-3, -1.0, "1e-05"),
            "scale_attn_weights": (False,),
            "scale_attn_by_inverse_layer_idx": (True,),
            "pad_token_id": (1, None, -1, 10**9),
            "eos_token_id": ("0", True, -2, 10**12, [0]),
            "bos_token_id": ("0", True, -2, 10**12, [0], 1.0),
            "summary_type": ("evil", "", None, 1, ["last"]),
            "summary_activation": ("evil", 1, ["tanh"]),
            "summary_first_dropout": (2.0, -0.1, "0.1"),
            "summary_use_proj": ("yes", 1, None),
            "summary_proj_to_labels": ("yes", 0),
            "initializer_range": (1e308, -1.0, "0.02"),
            "embd_pdrop": (1.5, -0.1, "0.1", True),
            "attn_pdrop": (1.5, -0.1),
            "tie_word_embeddings": ("yes", 1, None),
            "reorder_and_upcast_attn": ("yes", 1),
            "problem_type": ("regression", "multi_label_classification", "evil", None),
            "dtype": ("float16", "bfloat16", "os.system", "int8"),
            "torch_dtype": ("float16",),
            "resid_pdrop": (2.0, float("nan")),
            "num_labels": (2, 10**9),
            "use_cache": ("evil",),
        }.items()
        for value in values
    },
    "labels in another order": {"id2label": {"0": "good", "1": "so-so", "2": "bad"}},
    "other labels": {"id2label": {"0": "a", "1": "b", "2": "c"}},
    "a label more": {"id2label": {"0": "bad", "1": "so-so", "2": "good", "3": "great"}},
    "a label fewer": {"id2label": {"0": "bad", "1": "so-so"}},
    "label ids in another order": {"label2id": {"good": 0, "so-so": 1, "bad": 2}},
    "a label that is a terminal escape": {"id2label": {"0": "bad", "1": "so-so", "2": "\x1b[2J"}},
    "an unknown key": {"loader": "os.system"},
    "a path": {"_name_or_path": "/etc"},
    "adapters of its own": {"_hf_peft_config_loaded": True},
    "custom pipelines": {"custom_pipelines": {"text-classification": {"impl": f"{EVIL_MODULE}.P"}}},
    "a chunked forward": {"chunk_size_feed_forward": 1},
    "another version of transformers": {"transformers_version": "\x1b[2J"},
    "cross attention": {"add_cross_attention": True},
    "a decoder's start": {"is_encoder_decoder": True},
}  # fmt: skip


def _raw(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda draft: draft.forge(name, change(draft.read(name)))


def _edit_tokenizer(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(draft: Draft) -> None:
        values = draft.values(_TOKENIZER)
        change(values)
        draft.forge(_TOKENIZER, json.dumps(values, indent=2, ensure_ascii=False).encode())

    return damage


def _part(**parts: object) -> Damage:
    return _edit_tokenizer(lambda values: values.update(parts))


def _other_vocabulary(values: dict[str, Any]) -> None:
    """Exchange two characters: what is read differs, what is computed does not."""
    vocabulary = values["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]


def _huge_vocabulary(values: dict[str, Any]) -> None:
    vocabulary = values["model"]["vocab"]
    vocabulary |= {f"token{index}": 257 + index for index in range(300_000)}


def _added_token(values: dict[str, Any]) -> None:
    token = {**values["added_tokens"][0], "id": 1, "content": "good"}
    values["added_tokens"].append(token)


def _sharded(shard: str) -> Damage:
    """Put an index beside the weights, or in their place, that leads elsewhere."""

    def damage(draft: Draft) -> None:
        names = [name for name in draft.values(_CONFIG) if name]
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
        draft.forge(_INDEX, json.dumps(index).encode())

    return damage


def _sharded_alone(draft: Draft) -> None:
    _sharded("../outside/model.safetensors")(draft)
    (draft.folder / MODEL_WEIGHTS).unlink()
    files = draft.manifest()["files"]
    files.pop(MODEL_WEIGHTS)
    draft.edit(files=files)


def _pickle_instead(draft: Draft) -> None:
    (draft.folder / MODEL_WEIGHTS).unlink()
    draft.forge("pytorch_model.bin", torch_archive(draft.marker))
    files = draft.manifest()["files"]
    files.pop(MODEL_WEIGHTS)
    draft.edit(files=files)


def _module_of_its_own(draft: Draft) -> None:
    draft.forge(f"{EVIL_MODULE}.py", python_source(draft.marker))
    draft.edit_json(_CONFIG, **_CHANGED["an auto_map"])


def _adapter_inside(draft: Draft) -> None:
    """Offer an adapter beside the checkpoint: transformers would put it on unasked."""
    shutil.copy(draft.outside / "README.md", draft.folder / "adapter_model.safetensors")
    draft.rehash("adapter_model.safetensors")
    draft.forge(
        "adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "evil/m"}'
    )


_SPLIT = {"type": "Split", "pattern": {"Regex": BOMB}, "behavior": "Isolated", "invert": False}
_REPLACE = {"type": "Replace", "pattern": {"Regex": BOMB}, "content": ""}
_TOKENIZER_SETTINGS: dict[str, dict[str, Any]] = {
    "an auto_map": {"auto_map": {"AutoTokenizer": [None, f"{EVIL_MODULE}.Tokenizer"]}},
    "a class": {"tokenizer_class": f"{EVIL_MODULE}.Tokenizer"},
    "another class": {"tokenizer_class": "BertTokenizer"},
    "a chat template": {"chat_template": "{{ ''.__class__.__mro__ }}"},
    "a pad token": {"pad_token": "a"},
    "an end token": {"eos_token": "a", "pad_token": "a"},
    "padding on the left": {"padding_side": "left"},
    "a truncation on the left": {"truncation_side": "left"},
    "a prefix space": {"add_prefix_space": True},
    "a path": {"name_or_path": "/etc"},
    "an unknown key": {"loader": "os.system"},
    "a decoder of tokens": {"added_tokens_decoder": {"1": {"content": "good", "special": True}}},
    "trust": {"trust_remote_code": True},
    "a backend": {"backend": "mistral-common"},
    "files of its own": {"vocab_file": "/etc/passwd", "tokenizer_file": "/etc/passwd"},
}
_TOKENIZERS: dict[str, Damage] = {
    "a regular expression that splits": _part(pre_tokenizer=_SPLIT),
    "a regular expression that replaces": _part(normalizer=_REPLACE),
    "a normalizer": _part(normalizer={"type": "Lowercase"}),
    "no splitting": _part(pre_tokenizer=None),
    "a prefix space": _part(
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    ),
    "a token before every text": _part(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
        }
    ),
    "a padding of a billion": _part(
        padding={
            "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
        }
    ),
    "a truncation to one token": _part(
        truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    ),
    "an unknown model": _part(model={"type": "Evil"}),
    "no model": _part(model=None),
    "an unknown part": _part(loader="os.system"),
    "another vocabulary": _edit_tokenizer(_other_vocabulary),
    "a vocabulary of three hundred thousand": _edit_tokenizer(_huge_vocabulary),
    "a further token": _edit_tokenizer(_added_token),
    "a tokenizer that is not JSON": _raw(_TOKENIZER, lambda content: content[:-9]),
    "an empty tokenizer": forges(_TOKENIZER, b""),
    "a tokenizer of forty million spaces": _raw(_TOKENIZER, lambda content: content + b" " * 40_000_000),
    "a tokenizer that reads at random": _edit_tokenizer(lambda values: values["model"].update(dropout=0.5)),
    "a tokenizer of deep brackets": forges(_TOKENIZER, b"[" * 100_000 + b"]" * 100_000),
    **{
        f"{what} in the tokenizer's settings": in_json(_SETTINGS, **values)
        for what, values in _TOKENIZER_SETTINGS.items()
    },
    "settings that are not JSON": _raw(_SETTINGS, lambda content: content[:-3]),
    "settings that are a list": _raw(_SETTINGS, lambda content: b"[" + content + b"]"),
    "settings of ten megabytes": in_json(_SETTINGS, note="x" * 10_000_000),
}  # fmt: skip

_RAW: dict[str, Damage] = {
    "a configuration that is not JSON": _raw(_CONFIG, lambda content: content[:-4]),
    "a configuration that is a list": _raw(_CONFIG, lambda content: b"[" + content + b"]"),
    "an empty configuration": forges(_CONFIG, b""),
    "n_layer twice": _raw(_CONFIG, lambda content: content.replace(b"{", b'{"n_layer": 3,', 1)),
    "a configuration with deep brackets": forges(
        _CONFIG, b'{"model_type": "gpt2", "note": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ),
    "a configuration of ten megabytes": in_json(_CONFIG, note="x" * 10_000_000),
    "a configuration with a byte-order mark": _raw(_CONFIG, lambda content: b"\xef\xbb\xbf" + content),
    "shards that lie elsewhere, beside the weights": _sharded("../outside/model.safetensors"),
    "shards at an absolute path, beside the weights": _sharded("/etc/passwd"),
    "shards that lie elsewhere": _sharded_alone,
    "a torch archive instead of the weights": _pickle_instead,
    "a module of its own": _module_of_its_own,
    "an adapter inside": _adapter_inside,
}  # fmt: skip

CHECKPOINT_CASES: tuple[Case, ...] = (
    *cases("full", {f"{what} in config.json": in_json(_CONFIG, **values) for what, values in _CHANGED.items()}),
    *cases("full", {**_RAW, **{f"tokenizer: {what}": damage for what, damage in _TOKENIZERS.items()}}),
)  # fmt: skip
