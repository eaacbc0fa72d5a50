"""Train on a folder of ordinary photos, without labels.

    bingan train --data PHOTOS --out RUN                      # the recipe of the shipped weights
    bingan train --data PHOTOS --out RUN --preset published   # the published network and objective

One loop serves both networks; the terms of the loss are switched by their weights. The run folder holds ``run.json``
(what was asked, on which machine), ``log.jsonl`` (one line a logged step), ``checkpoint.pt`` and, at the end,
``weights.safetensors``. The same command after a kill goes on from the checkpoint and ends with the same bytes as an
undisturbed run on the CPU, since every random number is a function of the seed and the step.

Source: Zieba et al., "BinGAN", NIPS 2018 (GAN, DMR, BRE); the two-view term after Fan et al., TMM 2021, and Fischer
et al. 2014 (views of one patch must agree, other patches must not).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from kornia_bingan import losses
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.files import atomic_path, sha256_of, write_json
from kornia_bingan.memory import keep_freed_memory
from kornia_bingan.metrics import fpr95
from kornia_bingan.network import NETWORKS, Generator, PatchDiscriminator, PatchTrunk, multiply_adds
from kornia_bingan.optimiser import PublishedAdam
from kornia_bingan.provenance import provenance
from kornia_bingan.views import NO_JITTER, Batch, Jitter, Photo, draw_batch, load_photos, split_photos
from kornia_bingan.weights import save_weights


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Presets are differences from these defaults, see :data:`PRESETS`.

    Attributes:
        data: folder of photos, searched recursively.
        out: run folder; made if absent, continued if it holds the same run.
        preset: name of the preset that the other values started from.
        network: PatchTrunk (for real use) or PatchDiscriminator (as published).
        layers: (channels, stride) of the convolutions of PatchTrunk.
        bits: width of the code.
        steps: optimiser steps of the whole run.
        batch_size: keypoints a step.
        photos_per_batch: photos that a batch is drawn from.
        max_keypoints: strongest keypoints of a photo that are used.
        learning_rate: peak value.
        schedule: cosine to 0 after a warm-up of 2 % of the steps, or constant.
        weight_decay: decoupled, for AdamW (the cosine schedule's optimiser).
        lambda_gan: weight of the GAN loss; 0 trains without a generator.
        lambda_dmr: weight of the distance matching regulariser.
        lambda_bre: weight of the binarised-representation-entropy regulariser.
        lambda_two_view: weight of the two-view term.
        lambda_bit_correlation: weight of the squared correlation between bits.
        gamma: constant of the soft sign in DMR and BRE.
        beta: constant of the pair weights in BRE.
        temperature: of the two-view term.
        shared_pass: one dropout pass for GAN, low and high features instead of one each (published).
        jitter: random changes of the two views.
        precision: auto is bfloat16 where the processor computes in it, else float32.
        device: auto is CUDA if present, else cpu.
        seed: of everything random.
        threads: of torch; 0 is all cores but one, which cuts the patches.
        log_every: steps between lines of the log.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        time_limit: seconds after which the run stops with a checkpoint; 0 is no limit.
    """

    data: Path
    out: Path
    preset: str = "photos"
    network: Literal["PatchTrunk", "PatchDiscriminator"] = "PatchTrunk"
    layers: tuple[tuple[int, int], ...] = ((32, 2), (64, 1), (64, 1), (128, 2), (128, 1))
    bits: int = 256
    steps: int = 6000
    batch_size: int = 1024
    photos_per_batch: int = 12
    max_keypoints: int = 1500
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 1e-4
    lambda_gan: float = 0.0
    lambda_dmr: float = 0.0
    lambda_bre: float = 0.0
    lambda_two_view: float = 1.0
    lambda_bit_correlation: float = 0.1
    gamma: float = losses.GAMMA
    beta: float = losses.BETA
    temperature: float = 0.06
    shared_pass: bool = True
    jitter: Jitter = field(default_factory=Jitter)
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: str = "auto"
    seed: int = 1
    threads: int = 0
    log_every: int = 10
    validate_every: int = 200
    checkpoint_every: int = 100
    time_limit: float = 0.0


PRESETS: dict[str, dict[str, Any]] = {
    "photos": {},
    # The published objective and optimiser on patches of photos; the recipe's epochs are steps here.
    "published": {
        "network": "PatchDiscriminator",
        "batch_size": 25,
        "photos_per_batch": 25,
        "learning_rate": 3e-4,
        "schedule": "constant",
        "weight_decay": 0.0,
        "lambda_gan": 1.0,
        "lambda_dmr": 0.05,
        "lambda_bre": 0.01,
        "lambda_two_view": 0.0,
        "lambda_bit_correlation": 0.0,
        "shared_pass": False,
        "jitter": NO_JITTER,
        "precision": "float32",
    },
}

