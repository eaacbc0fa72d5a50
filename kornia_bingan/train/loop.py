"""Train on a folder of ordinary photos, without labels.

    bingan train --data PHOTOS --out RUN                      # the recipe of the shipped weights
    bingan train --data PHOTOS --out RUN --preset brown --steps 4000    # the published objective
    bingan train --data PHOTOS --out RUN --from bingan256 --time-limit 600    # shipped weights, adapted to your photos
    bingan train --data SETS --train liberty --validate notredame --preset brown --out RUN
    torchrun --nproc-per-node 2 -m kornia_bingan.cli train --data PHOTOS --out RUN    # on several processes

One loop serves both networks; the terms of the loss are switched by their weights. The run folder holds ``run.json``
(what was asked, on which machine), ``log.jsonl`` (one line a logged step), ``checkpoint.pt`` and, at the end,
``weights.safetensors`` with ``curves.png`` and ``patches.png``. After a kill, the same command resumes from the
checkpoint and ends with the same bytes as an undisturbed run on the CPU, since every random number is a function of
the seed and the step.

Source: Zieba et al., "BinGAN", NIPS 2018 (GAN, DMR, BRE); the two-view term after Fan et al., TMM 2021, and Fischer
et al. 2014 (views of one patch must agree, other patches must not).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from kornia_bingan import losses
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import log_skipped
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.published import ImageDiscriminator, Network, PatchTrunk, multiply_adds
from kornia_bingan.network.taps import Taps
from kornia_bingan.network.weights import find_weights, load_weights, save_weights
from kornia_bingan.train import processes
from kornia_bingan.train.batches import Source, draw_ahead, drawer_of_pictures, open_source
from kornia_bingan.train.config import TrainConfig, check_config, describe_config
from kornia_bingan.train.folder import NOT_IDENTITY, check_out, open_run, resume
from kornia_bingan.train.frames import frame_losses
from kornia_bingan.train.jitter import Batch
from kornia_bingan.train.neighbours import neighbours_of_run
from kornia_bingan.train.plots import draw_log, draw_patches, write_tensorboard
from kornia_bingan.train.state import TrainingState
from kornia_bingan.train.validation import validate
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.memory import keep_freed_memory
from kornia_bingan.work.run_folder import LOG, LOG_FILE, log_to, no_progress


def discriminator_losses(state: TrainingState, batch: Batch) -> dict[str, Tensor]:
    """Compute the terms of the discriminator's loss that have a weight, by name, unweighted."""
    config = state.config
    two_views = config.needs_two_views
    views = [batch.patches0, batch.patches1] if two_views else [batch.patches0]
    real = torch.cat([state.prepare(view) for view in views])
    real = real.contiguous(memory_format=torch.channels_last)
    fake = None
    with state.autocast():
        if state.generator is not None:
            with torch.no_grad():
                # All rows on every process, since the generator normalises by the statistics of its batch.
                noise = state.generator.sample_noise(len(batch.patches0) * len(views), state.noise)
                fake = processes.share(state.generator(noise))
        regularised = config.lambda_dmr > 0 or config.lambda_bre > 0
        taps, low, high = _run_discriminator(
            state.network, real, fake, own_passes=regularised and not config.shared_pass
        )
    terms: dict[str, Tensor] = {}
    if fake is not None:
        logits = taps.logits.float()
        terms["gan"] = losses.gan_discriminator(
            processes.gather(logits[: len(real)]), processes.gather(logits[len(real) :])
        )
    lows = [processes.gather(part) for part in low.float().chunk(len(views))]
    low = torch.cat(lows)
    if regularised:
        high = torch.cat([processes.gather(part) for part in high.detach().float().chunk(len(views))])
        if config.centre_high:
            high = high - high.mean(0)
    if config.lambda_dmr > 0:
        terms["dmr"] = losses.distance_matching(high, low, config.gamma)
    if config.lambda_bre > 0:
        terms["bre"] = _entropy(config, high, low)
    ignore = batch.ignore.to(state.device) if two_views else None
    if config.lambda_two_view > 0:
        noisy = [part + config.code_noise * torch.randn_like(part) for part in lows] if config.code_noise else lows
        each = [
            losses.two_view(noisy[0][:, :width], noisy[1][:, :width], config.temperature, ignore)
            for width in (config.bits, *config.nested)
        ]
        terms["two_view"] = torch.stack(each).mean()
    if config.lambda_descriptor > 0:
        terms["descriptor"] = losses.two_view(lows[0], lows[1], config.temperature, ignore, codes=False)
    if config.lambda_projection > 0:
        first, second = (processes.gather(part) for part in taps.matching[: len(real)].float().chunk(2))
        terms["projection"] = losses.two_view(first, second, config.projection_temperature, ignore, codes=False)
    if config.lambda_second_order > 0:
        terms["second_order"] = losses.second_order(lows[0], lows[1])
    if config.lambda_quantisation > 0:
        terms["quantisation"] = losses.quantisation(low)
    if config.lambda_bit_correlation > 0:
        terms["bit_correlation"] = losses.bit_correlation(low)
    return terms


