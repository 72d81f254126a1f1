"""Weights that lie in a mapped checkpoint: their memory, and what the file has of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftune.fastpath import mapped_memory
from peftune.fastpath.mapped_memory import OwnFiles, mapped_files, release_mapped
from peftune.models.architecture import trainable_parameters
from peftune.models.prepare import preparation_of, prepare_model
from peftune.strategies.full import Full

MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what is resident")


def resident() -> int:
    """Return the bytes of mapped files that this process has in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("RssFile:")]
    return int(kilobytes) * 1024


@pytest.fixture
def mapped(tmp_path: Path) -> torch.Tensor:
    """A weight of 64 MiB that lies in a file."""
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.arange(16 * MIB, dtype=torch.float32)}, path)
    return load_file(path)["weight"]


def test_what_was_read_is_released_and_read_again(mapped: torch.Tensor) -> None:
    """Reading costs memory until it is released, and the values are the file's again."""
    unread = resident()
    total = float(mapped.double().sum())
    read = resident()
    assert read - unread > 60 * MIB

    release_mapped([mapped])

    assert read - resident() > 60 * MIB
    assert float(mapped.double().sum()) == total


def test_what_was_written_is_kept(mapped: torch.Tensor) -> None:
    """A page that differs from the file cannot be read again, so it stays."""
    mapped[5] = -1.0
    mapped.view(2, -1)[1].mul_(2.0)

    release_mapped([mapped])

    assert mapped[4:7].tolist() == [4.0, -1.0, 6.0]
    assert mapped[-1].item() == 2.0 * (16 * MIB - 1)


def test_a_file_that_may_only_be_read_is_released_too(
    mapped: torch.Tensor, tmp_path: Path
) -> None:
    """A hub's cache or a folder of somebody else's is as good a place for a base."""
    (tmp_path / "model.safetensors").chmod(0o400)
    mapped.sum()
    read = resident()

    release_mapped([mapped])

    assert read - resident() > 60 * MIB


def test_nothing_is_released_where_what_was_written_is_not_told(
    mapped: torch.Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as in a container that hides it: memory stays, and values stay."""
    monkeypatch.setattr(mapped_memory, "_PAGES", tmp_path / "hidden")
    mapped[5] = -1.0
    mapped.sum()
    read = resident()

    release_mapped([mapped])

    assert abs(read - resident()) < MIB
    assert mapped[5].item() == -1.0


def test_part_of_a_weight_is_released_alone(mapped: torch.Tensor) -> None:
    """A view is its own range of the file."""
    mapped.sum()
    read = resident()

    release_mapped([mapped[: 4 * MIB]])

    assert 12 * MIB < read - resident() < 24 * MIB


def test_ordinary_memory_is_left_alone() -> None:
    """Nothing there could be read again."""
    weight = torch.ones(4 * MIB)
    release_mapped([weight, torch.empty(0), torch.empty(3, device="meta")])
    assert float(weight.sum()) == 4 * MIB


def test_all_of_the_files_is_released_where_it_is_asked_for(tmp_path: Path) -> None:
    """Also what no weight lies in any more, such as what integers were made of."""
    path = tmp_path / "model.safetensors"
    save_file({name: torch.ones(8 * MIB, dtype=torch.float32) for name in "ab"}, path)
    weights = load_file(path)
    weights["a"].sum(), weights.pop("b").sum()
    read = resident()

    release_mapped([weights["a"]])
    own = resident()
    release_mapped([weights["a"], torch.ones(3)], whole_files=True)

    assert 28 * MIB < read - own < 44 * MIB
    assert own - resident() > 28 * MIB


@pytest.mark.parametrize("part", [False, True])
def test_a_weight_is_read_from_its_file_once_more(mapped: torch.Tensor, part: bool) -> None:
    """As it was: it takes no memory of its own, and does not follow what learns."""
    weight = mapped[3 : 8 * MIB + 3].view(-1, 4)[1:] if part else mapped
    before = weight.clone()

    twin = OwnFiles().unchanged(weight)

    assert twin is not None
    assert torch.equal(twin, weight)
    read = resident()
    release_mapped([twin])
    assert read - resident() > 30 * MIB - 8
    weight.mul_(-1.0)
    assert torch.equal(twin, before)


def test_what_is_not_in_a_file_any_more_is_not_read_from_it(
    mapped: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that was written to, one in ordinary memory, one that lies across, one of a lost file."""
    assert OwnFiles().unchanged(mapped) is not None
    assert OwnFiles().unchanged(mapped[:12].view(3, 4).t()) is None
    assert OwnFiles().unchanged(torch.ones(3)) is None
    (tmp_path / "model.safetensors").unlink()
    assert OwnFiles().unchanged(mapped) is None
    save_file({"weight": torch.zeros(16 * MIB)}, tmp_path / "model.safetensors")
    assert OwnFiles().unchanged(mapped) is None

    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.arange(2 * MIB, dtype=torch.float32)}, other)
    written = load_file(other)["weight"]
    written[7] = -1.0
    assert OwnFiles().unchanged(written) is None
    assert OwnFiles().unchanged(written[8:]) is not None
    monkeypatch.setattr("peftune.fastpath.mapped_memory._MAPS", tmp_path / "hidden")
    assert OwnFiles().unchanged(written[8:]) is None


def test_writing_to_a_twin_writes_to_no_file(mapped: torch.Tensor, tmp_path: Path) -> None:
    """A model whose weights it becomes for a while may train on."""
    twin = OwnFiles().unchanged(mapped)
    assert twin is not None
    twin.fill_(-1.0)

    assert float(mapped[5]) == 5.0
    assert float(load_file(tmp_path / "model.safetensors")["weight"][5]) == 5.0


def test_full_fine_tuning_keeps_its_start_in_the_bases_file(tiny_base: Path) -> None:
    """The whole backbone as it was, which does not move with what learns; the new head is copied."""
    model = prepare_model(str(tiny_base), Full(), labels=["a", "b"], use_cpu=True)
    before, learning = preparation_of(model).before, trainable_parameters(model)
    exact = {name: weight.detach().clone() for name, weight in learning.items()}
    files = mapped_files()
    elsewhere = {n for n, w in before.items() if not any(file.holds(w) for file in files)}

    with torch.no_grad():
        for weight in learning.values():
            weight.add_(1.0)

    assert elsewhere == {"score.weight"}
    assert all(torch.equal(before[name], weight) for name, weight in exact.items())
