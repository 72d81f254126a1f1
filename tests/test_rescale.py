"""Rescaling: every strength is what it says, is saved as a normal artifact, and costs the original nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForSequenceClassification

import peftune
from peftune.adapters import load, save
from peftune.adapters.artifact import open_artifact
from peftune.adapters.loading import load_prepared
from peftune.errors import ArtifactError, DataError, OutputFolderError, UsageError
from peftune.experiments.evaluate import evaluate
from peftune.experiments.forget import forget
from peftune.experiments.rescale import sweep
from peftune.models.architecture import backbone_of, head_of, trainable_parameters
from peftune.models.inference import fit_head, pooled_states, predict_logits, set_head
from peftune.models.interpolation import Strength, at_strength, rescale_model, weights_at
from peftune.models.prepare import preparation_of, prepare_model
from peftune.probes import LanguageModelLoss
from peftune.strategies import STRATEGIES, HeadOnly, LoRA, LoRA8bit, Strategy
from peftune.testing.tuned import hidden_states_of

LABELS = ("bad", "so-so", "good")
TEXTS = ("what a lovely day", "no", "", "the soup was cold and nobody said sorry " * 3)
PROSE = "The sea was calm and the boats came home.\n\nA cat sat by the fire all day.\n" * 12
STRENGTHS = (0.0, 0.3, 1.0)

# Every registered strategy of which a backbone learns, so that a new one is held to these laws too;
# int8 looks for outliers over the whole batch unless its threshold is 0.
CASES: dict[str, Strategy] = {
    name: LoRA8bit(llm_int8_threshold=0.0) if name == "lora-8bit" else STRATEGIES.get(name)()
    for name in STRATEGIES.names()
    if STRATEGIES.get(name).trains_backbone
} | {"dora": LoRA(r=4, use_dora=True)}


@dataclass(frozen=True)
class Case:
    """A tuned artifact of one strategy, on a base."""

    strategy: Strategy
    base: Path
    folder: Path

    def model(self) -> nn.Module:
        """Load it as a prepared model."""
        return load_prepared(self.folder, base=str(self.base), use_cpu=True)


def _tuned(base: Path, strategy: Strategy) -> nn.Module:
    """Prepare a model and move every weight that learns, as training would."""
    model = prepare_model(str(base), strategy, labels=LABELS, max_length=48, seed=3, use_cpu=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainable_parameters(model).values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module", params=sorted(CASES))
def case(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """Save a tuned artifact of each strategy."""
    strategy = CASES[request.param]
    folder = tmp_path_factory.mktemp("tuned") / "artifact"
    return Case(strategy, tiny_base, save(_tuned(tiny_base, strategy), folder))


@pytest.fixture(scope="module")
def lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Save a tuned LoRA adapter."""
    strategy = LoRA(r=4)
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    return Case(strategy, tiny_base, save(_tuned(tiny_base, strategy), folder))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Write labeled rows."""
    return _write_rows(tmp_path / "validation.jsonl", 30, seed=0)


@pytest.fixture
def fit_rows(tmp_path: Path) -> Path:
    """Write other labeled rows."""
    return _write_rows(tmp_path / "train.jsonl", 60, seed=1)


@pytest.fixture
def probe(tmp_path: Path) -> LanguageModelLoss:
    """Give a probe on a few documents."""
    (tmp_path / "prose.txt").write_text(PROSE, encoding="utf-8")
    return LanguageModelLoss(file=str(tmp_path / "prose.txt"), name="prose")


def _write_rows(path: Path, count: int, *, seed: int) -> Path:
    words = ("cold", "fine", "lovely")
    draw = np.random.default_rng(seed)
    lines = [
        json.dumps({"text": f"it was {words[label]} {' '.join('so' * n)}", "label": LABELS[label]})
        for label, n in zip(draw.integers(0, 3, count), draw.integers(0, 9, count), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _logits(model: nn.Module) -> NDArray[np.float32]:
    return predict_logits(model, preparation_of(model).tokenizer, TEXTS, max_length=48)


def _batch(model: nn.Module) -> dict[str, torch.Tensor]:
    tokenizer = preparation_of(model).tokenizer
    return dict(tokenizer(["what a lovely day", "no"], padding=True, return_tensors="pt"))


def _values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainable_parameters(model).items()}


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _equal(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


# The strengths themselves


@pytest.mark.costly
def test_at_alpha_0_the_backbone_is_exactly_the_base(case: Case) -> None:
    """The hidden states equal those of a model that was prepared and never tuned, bit for bit."""
    model = case.model()
    untouched = prepare_model(
        str(case.base), case.strategy, labels=LABELS, max_length=48, use_cpu=True
    )
    batch = _batch(model)

    rescale_model(model, preparation_of(model).before, Strength(0.0))

    assert torch.equal(hidden_states_of(model, batch), hidden_states_of(untouched, batch))


def test_at_alpha_1_nothing_changes(case: Case) -> None:
    """Every weight is the tuned one, bit for bit."""
    model = case.model()
    tuned = _values(model)

    rescale_model(model, preparation_of(model).before, Strength(1.0))

    assert _equal(_values(model), tuned)


@pytest.mark.costly
@pytest.mark.parametrize("strength", [Strength(0.3), Strength(0.8, shallow=0.2)], ids=repr)
def test_a_rescaled_model_is_what_at_strength_shows(case: Case, strength: Strength) -> None:
    """The change for good and the one inside a context are the same, and neither moves the head."""
    model = case.model()
    tuned = _values(model)
    with at_strength(model, preparation_of(model).before, strength, keep_head=True):
        shown = _logits(model)
    assert _equal(_values(model), tuned)

    head = [weight.detach().clone() for weight in head_of(model).parameters()]
    rescale_model(model, preparation_of(model).before, strength)

    np.testing.assert_array_equal(_logits(model), shown)
    assert not np.allclose(shown, load(case.folder, base=str(case.base)).logits(TEXTS), atol=0.01)
    after = list(head_of(model).parameters())
    assert all(torch.equal(one, two) for one, two in zip(head, after, strict=True))


def test_a_low_rank_update_is_scaled_exactly(lora: Case) -> None:
    """At alpha, each adapted weight's update is alpha times the tuned one, as merging shows it."""
    tuned, model = lora.model(), lora.model()

    rescale_model(model, preparation_of(model).before, Strength(0.25))

    deltas = zip(_updates(tuned), _updates(model), strict=True)
    for full, quarter in deltas:
        assert float(full.abs().max()) > 0
        torch.testing.assert_close(quarter, 0.25 * full, rtol=0, atol=0)