def _entropy(config: TrainConfig, high: Tensor, low: Tensor) -> Tensor:
    if config.bre == "original":
        return losses.original_entropy(low)
    normaliser: Literal["pairs", "alpha"] = "alpha" if config.bre == "normalised" else "pairs"
    return losses.binarized_entropy(high, low, config.gamma, config.beta, normaliser)


def _run_discriminator(
    network: Network, real: Tensor, fake: Tensor | None, *, own_passes: bool
) -> tuple[Taps, Tensor, Tensor]:
    """Run real and generated patches: the taps of both, and the low and high features of the real ones.

    With ``own_passes`` the low and the high features come from passes of their own, with dropout of their own, as in
    the published code. A network without batch statistics treats its rows alone, so that all passes are one.
    """
    count = len(real)
    if network.uses_batch_statistics:
        taps = network(real)
        if fake is not None:
            taps = Taps(*(torch.cat(pair) for pair in zip(taps, network(fake), strict=True)))
        if own_passes:
            return taps, network.describe(real), network(real).high
        return taps, taps.low[:count], taps.high[:count]
    generated = 0 if fake is None else len(fake)
    rows = [real] if fake is None else [real, fake]
    every = network(torch.cat([*rows, real, real] if own_passes else rows))
    taps = Taps(*(tap[: count + generated] for tap in every))
    if own_passes:
        start = count + generated
        return taps, every.low[start : start + count], every.high[start + count :]
    return taps, taps.low[:count], taps.high[:count]


def generator_loss(state: TrainingState, batch: Batch) -> Tensor:
    """Compute the feature matching loss of the generator against a batch of real patches."""
    assert state.generator is not None
    with state.autocast():
        real = state.prepare(batch.patches0)
        fake = processes.share(state.generator(state.generator.sample_noise(len(batch.patches0), state.noise)))
        if state.network.uses_batch_statistics:
            with torch.no_grad():
                target = state.network(real).matching
            matching = state.network(fake).matching
        else:
            target, matching = state.network(torch.cat([real, fake])).matching.chunk(2)
    return losses.feature_matching(processes.gather(target.detach().float()), processes.gather(matching.float()))