_NOT_IDENTITY = ("out", "time_limit", "checkpoint_every")  # may differ when a run is continued
_VALIDATION_PAIRS = 1000


def preset_config(preset: str, data: Path, out: Path, **changes: Any) -> TrainConfig:
    """Build the configuration of a preset with named changes.

    Raises:
        UsageError: the preset is unknown.
    """
    if preset not in PRESETS:
        raise UsageError(f"the preset is '{preset}'; choose one of {', '.join(PRESETS)}")
    return TrainConfig(data=data, out=out, preset=preset, **{**PRESETS[preset], **changes})


def _describe_config(config: TrainConfig) -> dict[str, Any]:
    values = dataclasses.asdict(config)
    return json.loads(json.dumps({**values, "data": str(config.data), "out": str(config.out)}))  # type: ignore[no-any-return]


def _check(config: TrainConfig) -> None:
    if config.steps < 1 or config.batch_size < 2:
        raise UsageError(f"steps is {config.steps} and batch_size {config.batch_size}; give at least 1 and 2")
    terms = ("lambda_gan", "lambda_dmr", "lambda_bre", "lambda_two_view", "lambda_bit_correlation")
    if all(getattr(config, term) == 0 for term in terms) or any(getattr(config, term) < 0 for term in terms):
        raise UsageError(f"the weights of the loss are {[getattr(config, t) for t in terms]}; some must be above 0")


class _Run:
    """The state of a training run: networks, optimisers and the number of finished steps."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
        self.device = torch.device(name)
        bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and _has_bfloat16(self.device))
        self.precision = torch.bfloat16 if bfloat16 else torch.float32
        torch.manual_seed(config.seed)
        arguments: dict[str, Any] = {"bits": config.bits}
        if config.network == "PatchTrunk":
            arguments["layers"] = config.layers
        network = NETWORKS[config.network](**arguments)
        generator = Generator(network.channels) if config.lambda_gan > 0 else None
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.optimiser = self._optimiser(self.network)
        self.generator = generator.to(self.device, memory_format=torch.channels_last) if generator else None
        self.generator_optimiser = self._optimiser(self.generator) if self.generator else None
        self.step = 0
        self.seconds = 0.0

    def _optimiser(self, module: nn.Module) -> torch.optim.Optimizer:
        config = self.config
        if config.schedule == "constant":
            return PublishedAdam(module.parameters(), config.learning_rate)
        decayed = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=config.learning_rate)

    def learning_rate(self) -> float:
        config = self.config
        if config.schedule == "constant":
            return config.learning_rate
        warmup = max(1, config.steps // 50)
        rise = min(1.0, (self.step + 1) / warmup)
        return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * self.step / config.steps))

    def prepare(self, patches: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
        x = self.network.prepare(torch.from_numpy(patches).to(self.device))
        return x.contiguous(memory_format=torch.channels_last)

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        if self.generator is not None and self.generator_optimiser is not None:
            state["generator"] = self.generator.state_dict()
            state["generator_optimiser"] = self.generator_optimiser.state_dict()
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.generator is not None and self.generator_optimiser is not None:
            self.generator.load_state_dict(state["generator"])
            self.generator_optimiser.load_state_dict(state["generator_optimiser"])


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def discriminator_losses(run: _Run, batch: Batch) -> dict[str, Tensor]:
    """Compute the terms of the discriminator's loss that have a weight, by name, unweighted."""
    config, network = run.config, run.network
    terms: dict[str, Tensor] = {}
    two_views = config.lambda_two_view > 0
    count = len(batch.patches0)
    real = run.prepare(np.concatenate([batch.patches0, batch.patches1]) if two_views else batch.patches0)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == torch.bfloat16):
        taps = network(real)
        low, high = taps.low, taps.high
        if config.lambda_gan > 0 and run.generator is not None:
            with torch.no_grad():
                fake = run.generator(run.generator.sample_noise(len(real)))
            terms["gan"] = losses.gan_discriminator(taps.logits.float(), network(fake).logits.float())
        if not config.shared_pass and (config.lambda_dmr > 0 or config.lambda_bre > 0):
            # The published code evaluates each tap in a pass with dropout of its own.
            low, high = network.describe(real), network(real).high
    low, high = low.float(), high.float()
    if config.lambda_dmr > 0:
        terms["dmr"] = losses.distance_matching(high, low, config.gamma)
    if config.lambda_bre > 0:
        terms["bre"] = losses.binarized_entropy(high, low, config.gamma, config.beta)
    if two_views:
        ignore = torch.from_numpy(batch.ignore).to(run.device)
        terms["two_view"] = losses.two_view(low[:count], low[count:], config.temperature, ignore)
    if config.lambda_bit_correlation > 0:
        terms["bit_correlation"] = losses.bit_correlation(low)
    return terms


