from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kornia_bingan.errors import UsageError
from kornia_bingan.network import weights
from kornia_bingan.network.published import PatchDiscriminator, PatchTrunk, multiply_adds
from kornia_bingan.work.files import sha256_of


def small_trunk() -> PatchTrunk:
    return PatchTrunk(bits=64, layers=((8, 2), (8, 2)))


@pytest.mark.parametrize("kind", [small_trunk, PatchDiscriminator])
def test_round_trip_is_that_of_half_precision(kind: type[PatchDiscriminator], tmp_path: Path) -> None:
    network = kind().eval()
    network.to(memory_format=torch.channels_last)
    weights.save_weights(tmp_path / "a.safetensors", network, {"seed": 1, "b": 2, "c": 3})
    weights.save_weights(tmp_path / "b.safetensors", network, {"c": 3, "seed": 1, "b": 2})
    assert sha256_of(tmp_path / "a.safetensors") == sha256_of(tmp_path / "b.safetensors")
    again = weights.load_weights(tmp_path / "a.safetensors")
    assert type(again) is type(network)
    assert not again.training
    for name, value in network.state_dict().items():
        stored = value.half().float() if value.ndim >= 2 else value
        assert torch.equal(again.state_dict()[name], stored)
    weights.save_weights(tmp_path / "c.safetensors", again, {"seed": 1, "b": 2, "c": 3})
    assert sha256_of(tmp_path / "c.safetensors") == sha256_of(tmp_path / "a.safetensors")
    assert weights.read_description(tmp_path / "a.safetensors")["training"]["seed"] == 1


def test_any_flipped_byte_of_the_tensors_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save_weights(path, small_trunk(), {})
    original = path.read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    for position in (header, (header + len(original)) // 2, len(original) - 1):
        damaged = bytearray(original)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="damaged"):
            weights.load_weights(path)


def test_damaged_headers_and_truncation_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save_weights(path, small_trunk(), {})
    original = path.read_bytes()
    for content in (b"", b"hello", original[:100], original[:-10], b"\xff" * 64, original[:3] + b"\xff" + original[4:]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.safetensors"):
            weights.load_weights(path)


def change_description(path: Path, **changes: object) -> None:
    network = small_trunk()
    weights.save_weights(path, network, {})
    description = {**weights.read_description(path), **changes}
    save_file(network.state_dict(), path, metadata={"kornia_bingan": json.dumps(description)})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "reads format 1"),
        ({"network": "Transformer"}, "Transformer"),
        ({"arguments": {"bits": 32, "layers": [[8, 2], [8, 2]]}}, "code_layer.weight' is"),
        ({"arguments": {"bits": 64, "layers": [[8, 2], [8, 2], [8, 1]]}}, "missing"),
        ({"arguments": {"size": 3}}, "unusable"),
        ({"arguments": None}, "unusable"),
        ({"network": "PatchDiscriminator", "arguments": {}}, "the network needs"),
    ],
)
def test_files_of_other_networks_are_refused(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    change_description(path, **changes)
    with pytest.raises(UsageError, match=sentence):
        weights.load_weights(path)


def test_foreign_safetensors_files_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="was not written by kornia_bingan"):
        weights.load_weights(tmp_path / "a.safetensors")
    network = small_trunk()
    weights.save_weights(tmp_path / "b.safetensors", network, {})
    description = weights.read_description(tmp_path / "b.safetensors")
    tensors = {**network.state_dict(), "extra": torch.zeros(1)}
    save_file(tensors, tmp_path / "b.safetensors", metadata={"kornia_bingan": json.dumps(description)})
    with pytest.raises(UsageError, match="'extra' does not belong"):
        weights.load_weights(tmp_path / "b.safetensors")


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights 'nothing'"):
        weights.find_weights("nothing")
    with pytest.raises(UsageError, match="not a readable"):
        weights.load_weights(tmp_path)


def test_shipped_weights_match_their_manifest() -> None:
    models = weights.list_models()
    assert "bingan256" in {model.name for model in models}
    for model in models:
        path = weights.find_weights(model.name)
        network = weights.load_weights(path)
        assert sha256_of(path) == model.sha256
        assert network.bits == model.bits
        assert multiply_adds(network) == model.multiply_adds
        assert path.stat().st_size < 8 * 2**20
        assert path.with_suffix(".md").is_file(), f"{model.name} has no model card"


def test_a_damaged_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.save_weights(tmp_path / "small.safetensors", small_trunk(), {})
    row = {"bits": 64, "multiply_adds": 1, "summary": "", "sha256": sha256_of(tmp_path / "small.safetensors")}
    (tmp_path / "manifest.json").write_text(json.dumps({"small": row}))
    monkeypatch.setattr(weights, "weights_folder", lambda: tmp_path)
    assert weights.find_weights("small") == tmp_path / "small.safetensors"
    data = bytearray((tmp_path / "small.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "small.safetensors").write_bytes(data)
    with pytest.raises(UsageError, match="sha256"):
        weights.find_weights("small")
    (tmp_path / "small.safetensors").unlink()
    with pytest.raises(UsageError, match="missing from the installation"):
        weights.find_weights("small")