def _updates(model: nn.Module) -> list[torch.Tensor]:
    return [
        module.get_delta_weight("default").detach()
        for module in model.modules()
        if isinstance(module, LoraLayer)
    ]


def test_layer_wise_strength_rises_from_the_first_block_to_the_last(tmp_path: Path) -> None:
    """Of four blocks, embeddings and the rest, each is interpolated with its own share.

    The shares are those of LiNeS (arXiv:2410.17146, equation 3): shallow + (alpha - shallow) *
    (block - 1) / (blocks - 1).
    """
    base = _base_of_four_blocks(tmp_path / "base")
    model = _tuned(base, STRATEGIES.get("full")())
    before, tuned = preparation_of(model).before, _values(model)
    shares = {f"transformer.h.{index}.": 0.2 + 0.6 * index / 3 for index in range(4)}
    shares |= {"transformer.wte": 0.2, "transformer.wpe": 0.2, "transformer.ln_f": 0.8}
    shares |= {"score": 1.0}

    rescale_model(model, preparation_of(model).before, Strength(0.8, shallow=0.2))

    for name, weight in trainable_parameters(model).items():
        [share] = [value for prefix, value in shares.items() if name.startswith(prefix)]
        expected = before[name] + share * (tuned[name] - before[name])
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-7)


def _base_of_four_blocks(folder: Path) -> Path:
    from peftune.testing import write_tiny_base

    write_tiny_base(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**{**config, "n_layer": 4})).save_pretrained(folder)
    return folder


def test_the_ends_of_a_layer_wise_strength_are_exact() -> None:
    """Both ends of the rise are exact, and equal ends are one strength everywhere."""
    strength = Strength(0.9, shallow=0.1)
    assert [strength.at(0.0), strength.at(1.0)] == [0.1, 0.9]
    assert {Strength(0.7, shallow=0.7).at(depth / 11) for depth in range(12)} == {0.7}
    assert Strength(0.7).at(0.0) == 0.7


def test_a_strength_beyond_the_ends_is_refused() -> None:
    """There is nothing to trust outside base and tuned model."""
    with pytest.raises(UsageError) as raised:
        Strength(1.5)
    assert str(raised.value) == (
        "alpha must be between 0, the base, and 1, the tuned model (got 1.5)."
    )
    with pytest.raises(UsageError) as raised:
        Strength(float("nan"))
    assert str(raised.value) == (
        "alpha must be between 0, the base, and 1, the tuned model (got nan)."
    )
    with pytest.raises(UsageError) as raised:
        Strength(0.5, shallow=0.6)
    assert str(raised.value) == (
        "The first block's strength must be between 0 and alpha, which is 0.5 (got 0.6)."
    )


