from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import TCPStore

from kornia_bingan import BinGAN, cli
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.network.weights import load_weights, read_description
from kornia_bingan.train.config import PRESETS, TrainConfig, preset_config
from kornia_bingan.train.loop import train
from kornia_bingan.work.files import sha256_of
from tests.conftest import FEW_INITIAL_PATCHES, run_and_die
from tests.helpers.photos import write_photos
from tests.helpers.programs import Ended, run_program

pytestmark = pytest.mark.usefixtures("_few_initial_patches")

SMALL: dict[str, Any] = {
    "layers": ((8, 2), (16, 2)),
    "steps": 12,
    "batch_size": 24,
    "photos_per_batch": 3,
    "max_keypoints": 100,
    "log_every": 1,
    "validate_every": 6,
    "checkpoint_every": 3,
    "validation_pairs": 100,
    "threads": 1,
    "device": "cpu",
}


PUBLISHED: dict[str, Any] = {**SMALL, "batch_size": 6, "validation_pairs": 20}
"""The published network is a hundred times larger, and so are its steps."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 5)


def log_of(out: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_two_views_learn(data: Path, tmp_path: Path) -> None:
    result = train(preset_config("photos", data, tmp_path / "run", **{**SMALL, "steps": 80, "batch_size": 64}))
    assert result["finished"]
    losses = [line["two_view"] for line in log_of(tmp_path / "run", "train")]
    assert len(losses) == 80
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    before, after = log_of(tmp_path / "run", "validation")[0], log_of(tmp_path / "run", "validation")[-1]
    assert after["fpr95"] < before["fpr95"] - 10
    assert after["stuck_bits"] == 0
    model = BinGAN.from_pretrained(result["weights"])
    assert model.sha256 == result["sha256"]
    assert model(torch.rand(3, 1, 32, 32)).shape == (3, 256)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["config"]["seed"] == 1
    assert run["provenance"]["versions"]["torch"] == torch.__version__
    certificate = read_description(Path(result["weights"]))["training"]
    assert certificate["config"]["steps"] == 80
    assert certificate["photos"] == 5


def test_published_objective_runs_on_both_networks(data: Path, tmp_path: Path) -> None:
    for network in ("PatchDiscriminator", "PatchTrunk"):
        changes = {**PUBLISHED, "network": network, "steps": 2, "validate_every": 2}
        config = preset_config("brown", data, tmp_path / network, **changes)
        train(config)
        lines = log_of(config.out, "train")
        assert len(lines) == 2
        assert set(lines[0]) >= {"gan", "dmr", "bre", "generator"}
        assert 0.3 < lines[0]["gan"] < 1.5


def test_all_terms_together(data: Path, tmp_path: Path) -> None:
    terms = {"lambda_gan": 0.1, "lambda_dmr": 0.05, "lambda_bre": 0.01, "gamma": 0.5, "code_noise": 0.3}
    terms |= {"lambda_descriptor": 0.1, "lambda_second_order": 0.1, "lambda_quantisation": 0.1, "nested": (64, 128)}
    train(preset_config("photos", data, tmp_path / "run", **{**SMALL, "steps": 2, **terms}))
    names = {"gan", "dmr", "bre", "two_view", "bit_correlation", "descriptor", "second_order", "quantisation"}
    assert set(log_of(tmp_path / "run", "train")[0]) >= names


def test_the_form_of_bre_is_chosen(data: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "steps": 1, "lambda_bre": 0.01}
    first: dict[str, float] = {}
    for form in ("published", "normalised", "original"):
        train(preset_config("photos", data, tmp_path / form, **changes, bre=form))
        first[form] = log_of(tmp_path / form, "train")[0]["bre"]
    assert len(set(first.values())) == 3
    assert first["normalised"] > first["published"], "Z is smaller than the number of pairs, as its weights are below 1"


@pytest.mark.parametrize("preset", ["photos", "brown"])
def test_a_killed_run_ends_with_the_same_bytes(preset: str, data: Path, tmp_path: Path) -> None:
    changes = {**(PUBLISHED if preset == "brown" else SMALL), "steps": 2, "checkpoint_every": 1}
    check_killed_run(preset, data, tmp_path, {**changes, "validate_every": 4})


def check_killed_run(preset: str, data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Train undisturbed, and killed after some step and taken up again, and compare."""
    whole = train(preset_config(preset, data, tmp_path / "whole", **changes))
    out = tmp_path / "killed"
    program = (
        f"{FEW_INITIAL_PATCHES}from pathlib import Path\nfrom kornia_bingan.train.config import preset_config\n"
        "from kornia_bingan.train.loop import train\n"
        f"train(preset_config({preset!r}, Path({str(data)!r}), Path({str(out)!r}), **{changes!r}))"
    )
    run_and_die(program, out / "checkpoint.pt")
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == changes["checkpoint_every"]
    again = train(preset_config(preset, data, out, **changes))
    assert again["sha256"] == whole["sha256"]
    assert sha256_of(out / "weights.safetensors") == sha256_of(tmp_path / "whole" / "weights.safetensors")

    def values(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if k != "seconds"} for line in log_of(folder, "train")]

    assert values(out) == values(tmp_path / "whole")


