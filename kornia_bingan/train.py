"""Train on a folder of ordinary photos, without labels.

    bingan train --data PHOTOS --out RUN                      # the recipe of the shipped weights
    bingan train --data PHOTOS --out RUN --preset brown   # the published network and objective

One loop serves both networks; the terms of the loss are switched by their weights. The run folder holds ``run.json``
(what was asked, on which machine), ``log.jsonl`` (one line a logged step), ``checkpoint.pt`` and, at the end,
``weights.safetensors``. The same command after a kill goes on from the checkpoint and ends with the same bytes as an
undisturbed run on the CPU, since every random number is a function of the seed and the step.

Source: Zieba et al., "BinGAN", NIPS 2018 (GAN, DMR, BRE); the two-view term after Fan et al., TMM 2021, and Fischer
et al. 2014 (views of one patch must agree, other patches must not).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
from kornia_bingan.network import NETWORKS, Generator, PatchDiscriminator, multiply_adds
from kornia_bingan.optimiser import PublishedAdam
from kornia_bingan.provenance import provenance
from kornia_bingan.recipe import TrainConfig, check_config, describe_config
from kornia_bingan.views import Batch, Jitter, Photo, draw_batch, load_photos, split_photos
from kornia_bingan.weights import save_weights

_NOT_IDENTITY = ("out", "time_limit", "checkpoint_every")  # may differ when a run is continued


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
        self.network = network.to(self.device)
        _channels_last(self.network)
        self.optimiser = self._optimiser(self.network)
        self.generator = generator.to(self.device) if generator else None
        if self.generator:
            _channels_last(self.generator)
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
        x: Tensor = self.network.prepare(torch.from_numpy(patches).to(self.device))
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
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _channels_last(module: nn.Module) -> None:
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


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
    result["ones_mean"], result["ones_min"], result["ones_max"] = (
        float(ones.mean()),
        float(ones.min()),
        float(ones.max()),
    )
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
    identity = {k: v for k, v in describe_config(config).items() if k not in _NOT_IDENTITY}
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
        write_json(path, {"identity": identity, "config": describe_config(config), "provenance": provenance()})
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
    check_config(config)
    started = time.monotonic()
    if config.device in ("auto", "cpu"):
        keep_freed_memory()
    torch.set_num_threads(config.threads or max(1, torch.get_num_threads() - 1))
    cv2.setNumThreads(1)
    photos = load_photos(config.data, config.max_keypoints)
    run = _Run(config)
    _open_run(config, photos, run)
    learnt, aside = split_photos(photos)
    validation = draw_batch(
        aside, config.validation_pairs, min(len(aside), 16), Jitter(), np.random.default_rng(config.seed)
    )
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
    values = describe_config(config)
    for key in ("data", "out", "time_limit", "checkpoint_every"):
        values.pop(key)
    keypoints = sum(len(photo.lafs) for photo in photos)
    return {
        "config": values,
        "steps": run.step,
        "photos": len(photos),
        "keypoints": keypoints,
        "precision": str(run.precision),
    }