def train_step(state: TrainingState, batch: Batch, generator_batch: Batch | None = None) -> dict[str, float]:
    """Take one step of the discriminator and, if there is a generator, one of the generator."""
    config = state.config
    # Noise is the same on all processes, dropout is not.
    state.noise.manual_seed(_seed_of(config.seed, state.step, 0))
    torch.manual_seed(_seed_of(config.seed, state.step, 1 + processes.rank()))
    state.set_training()
    rate = state.set_learning_rate()
    terms = (frame_losses if config.lambda_frames > 0 else discriminator_losses)(state, batch)
    total = torch.stack([getattr(config, f"lambda_{name}") * value for name, value in terms.items()]).sum()
    _step(state.optimiser, state.network, total)
    # one transfer for all, since each makes a GPU wait
    record = dict(zip(terms, torch.stack(list(terms.values())).detach().tolist(), strict=True))
    if state.generator is not None and state.generator_optimiser is not None and generator_batch is not None:
        for parameter in state.network.parameters():
            parameter.requires_grad_(False)  # the generator learns alone
        loss = generator_loss(state, generator_batch)
        _step(state.generator_optimiser, state.generator, loss)
        for parameter in state.network.parameters():
            parameter.requires_grad_(True)
        record["generator"] = float(loss.detach())
    if not all(math.isfinite(value) for value in record.values()):
        raise JobError(f"step {state.step}: the loss is not finite ({record}); lower the learning rate")
    state.update_average()
    return {**record, "learning_rate": rate}


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _step(optimiser: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    processes.average_gradients(module)
    optimiser.step()


def with_start(config: TrainConfig) -> TrainConfig:
    """Take network, layers and bits from the weights that a run starts from.

    Raises:
        UsageError: there are no such weights.
    """
    if not config.start:
        return config
    network = load_weights(find_weights(config.start))
    changes: dict[str, Any] = {"network": type(network).__name__, "bits": network.bits}
    if isinstance(network, PatchTrunk):
        changes["layers"] = network.sizes
    elif isinstance(network, PictureNetwork):
        changes["stages"] = network.stages
    elif isinstance(network, ImageDiscriminator):
        changes["normalise"] = network.normalise
    else:
        changes["standardise"] = network.standardise
    return replace(config, **changes)


def train(config: TrainConfig) -> dict[str, Any]:
    """Run a training to its end, or to its time limit.

    Returns:
        ``steps``, ``finished``, ``weights`` (path, None before the end), ``validation`` (the last one), ``seconds``,
        ``steps_per_second`` and ``patches_per_second`` of the learning itself, and ``skipped``, the name and the
        reason of each file that was not learnt from.

    Raises:
        UsageError: the data has no photos, the settings contradict each other, or ``out`` holds something else.
        JobError: the loss is no longer finite.
    """
    config = with_start(config)
    check_config(config)
    started = time.monotonic()
    if config.device in ("auto", "cpu"):
        keep_freed_memory()
    torch.set_num_threads(config.threads or max(1, torch.get_num_threads() - 1))
    cv2.setNumThreads(1)
    device = processes.local_device(config.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32: products of codes are exact in it
    processes.start(device.type)
    try:
        if config.batch_size % processes.world():
            raise UsageError(f"a batch of {config.batch_size} does not divide by {processes.world()} processes")
        check_out(config.out)
        source = open_source(config)
        open_run(config, source)
        with log_to(config.out / LOG_FILE) if processes.rank() == 0 else nullcontext():
            log_skipped(source.skipped)
            state = TrainingState(config)
            resume(config, state)
            LOG.info("from step %d to %d", state.step, config.steps)
            return _learn(config, source, state, started)
    finally:
        processes.stop()


def _learn(config: TrainConfig, source: Source, state: TrainingState, started: float) -> dict[str, Any]:
    writes = processes.rank() == 0
    if state.step == 0:
        _initialise(state, source)
    last: dict[str, float] = {}
    first, before, loop_started = state.step, state.seconds, time.monotonic()
    finished = True
    hidden = True if not writes else no_progress()
    with (
        open(config.out / "log.jsonl" if writes else os.devnull, "a", encoding="utf-8", buffering=1) as log,
        tqdm(total=config.steps, initial=state.step, desc="train", unit="step", disable=hidden) as bar,
    ):

        def write(kind: str, values: dict[str, float]) -> None:
            log.write(json.dumps({"step": state.step, "kind": kind, **values}) + "\n")

        if state.step == 0 and writes:
            write("validation", validate(state, source.validation))
        for batches in _batches(config, source, state):
            record = train_step(state, *batches)
            state.step += 1
            state.seconds = before + time.monotonic() - loop_started
            bar.update()
            ends = state.step == config.steps
            out_of_time = bool(config.time_limit) and time.monotonic() - started > config.time_limit and not ends
            if writes and state.step % config.log_every == 0:
                write("train", {**record, "seconds": round(state.seconds, 2)})
                bar.set_postfix({k: f"{v:.3g}" for k, v in record.items()})
            stops = ends or (out_of_time and config.can_stop_anywhere)
            if writes and (state.step % config.validate_every == 0 or stops):
                last = validate(state, source.validation)
                write("validation", last)
            if writes and (state.step % config.checkpoint_every == 0 or ends or out_of_time):
                state.save(config.out / "checkpoint.pt")
            if out_of_time:
                finished = config.can_stop_anywhere
                break
    weights = config.out / "weights.safetensors"
    if finished and writes:
        save_weights(weights, state.result(), _birth_certificate(config, state, source))
    if writes:
        draw_log(config.out)
        draw_patches(config.out, source.validation.patches, state.generator, config.seed)
        if config.tensorboard:
            write_tensorboard(config.out)
    processes.wait()
    taken = state.seconds - before
    lines = (config.out / "log.jsonl").read_text(encoding="utf-8").splitlines() if writes else []
    validations = [line for line in map(json.loads, lines) if line["kind"] == "validation"]
    rate = (state.step - first) / taken if taken > 0 else 0.0
    return {
        "steps": state.step,
        "finished": finished,
        "weights": str(weights) if finished else None,
        "sha256": sha256_of(weights) if finished else None,
        "multiply_adds": multiply_adds(state.network),
        "before": {k: v for k, v in validations[0].items() if k not in ("step", "kind")} if validations else {},
        "validation": last or validate(state, source.validation),
        "seconds": round(state.seconds, 1),
        "steps_per_second": round(rate, 3),
        "patches_per_second": round(rate * config.batch_size * (2 if config.needs_two_views else 1), 1),
        "skipped": [{"name": item.name, "reason": item.reason} for item in source.skipped],
    }


def _batches(config: TrainConfig, source: Source, state: TrainingState) -> Iterator[tuple[Batch, ...]]:
    """Give the batches of the steps that are left, from some step on of neighbours, if they are asked for."""
    turn = config.neighbours_from if config.neighbours else config.steps
    yield from draw_ahead(config, source, state.step, turn)
    if state.step < config.steps and source.pictures is not None:
        draw = drawer_of_pictures(config, source.pictures, neighbours_of_run(config, state, source))
        yield from draw_ahead(config, replace(source, draw=draw), state.step)


def _initialise(state: TrainingState, source: Source) -> None:
    """Data-based initialisation: 500 real patches for the network, a batch of noise for the generator."""
    if state.network.uses_batch_statistics or state.config.start:
        return
    if source.first is not None:
        patches = torch.from_numpy(source.first)
    else:
        count = -(-500 // state.config.batch_size)
        patches = torch.cat([source.draw(step, 2).patches0 for step in range(count)])[:500]
    state.network.train()
    state.network.initialise(state.network.prepare(patches.to(state.device)))
    if state.generator is not None:
        state.generator.initialise(state.generator.sample_noise(max(2, state.config.batch_size), state.noise))
    if state.average is not None:
        state.average.load_state_dict(state.network.state_dict())


def _birth_certificate(config: TrainConfig, state: TrainingState, source: Source) -> dict[str, Any]:
    # No times, machines or paths: equal runs give equal files. Those stand in run.json beside the weights.
    values = describe_config(config)
    for key in ("data", *NOT_IDENTITY):
        values.pop(key)
    if config.start:
        # A file's path would be one of this machine; its content is what counts.
        values["start"] = {"name": Path(config.start).name, "sha256": sha256_of(find_weights(config.start))}
    values["tracks"] = [folder.name for folder in config.tracks]
    return {"config": values, "precision": str(state.precision), **source.contents}