def test_time_limit_leaves_a_checkpoint_and_the_command_goes_on(data: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "validate_every": 100}
    first = train(preset_config("photos", data, tmp_path / "a", **changes, time_limit=1e-6))
    assert not first["finished"]
    assert first["steps"] == 1
    assert first["weights"] is None
    second = train(preset_config("photos", data, tmp_path / "a", **changes))
    whole = train(preset_config("photos", data, tmp_path / "b", **changes))
    assert second["sha256"] == whole["sha256"]


def test_bfloat16_runs_where_asked_for(data: Path, tmp_path: Path) -> None:
    train(preset_config("photos", data, tmp_path / "run", **{**SMALL, "steps": 2, "precision": "bfloat16"}))
    description = read_description(tmp_path / "run" / "weights.safetensors")
    assert description["training"]["precision"] == "torch.bfloat16"


def test_published_preset_keeps_the_published_values(tmp_path: Path) -> None:
    config = preset_config("brown", tmp_path, tmp_path)
    assert (config.batch_size, config.learning_rate, config.lambda_dmr, config.lambda_bre) == (25, 3e-4, 0.05, 0.01)
    assert (config.gamma, config.beta, config.bits, config.network) == (0.001, 2.0, 256, "PatchDiscriminator")
    assert not config.shared_pass
    assert config.lambda_two_view == 0
    assert (config.steps, config.bre) == (1_600_000, "published")
    pictures = preset_config("cifar10", tmp_path, tmp_path)
    assert (pictures.steps, pictures.lambda_dmr, pictures.lambda_bre) == (800_000, 0.05, 0.001)
    assert set(PRESETS["brown"]) <= set(TrainConfig.__dataclass_fields__)


def test_wrong_use_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose one of photos, adapt, frames, brown"):
        preset_config("best", data, tmp_path)
    with pytest.raises(UsageError, match="some must be above 0"):
        train(preset_config("photos", data, tmp_path / "a", lambda_two_view=0.0, lambda_bit_correlation=0.0))
    with pytest.raises(UsageError, match="at least 1 and 2"):
        train(preset_config("photos", data, tmp_path / "a", steps=0))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(preset_config("photos", data, tmp_path / "full", **SMALL))
    train(preset_config("photos", data, tmp_path / "run", **{**SMALL, "steps": 1}))
    with pytest.raises(UsageError, match=r"other settings \(seed: 1, now 2\)"):
        train(preset_config("photos", data, tmp_path / "run", **{**SMALL, "steps": 1, "seed": 2}))
    assert not (tmp_path / "a").exists()


