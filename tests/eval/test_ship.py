from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from eval.training import ship
from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import multiply_adds
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.jitter import Jitter
from kornia_bingan.train.loop import train
from kornia_bingan.work.files import sha256_of
from tests.helpers.photos import write_photos
from tests.train.test_loop import SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ship")
    data = write_photos(folder / "photos", 4)
    changes = {**SMALL, "steps": 2, "seed": 5, "jitter": Jitter(noise=0.01)}
    train(preset_config("photos", data, folder / "run", **changes))
    return folder / "run"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ship, "WEIGHTS", tmp_path)
    return tmp_path


def test_a_run_becomes_weights_with_manifest_certificate_and_card(run: Path, weights: Path) -> None:
    (weights / "licences.md").write_text(
        "| train | github a/b | MIT |\n| train | github c/d | none stated |\n| x | y | z |"
    )
    (weights / "photos.json.txt").write_text(json.dumps({"1.jpg": {"source": "github a/b"}}))
    sources = ["--licences", str(weights / "licences.md"), "--manifest", str(weights / "photos.json.txt")]
    assert ship.main([str(run), "tiny", "--summary", "for a test", *sources]) == 0
    manifest = json.loads((weights / "manifest.json").read_text())
    network = load_weights(weights / "tiny.safetensors")
    assert manifest["tiny"]["bits"] == network.bits == 256
    card = (weights / "tiny.md").read_text()
    assert manifest["tiny"]["sha256"] in card
    assert "| github a/b | 1 | MIT |" in card
    assert "github c/d" not in card
    before = card
    (weights / "tiny.md").unlink()
    assert ship.main([]) == 0
    assert (weights / "tiny.md").read_text() == before


def test_a_card_credits_every_photo(run: Path, weights: Path) -> None:
    photos = run.parent / "photos"
    files = sorted(photos.iterdir())
    entries = [
        {"sha256": sha256_of(path), "source": "a/b", "licence": "CC-BY-4.0", "author": f"Author {number % 2}"}
        for number, path in enumerate(files)
    ]
    manifest = weights / "credits.txt"
    words = [str(run), "tiny", "--summary", "for a test", "--photos", str(photos)]
    with pytest.raises(UsageError, match="go together"):
        ship.main(words)
    manifest.write_text(json.dumps(entries[1:]))
    with pytest.raises(UsageError, match=f"{files[0].name} is not in .* its licence is not known"):
        ship.main([*words, "--credits", str(manifest)])
    manifest.write_text(json.dumps(entries))
    assert ship.main([*words, "--credits", str(manifest)]) == 0
    assert f"| a/b | {len(files)} | CC-BY-4.0 | Author 0, Author 1 |" in (weights / "tiny.md").read_text()


def test_a_frame_network_goes_before_other_codes(run: Path, weights: Path, tmp_path: Path) -> None:
    photos = run.parent / "photos"
    few = {key: value for key, value in SMALL.items() if key != "layers"}
    start = {"start": str(run / "weights.safetensors"), "steps": 2}
    train(preset_config("frames", photos, tmp_path / "frames", **{**few, **start}))
    entries = [
        {"sha256": sha256_of(path), "source": "a/b", "licence": "CC0", "author": ""} for path in photos.iterdir()
    ]
    (weights / "credits.txt").write_text(json.dumps(entries))
    credited = ["--photos", str(photos), "--credits", str(weights / "credits.txt"), "--summary", "for a test"]
    assert (
        ship.main([str(tmp_path / "frames"), "joined", *credited, "--trunk", "bingan256-lite", "--share", "0.5"]) == 0
    )
    joined = load_weights(weights / "joined.safetensors")
    own, trunk = load_weights(tmp_path / "frames" / "weights.safetensors"), load_weights(find_weights("bingan256-lite"))
    half = {k: v / 2 if "last" in k else v for k, v in own.state_dict().items() if k.startswith("frames.")}
    expected = {**trunk.state_dict(), **half}
    assert joined.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in joined.state_dict().items())
    row = json.loads((weights / "manifest.json").read_text())["joined"]
    assert row["sha256"] == sha256_of(weights / "joined.safetensors")
    assert row["multiply_adds"] == multiply_adds(joined) > multiply_adds(trunk)
    card = (weights / "joined.md").read_text()
    assert "| corrections | 0.5 of what was learnt |" in card
    assert (
        "The codes are those of [`bingan256-lite`](bingan256-lite.md), see there; their frame network was trained"
        in card
    )
    assert "--preset frames --from weights.safetensors" in card
    assert "&& python -m eval ship RUN joined --share 0.5 --trunk bingan256-lite`" in card
    for source, trunk_name, sentence in (
        (run, "bingan256-lite", "has no frame network"),
        (tmp_path / "frames", "bingan256-published", "takes weights of the network PatchTrunk"),
    ):
        with pytest.raises(UsageError, match=sentence):
            ship.main([str(source), "other", *credited, "--trunk", trunk_name])
    assert not list(weights.glob("other*"))


def test_the_command_names_what_differs_from_the_preset(run: Path) -> None:
    about = ship.certificate(run, "tiny", "", {"sources": []})
    words = about["command"]
    assert words.startswith("bingan train --data PHOTOS --out RUN --preset photos")
    for part in ("--steps 2", "--seed 5", "--layers 8 2 16 2", "--jitter.noise 0.01"):
        assert part in words
    assert "--bits" not in words


def test_wrong_use(run: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="finish the training first"):
        ship.main([str(tmp_path), "tiny", "--summary", "x"])
    with pytest.raises(UsageError, match="a name and --summary"):
        ship.main([str(run)])
    assert list(weights.iterdir()) == []


def test_stages_become_one_command(run: Path, weights: Path, tmp_path: Path) -> None:
    start = run / "weights.safetensors"
    changes = {**SMALL, "steps": 1, "seed": 6, "jitter": Jitter(noise=0.01), "start": str(start)}
    train(preset_config("adapt", run.parent / "photos", tmp_path / "later", **changes))
    again = ["--summary", "twice", "--after", str(run)]
    assert ship.main([str(tmp_path / "later"), "tiny", *again]) == 0
    about = json.loads((weights / "tiny.json").read_text())
    first, second = about["command"].split(" && ")
    assert first.startswith("bingan train --data PHOTOS --out RUN1 --preset photos")
    assert second.startswith("bingan train --data PHOTOS --out RUN2 --preset adapt --from RUN1/weights.safetensors ")
    assert str(tmp_path) not in json.dumps(about["training"])
    card = (weights / "tiny.md").read_text()
    assert "2 of " in card
    assert "seed 5, then 1 of " in card
    with pytest.raises(UsageError, match="did not start from the weights of later"):
        ship.certificate(run, "tiny", "", {"sources": []}, [tmp_path / "later"])