# Saved


@pytest.mark.costly
@pytest.mark.parametrize("alpha", STRENGTHS)
def test_the_saved_strength_behaves_as_the_model_at_that_strength(
    case: Case, alpha: float, tmp_path: Path
) -> None:
    """It loads with every check on, with the logits of the tuned model at that strength."""
    model = case.model()
    with at_strength(model, preparation_of(model).before, alpha, keep_head=True):
        expected = _logits(model)

    folder = peftune.adapters.rescale(
        case.folder, alpha=alpha, output=tmp_path / "at", base=str(case.base), use_cpu=True
    )

    classifier = load(folder, base=str(case.base), use_cpu=True)
    np.testing.assert_allclose(classifier.logits(TEXTS), expected, rtol=1e-5, atol=1e-5)
    manifest, old = open_artifact(folder).manifest, open_artifact(case.folder).manifest
    assert (manifest.kind, manifest.strategy, manifest.base) == (
        old.kind,
        old.strategy,
        old.base,
    )


def test_the_original_is_not_touched(case: Case, tmp_path: Path) -> None:
    """No file of the artifact changes, whatever is done with it."""
    before = _hashes(case.folder)
    names = set(before)

    peftune.adapters.rescale(case.folder, alpha=0.5, output=tmp_path / "half", base=str(case.base))

    assert _hashes(case.folder) == before
    assert set(_hashes(tmp_path / "half")) == names


def test_plain_peft_opens_a_rescaled_adapter(lora: Case, tmp_path: Path) -> None:
    """It is a normal adapter: PEFT gives the same logits as peftune."""
    folder = peftune.adapters.rescale(
        lora.folder, alpha=0.5, output=tmp_path / "half", base=str(lora.base)
    )
    classifier = load(folder, base=str(lora.base), use_cpu=True)
    plain = AutoModelForSequenceClassification.from_pretrained(
        lora.base, num_labels=3, pad_token_id=classifier.tokenizer.pad_token_id
    )

    model = PeftModel.from_pretrained(plain, folder).eval()

    logits = predict_logits(model, classifier.tokenizer, TEXTS, max_length=48)
    np.testing.assert_allclose(logits, classifier.logits(TEXTS), rtol=1e-4, atol=1e-5)


def test_the_manifest_says_what_it_was_made_of_and_carries_no_old_numbers(
    tiny_base: Path, tmp_path: Path
) -> None:
    """Old scores are of another model; the card names strength, head and the original's hash."""
    task = {"data": "x", "split": "test", "n": 9, "accuracy": 0.75, "macro_f1": 0.5}
    task |= {"loss": 0.1, "ci95": {"accuracy": None, "macro_f1": None}}
    origin = save(_tuned(tiny_base, LoRA(r=4)), tmp_path / "tuned", task=task, forgetting=[])

    folder = peftune.adapters.rescale(
        origin, alpha=0.5, shallow=0.25, output=tmp_path / "half", base=str(tiny_base)
    )

    manifest = open_artifact(folder).manifest
    assert (manifest.task, manifest.forgetting) == (None, None)
    assert manifest.rescaled is not None
    assert manifest.rescaled.model_dump() == {
        "alpha": 0.5,
        "shallow": 0.25,
        "head": "kept",
        "from_sha256": open_artifact(origin).digest,
    }
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        "Rescaled to a strength that rises from 0.25 at the first block to 0.5 at the last "
        "(0 is the base, 1 the tuned model) from the artifact whose `peftune.json` has the\n"
        f"`sha256` `{open_artifact(origin).digest}`; the classification head was kept.\n"
    ) in card
    assert "Not measured at this strength." in card
    assert "0.75" not in card