def train_step(run: _Run, batch: Batch, generator_batch: Batch | None) -> dict[str, float]:
    """Take one step of the discriminator and, if there is a generator, one of the generator."""
    config = run.config
    torch.manual_seed(int(np.random.SeedSequence([config.seed, run.step]).generate_state(1)[0]))
    run.network.train()
    rate = run.learning_rate()
    for optimiser in (run.optimiser, run.generator_optimiser):
        for group in optimiser.param_groups if optimiser else ():
            group["lr"] = rate
    terms = discriminator_losses(run, batch)
    total = torch.stack([getattr(config, f"lambda_{name}") * value for name, value in terms.items()]).sum()
    run.optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    run.optimiser.step()
    record = {name: float(value.detach()) for name, value in terms.items()}
    if run.generator is not None and run.generator_optimiser is not None and generator_batch is not None:
        real = run.prepare(generator_batch.patches0)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == torch.bfloat16):
            with torch.no_grad():
                target = run.network(real).matching
            fake = run.generator(run.generator.sample_noise(len(real)))
            loss = losses.feature_matching(target.float(), run.network(fake).matching.float())
        run.generator_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.generator_optimiser.step()
        record["generator"] = float(loss.detach())
    if not all(math.isfinite(value) for value in record.values()):
        raise JobError(f"step {run.step}: the loss is not finite ({record}); lower the learning rate")
    return {**record, "learning_rate": rate}