def test_a_loss_that_is_not_finite_stops_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="not finite"):
        train(preset_config("photos", data, tmp_path / "run", **{**SMALL, "learning_rate": 1e30}))
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_two_processes_have_the_losses_of_one(data: Path, tmp_path: Path) -> None:
    """The published network without dropout: features are gathered, so both processes see the whole batch.

    Two steps only: Adam's first updates are signs of gradients, and those of gradients near 0 hang on rounding.
    """
    changes = {**PUBLISHED, "steps": 2, "validate_every": 2, "dropout": False, "precision": "float32"}
    train(preset_config("brown", data, tmp_path / "one", **changes))
    two = f"preset_config('brown', Path({str(data)!r}), Path({str(tmp_path / 'two')!r}), **{changes!r})"
    program = (
        f"{FEW_INITIAL_PATCHES}from pathlib import Path\nfrom kornia_bingan.train.config import preset_config\n"
        f"from kornia_bingan.train.loop import train\ntrain({two})\n"
    )
    # what torchrun holds and sets, without its start
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}

    def run(rank: str) -> Ended:
        return run_program(program, environment={**shared, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank})

    with ThreadPoolExecutor(2) as pool:
        for ended in pool.map(run, ("0", "1")):
            assert ended.returncode == 0, ended.stderr
    logs = [log_of(tmp_path / name, "train") for name in ("one", "two")]
    assert [len(log) for log in logs] == [2, 2]
    for a, b in zip(*logs, strict=True):
        for name in ("gan", "dmr", "bre", "generator"):
            assert b[name] == pytest.approx(a[name], rel=2e-3), (name, a, b)
    assert sha256_of(tmp_path / "two" / "weights.safetensors")


def test_processes_must_divide_the_batch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kornia_bingan.train import processes

    monkeypatch.setattr(processes, "world", lambda: 5)
    with pytest.raises(UsageError, match="does not divide by 5"):
        train(preset_config("photos", data, tmp_path / "run", **SMALL))


def test_moving_average_is_what_is_saved(data: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "steps": 6}
    plain = train(preset_config("photos", data, tmp_path / "plain", **changes))
    average = train(preset_config("photos", data, tmp_path / "average", **changes, moving_average=0.9))
    assert plain["sha256"] != average["sha256"]
    state = torch.load(tmp_path / "average" / "checkpoint.pt", weights_only=True)
    saved = load_weights(Path(average["weights"])).state_dict()
    for name, value in state["average"].items():
        assert torch.equal(saved[name], value.half().float() if value.ndim >= 2 else value)
    last = torch.load(tmp_path / "plain" / "checkpoint.pt", weights_only=True)["network"]
    for name, value in state["network"].items():
        assert torch.equal(last[name], value), "the average changes nothing in what is learnt"


def test_shipped_weights_are_adapted_and_can_stop_at_any_step(data: Path, tmp_path: Path) -> None:
    first = train(preset_config("photos", data, tmp_path / "first", **{**SMALL, "steps": 40, "bits": 64}))
    assert 0 <= first["before"]["nearest"] < first["validation"]["nearest"] <= 100
    changes = {key: value for key, value in SMALL.items() if key != "layers"}
    config = preset_config("adapt", data, tmp_path / "adapted", **{**changes, "start": first["weights"]})
    result = train(replace(config, time_limit=1e-6))
    assert result["finished"]
    assert result["steps"] == 1
    assert result["before"]["fpr95"] == pytest.approx(first["validation"]["fpr95"], abs=1), "weights are what was saved"
    adapted = load_weights(Path(result["weights"]))
    assert (adapted.bits, adapted.arguments()["layers"]) == (64, [[8, 2], [16, 2]])
    certificate = read_description(Path(result["weights"]))["training"]
    assert certificate["config"]["start"] == {"name": "weights.safetensors", "sha256": first["sha256"]}
    assert str(tmp_path) not in json.dumps(certificate)
    longer = train(config)
    assert longer["steps"] == SMALL["steps"]
    assert longer["sha256"] != result["sha256"]
    with pytest.raises(UsageError, match="no weights 'absent'"):
        train(replace(config, start="absent"))


def test_from_chooses_the_settings_for_going_on(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--from", "bingan256"]
    small = [
        "--steps",
        "1",
        "--batch-size",
        "8",
        "--photos-per-batch",
        "2",
        "--validation-pairs",
        "20",
        "--threads",
        "1",
    ]
    assert cli.main([*words, *small]) == 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["config"]["preset"], run["config"]["start"]) == ("adapt", "bingan256")
    printed = capsys.readouterr().out
    assert "before" in printed
    assert "nearest" in printed