def test_what_is_measured_is_recorded(
    lora: Case, rows: Path, probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """The new numbers are those that `evaluate` and `forget` find on the new artifact."""
    folder = peftune.adapters.rescale(
        lora.folder,
        alpha=0.5,
        output=tmp_path / "half",
        file=rows,
        probes=[probe],
        base=str(lora.base),
        use_cpu=True,
    )

    manifest = open_artifact(folder).manifest
    learning = evaluate(folder, rows, base=str(lora.base))
    [found] = forget(folder, [probe], base=str(lora.base), use_cpu=True)
    assert manifest.task is not None
    assert manifest.forgetting is not None
    assert manifest.task["accuracy"] == learning.accuracy
    assert (manifest.task["data"], manifest.task["n"]) == ("validation.jsonl", 30)
    [recorded] = manifest.forgetting
    assert recorded["forgetting"] == found.forgetting
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"| accuracy on 30 validation.jsonl rows | {learning.accuracy:.3f} |" in card
    assert f"(positive is worse) | {found.forgetting:+.4f} |" in card


# The sweep


@pytest.mark.costly
def test_a_sweep_measures_the_ends_exactly(
    case: Case, rows: Path, probe: LanguageModelLoss
) -> None:
    """At 0 nothing is forgotten and no prediction moves; at 1 it is the artifact as it is."""
    points = sweep(
        case.folder,
        rows,
        alphas=(0.0, 0.5, 1.0),
        probes=[probe],
        base=str(case.base),
        use_cpu=True,
    )

    assert [point.strength.alpha for point in points] == [0.0, 0.5, 1.0]
    first, middle, last = (point.forgetting["prose"] for point in points)
    assert (first.forgetting, first.kl) == (0.0, 0.0)
    [alone] = forget(case.folder, [probe], base=str(case.base), use_cpu=True)
    assert (last.forgetting, last.kl) == (alone.forgetting, alone.kl)
    assert middle.kl is not None
    assert last.kl is not None
    assert 0 < middle.kl < last.kl
    scored = points[-1].learning
    assert scored is not None
    assert scored.accuracy == evaluate(case.folder, rows, base=str(case.base)).accuracy
    assert {point.forgetting.controls["adapter_off_forgetting"] for point in points} == {0.0}


def test_a_sweep_measures_what_would_be_saved(
    lora: Case, rows: Path, fit_rows: Path, probe: LanguageModelLoss, tmp_path: Path
) -> None:
    """A point, layer-wise and with a head of its own, has the numbers of the artifact saved there."""
    [_, point] = sweep(
        lora.folder,
        rows,
        alphas=(0.6, 0.8),
        shallow=0.1,
        head="refitted",
        fit_file=fit_rows,
        probes=[probe],
        base=str(lora.base),
        use_cpu=True,
    )

    folder = peftune.adapters.rescale(
        lora.folder,
        alpha=0.8,
        shallow=0.1,
        head="refitted",
        fit_file=fit_rows,
        output=tmp_path / "there",
        base=str(lora.base),
        use_cpu=True,
    )

    assert point.learning is not None
    learning = evaluate(folder, rows, base=str(lora.base))
    assert learning.loss == pytest.approx(point.learning.loss, rel=1e-6)
    [found] = forget(folder, [probe], base=str(lora.base), use_cpu=True)
    assert found.forgetting == point.forgetting["prose"].forgetting


# The head


def test_the_states_are_what_the_head_reads(case: Case) -> None:
    """The head's weight times the states is the logits, and the head is in its place afterwards."""
    model = case.model()
    logits = _logits(model)

    states = pooled_states(model, preparation_of(model).tokenizer, TEXTS, max_length=48)

    [weight] = [w.detach().numpy() for w in head_of(model).parameters() if w.requires_grad]
    np.testing.assert_allclose(states @ weight.T, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(_logits(model), logits)
    assert states.shape == (len(TEXTS), backbone_of(model).config.n_embd)


@pytest.mark.parametrize("labels", [("no", "yes"), LABELS], ids=["two labels", "three labels"])
def test_a_refitted_head_is_the_logistic_regression(
    tiny_base: Path, labels: tuple[str, ...]
) -> None:
    """The probabilities are scikit-learn's own, on the same states, with scale and head undone."""
    from scipy.special import softmax
    from sklearn.linear_model import LogisticRegression

    model = prepare_model(
        str(tiny_base), LoRA(r=4), labels=labels, max_length=48, use_cpu=True
    ).eval()
    texts = [f"number {index} {'very ' * (index % 7)}" for index in range(40)]
    truth = [index % len(labels) for index in range(40)]
    tokenizer = preparation_of(model).tokenizer
    states = pooled_states(model, tokenizer, texts, max_length=48).astype(np.float64)
    states /= np.sqrt((states**2).mean(0))
    reference = LogisticRegression(fit_intercept=False, max_iter=10_000).fit(states, truth)

    set_head(model, fit_head(model, texts, truth))

    logits = predict_logits(model, tokenizer, texts, max_length=48).astype(np.float64)
    np.testing.assert_allclose(
        softmax(logits, axis=-1), reference.predict_proba(states), atol=1e-4
    )


def test_a_refit_leaves_backbone_and_forgetting_alone(
    lora: Case, rows: Path, fit_rows: Path, probe: LanguageModelLoss
) -> None:
    """The head takes no part in general text; another head changes the score alone."""

    def point(**arguments: object) -> tuple[float, float]:
        [found] = sweep(
            lora.folder,
            rows,
            alphas=(0.5,),
            probes=[probe],
            base=str(lora.base),
            use_cpu=True,
            **arguments,  # type: ignore[arg-type]
        )
        assert found.learning is not None
        assert found.learning.accuracy is not None
        return found.learning.accuracy, found.forgetting["prose"].forgetting

    kept, refitted = point(), point(head="refitted", fit_file=fit_rows)

    assert kept[1] == refitted[1]
    assert refitted[0] > kept[0]


# What is refused


def test_a_strategy_without_a_trained_backbone_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    """Head-only has one strength: nothing is saved that says otherwise."""
    folder = save(_tuned(tiny_base, HeadOnly()), tmp_path / "head")

    with pytest.raises(UsageError) as raised:
        peftune.adapters.rescale(folder, alpha=0.5, output=tmp_path / "half", base=str(tiny_base))

    assert str(raised.value) == (
        "The strategy 'head-only' leaves the backbone as it is, so every strength is the same model; "
        "there is nothing to rescale."
    )
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("inside", ["", "deeper/down", "../adapter"])
def test_the_artifact_itself_is_no_output_folder(lora: Case, inside: str) -> None:
    """Neither under its own name, nor under another one, nor a folder inside it."""
    output = lora.folder / inside
    before = _hashes(lora.folder)

    with pytest.raises(OutputFolderError) as raised:
        peftune.adapters.rescale(lora.folder, alpha=0.5, output=output, base=str(lora.base))

    assert str(raised.value) == (
        f"'{output}' lies in the artifact itself, which is not changed. Choose another output folder."
    )
    assert _hashes(lora.folder) == before


def test_a_head_that_cannot_be_fitted_is_refused(
    lora: Case, rows: Path, fit_rows: Path, tmp_path: Path
) -> None:
    """Every way to ask for what makes no sense ends in one line."""

    def message(**arguments: object) -> str:
        with pytest.raises((UsageError, DataError)) as raised:
            peftune.adapters.rescale(
                lora.folder,
                alpha=0.5,
                output=tmp_path / "half",
                base=str(lora.base),
                **arguments,  # type: ignore[arg-type]
            )
        return str(raised.value)

    assert message(head="refitted") == (
        "A refitted head needs labeled rows to fit on: fit_file=… in Python, --fit-file on the "
        "command line."
    )
    assert message(fit_file=fit_rows) == (
        f"A head that is kept is not fitted, so '{fit_rows}' would not be read. Leave it out, or "
        "let the head be refitted."
    )
    assert message(head="scaled") == "The head is kept or refitted (got 'scaled')."
    assert message(head="refitted", fit_file=rows, file=rows) == (
        f"The head would be fitted to the rows of '{rows}' and scored on the same. Fit it on "
        "training rows."
    )
    few = tmp_path / "few.csv"
    few.write_text("text,label\nfine,good\ncold,bad\n", encoding="utf-8")
    assert message(head="refitted", fit_file=few) == (
        "The head cannot be refitted: no row has the label 'so-so'. Every label needs rows to fit "
        "on."
    )
    assert not (tmp_path / "half").exists()


def test_a_full_checkpoint_with_a_changed_file_is_not_rescaled(
    tiny_base: Path, tmp_path: Path
) -> None:
    """A checkpoint is checked as an adapter is: by hash, and by the base that it belongs to."""
    folder = save(_tuned(tiny_base, STRATEGIES.get("full")()), tmp_path / "model")
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")

    with pytest.raises(ArtifactError) as raised:
        peftune.adapters.rescale(folder, alpha=0.5, output=tmp_path / "half", base=str(tiny_base))

    assert str(raised.value) == (
        f"'{folder / 'model.safetensors'}' is not the file that was saved: its hash differs from "
        "the manifest's. Fetch it again."
    )


def test_only_what_differs_is_computed(lora: Case) -> None:
    """At 1 no weight is touched, and between the ends one factor of each update and nothing else."""
    model = lora.model()
    before = preparation_of(model).before

    assert weights_at(model, before, Strength(1.0)) == {}
    names = weights_at(model, before, Strength(0.5), keep_head=True)
    assert {name.rsplit(".", 3)[1] for name in names} == {"lora_B"}