@torch.no_grad()
def validate(run: _Run, batch: Batch) -> dict[str, float]:
    """Measure FPR@95 of codes and descriptors and the balance of the bits on two views of unseen photos.

    Matches are the two views of a keypoint, non-matches the views of different keypoints of the batch, half of them of
    one photo. A bit is stuck when it is equal on more than 99 % of the patches.
    """
    run.network.eval()
    low0, low1 = (
        torch.cat([run.network.describe(run.prepare(part)) for part in np.array_split(patches, 4)]).float().cpu()
        for patches in (batch.patches0, batch.patches1)
    )
    result: dict[str, float] = {}
    for name, a, b in (("fpr95", losses.hard_sign(low0), losses.hard_sign(low1)), ("fpr95_descriptor", low0, low1)):
        rolled = [torch.roll(b, shift, 0) for shift in (1, len(b) // 2)]
        non_matches = torch.cat([(a - other).norm(dim=1) for other in rolled])
        known = torch.from_numpy(np.concatenate([_rolled_diagonal(batch.ignore, s) for s in (1, len(b) // 2)]))
        result[name] = fpr95((a - b).norm(dim=1), non_matches[~known])
    ones = (torch.cat([low0, low1]) >= 0).float().mean(0)
    result["ones_mean"], result["ones_min"], result["ones_max"] = float(ones.mean()), float(ones.min()), float(ones.max())
    result["stuck_bits"] = int(((ones < 0.01) | (ones > 0.99)).sum())
    return result


def _rolled_diagonal(matrix: np.ndarray[Any, np.dtype[np.bool_]], shift: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    rows = np.arange(len(matrix))
    return matrix[rows, (rows - shift) % len(matrix)]


def _batches(config: TrainConfig, photos: list[Photo], first: int) -> Iterator[tuple[Batch, Batch | None]]:
    """Give the batches of the steps from ``first`` on; the next one is cut while the current one is learnt."""

    def draw(step: int) -> tuple[Batch, Batch | None]:
        def one(stream: int, size: int) -> Batch:
            rng = np.random.default_rng([config.seed, step, stream])
            return draw_batch(photos, size, config.photos_per_batch, config.jitter, rng)

        size = config.batch_size
        return one(0, size), one(1, size) if config.lambda_gan > 0 else None

    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(draw, step) for step in range(first, min(first + 2, config.steps))]
        for step in range(first, config.steps):
            batch = ahead.pop(0).result()
            if step + 2 < config.steps:
                ahead.append(pool.submit(draw, step + 2))
            yield batch


def _open_run(config: TrainConfig, photos: list[Photo], run: _Run) -> None:
    """Make the run folder, or continue in it if it holds the same run."""
    identity = {k: v for k, v in _describe_config(config).items() if k not in _NOT_IDENTITY}
    identity["photos"] = len(photos)
    path, checkpoint = config.out / "run.json", config.out / "checkpoint.pt"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))["identity"]
        changed = sorted(key for key in identity.keys() | known.keys() if identity.get(key) != known.get(key))
        if changed:
            raise UsageError(
                f"{config.out} holds a run with other settings ({', '.join(changed)}: {known.get(changed[0])}, now "
                f"{identity.get(changed[0])}); give another --out, or the same settings to continue it"
            )
    elif config.out.exists() and any(config.out.iterdir()):
        raise UsageError(f"{config.out} is not empty and holds no run; give another --out")
    else:
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"identity": identity, "config": _describe_config(config), "provenance": provenance()})
    if checkpoint.exists():
        run.load(checkpoint)
    log = config.out / "log.jsonl"
    if log.exists():  # lines after the checkpoint belong to steps that are taken again
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= run.step]
        with atomic_path(log) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def train(config: TrainConfig) -> dict[str, Any]:
    """Run a training to its end, or to its time limit.

    Returns:
        ``steps``, ``finished``, ``weights`` (path, None before the end), ``validation`` (the last one), ``seconds``.

    Raises:
        UsageError: the data has no photos, the settings contradict each other, or ``out`` holds something else.
        JobError: the loss is no longer finite.
    """
    _check(config)
    started = time.monotonic()
    if config.device in ("auto", "cpu"):
        keep_freed_memory()
    torch.set_num_threads(config.threads or max(1, torch.get_num_threads() - 1))
    cv2.setNumThreads(1)
    photos = load_photos(config.data, config.max_keypoints)
    run = _Run(config)
    _open_run(config, photos, run)
    learnt, aside = split_photos(photos)
    validation = draw_batch(aside, _VALIDATION_PAIRS, min(len(aside), 16), Jitter(), np.random.default_rng(config.seed))
    if run.step == 0:
        _initialise(run, learnt)
    last: dict[str, float] = {}
    before = run.seconds
    loop_started = time.monotonic()
    finished = True
    with (
        open(config.out / "log.jsonl", "a", encoding="utf-8", buffering=1) as log,
        tqdm(total=config.steps, initial=run.step, desc="train", unit="step") as bar,
    ):

        def write(kind: str, values: dict[str, float]) -> None:
            log.write(json.dumps({"step": run.step, "kind": kind, **values}) + "\n")

        if run.step == 0:
            write("validation", validate(run, validation))
        for batch, generator_batch in _batches(config, learnt, run.step):
            record = train_step(run, batch, generator_batch)
            run.step += 1
            run.seconds = before + time.monotonic() - loop_started
            bar.update()
            if run.step % config.log_every == 0:
                write("train", {**record, "seconds": round(run.seconds, 2)})
                bar.set_postfix({k: f"{v:.3g}" for k, v in record.items()})
            if run.step % config.validate_every == 0 or run.step == config.steps:
                last = validate(run, validation)
                write("validation", last)
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                run.save(config.out / "checkpoint.pt")
            if config.time_limit and time.monotonic() - started > config.time_limit and run.step < config.steps:
                run.save(config.out / "checkpoint.pt")
                finished = False
                break
    weights = config.out / "weights.safetensors"
    if finished:
        save_weights(weights, run.network, _birth_certificate(config, run, photos))
    return {
        "steps": run.step,
        "finished": finished,
        "weights": str(weights) if finished else None,
        "sha256": sha256_of(weights) if finished else None,
        "multiply_adds": multiply_adds(run.network),
        "validation": last or validate(run, validation),
        "seconds": round(run.seconds, 1),
    }


def _initialise(run: _Run, photos: list[Photo]) -> None:
    """Data-based initialisation: 500 random real patches for the network, one batch of noise for the generator."""
    if not isinstance(run.network, PatchDiscriminator):
        return
    rng = np.random.default_rng([run.config.seed, 2**31])
    batch = draw_batch(photos, 500, min(len(photos), 100), run.config.jitter, rng)
    run.network.train()
    run.network.initialise(run.prepare(batch.patches0))
    if run.generator is not None:
        run.generator.initialise(run.generator.sample_noise(max(2, run.config.batch_size)))


def _birth_certificate(config: TrainConfig, run: _Run, photos: list[Photo]) -> dict[str, Any]:
    # No times, machines or paths: equal runs give equal files. Those stand in run.json beside the weights.
    values = _describe_config(config)
    for key in ("data", "out", "time_limit", "checkpoint_every"):
        values.pop(key)
    keypoints = sum(len(photo.lafs) for photo in photos)
    return {"config": values, "steps": run.step, "photos": len(photos), "keypoints": keypoints, "precision": str(run.precision)}
