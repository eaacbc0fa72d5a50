"""Speed of a training step of the published recipe, against a straightforward implementation.

    python -m eval train_speed [--steps 12] [--threads 1] [--out eval/results/train-speed.json]

Both do the same: one step of the discriminator with separate dropout for the GAN term, the low and the high features,
and one step of the generator, on 25 patches, with the published optimiser. Straightforward means float32, NCHW, one
pass of the discriminator for each of these, gradients of the discriminator also in the generator's step, and freed
memory given back to the system. The two take turns, step by step, in one process; medians are compared. The setting of
the memory allocator cannot be changed back within a process, so it is measured in a second one (``--keep-memory``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

from eval.harness.columns import Column, text_of
from eval.harness.command import GIVEN, OptionalOut, command_line
from eval.harness.records import write_json
from kornia_bingan import losses
from kornia_bingan.network.published import Generator, PatchDiscriminator
from kornia_bingan.train.adam import PublishedAdam
from kornia_bingan.train.config import preset_config
from kornia_bingan.train.jitter import Batch
from kornia_bingan.train.loop import train_step
from kornia_bingan.train.state import TrainingState
from kornia_bingan.work.memory import keep_freed_memory
from kornia_bingan.work.provenance import provenance

SEED = 1
WARM_UP = 2
PATCHES = 25

COLUMNS = (
    Column("step", "step"),
    Column("freed memory", "freed_memory"),
    Column("steps / s", lambda r: 1 / r["seconds"], ".2f"),
    Column("patches / s", lambda r: PATCHES / r["seconds"], ".0f"),
    Column("x straightforward", "ratio", ".2f"),
)


def straightforward(batch: Batch) -> Callable[[], None]:
    """Give a step as the formulas are written down."""
    network, generator = PatchDiscriminator().train(), Generator().train()
    optimisers = PublishedAdam(network.parameters()), PublishedAdam(generator.parameters())
    real = network.prepare(batch.patches0).contiguous()

    def step() -> None:
        fake = generator(generator.sample_noise(len(real)))
        gan = losses.gan_discriminator(network(real).logits, network(fake.detach()).logits)
        low, high = network(real).low, network(real).high
        loss = gan + 0.05 * losses.distance_matching(high, low) + 0.01 * losses.binarized_entropy(high, low)
        optimisers[0].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimisers[0].step()
        fake = generator(generator.sample_noise(len(real)))
        loss = losses.feature_matching(network(real).matching, network(fake).matching)
        optimisers[1].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimisers[1].step()

    return step


def ours(batch: Batch, precision: str) -> Callable[[], None]:
    """Give a step of ``bingan train --preset brown``."""
    state = TrainingState(preset_config("brown", Path(), Path(), precision=precision))

    def step() -> None:
        train_step(state, batch, batch)
        state.step += 1

    return step


def measure(steps: int) -> dict[str, float]:
    """Give the median seconds of a step of each implementation, taking turns."""
    rng = np.random.default_rng(SEED)
    patches = torch.from_numpy(rng.random((PATCHES, 1, 32, 32), np.float32))
    batch = Batch(patches, patches, torch.zeros(PATCHES, PATCHES, dtype=torch.bool))
    torch.manual_seed(SEED)
    implementations = {
        "straightforward": straightforward(batch),
        "ours float32": ours(batch, "float32"),
        "ours bfloat16": ours(batch, "bfloat16"),
    }
    times: dict[str, list[float]] = {name: [] for name in implementations}
    for turn in range(WARM_UP + steps):
        for name, step in implementations.items():
            started = time.perf_counter()
            step()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in times.items()}


@command_line("train_speed")
def main(steps: int = 12, threads: int = 1, out: OptionalOut = None, keep_memory: bool = False) -> int:
    """Take turns.

    Args:
        steps: of each implementation.
        threads: of torch.
        keep_memory: print one measurement with memory kept, as JSON.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    if keep_memory:
        keep_freed_memory()
        print(json.dumps(measure(steps)))
        return 0
    given_back = measure(steps)
    again = [sys.executable, "-m", "eval", "train_speed", "--keep-memory"]
    again += ["--steps", str(steps), "--threads", str(threads)]
    kept = json.loads(subprocess.run(again, check=True, capture_output=True, text=True).stdout)
    base = given_back["straightforward"]
    rows = [(name, "given back", value) for name, value in given_back.items()]
    rows += [(name, "kept", value) for name, value in kept.items()]
    records = [
        {"step": name, "freed_memory": memory, "seconds": value, "ratio": base / value} for name, memory, value in rows
    ]
    print(text_of(COLUMNS, records))
    if out:
        write_json(
            out,
            {
                "protocol": "train_speed",
                "command": "python -m eval train_speed " + " ".join(GIVEN.get()),
                "threads": threads,
                "results": records,
                "provenance": provenance(seed=SEED),
            },
        )
    return 0
