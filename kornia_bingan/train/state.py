"""What a training run carries from step to step: networks, optimisers, moving average, and their checkpoint."""

from __future__ import annotations

import math
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kornia_bingan.errors import UsageError
from kornia_bingan.network.frames import FrameNetwork
from kornia_bingan.network.pictures import PictureNetwork
from kornia_bingan.network.published import (
    NETWORKS,
    Generator,
    ImageDiscriminator,
    Network,
    PatchDiscriminator,
    PatchTrunk,
)
from kornia_bingan.network.weights import find_weights, load_weights
from kornia_bingan.train import processes
from kornia_bingan.train.adam import OrthogonalMomentum, PublishedAdam
from kornia_bingan.train.config import TrainConfig
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.machine import has_bfloat16

WARM_UP = 50

Module = TypeVar("Module", bound=nn.Module)


class TrainingState:
    """Networks and optimisers of a run, and the number of finished steps.

    Attributes:
        network: the discriminator that is trained.
        generator: None if the GAN term has no weight.
        average: moving average of the network, None if the recipe has none.
        noise: random numbers of the generator's input, the same in all processes.
        step: finished steps.
        seconds: spent in them, over all slices of the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.device = processes.local_device(config.device)
        bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16(self.device))
        self.precision = torch.bfloat16 if bfloat16 else torch.float32
        torch.manual_seed(config.seed)
        self.network = self._place(load_weights(find_weights(config.start)) if config.start else _network(config))
        if isinstance(self.network, PatchDiscriminator | ImageDiscriminator):
            self.network.dropout = config.dropout
        if config.lambda_frames > 0:
            self._prepare_frames()
        if config.only_codes:
            self.network.requires_grad_(False)
            self._code_layer().requires_grad_(True)
        self.optimiser = self._optimiser(self.network)
        self.generator = self._place(Generator(self.network.channels)) if config.lambda_gan > 0 else None
        self.generator_optimiser = self._optimiser(self.generator) if self.generator is not None else None
        self.average: Network | None = None
        if config.moving_average > 0:
            self.average = deepcopy(self.network)
        self.noise = torch.Generator(self.device).manual_seed(config.seed)
        self.step = 0
        self.seconds = 0.0

    def _place(self, module: Module) -> Module:
        module.to(self.device)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    def _prepare_frames(self) -> None:
        assert isinstance(self.network, PatchTrunk)
        if self.network.frames is None:
            self.network.frames = self._place(FrameNetwork())
        self.network.requires_grad_(False)
        self.network.frames.requires_grad_(True)

    def _code_layer(self) -> nn.Module:
        assert isinstance(self.network, PictureNetwork)
        return self.network.code_layer

    def set_training(self) -> None:
        """Put into training mode what learns; what stays as it is stays in evaluation mode."""
        self.network.train(self.config.lambda_frames == 0 and not self.config.only_codes)
        if self.config.only_codes and isinstance(self.network, PictureNetwork):
            self.network.code_normalisation.train()
        if self.config.lambda_frames > 0 and isinstance(self.network, PatchTrunk) and self.network.frames is not None:
            self.network.frames.train()

    def _optimiser(self, module: nn.Module) -> torch.optim.Optimizer:
        config = self.config
        if config.optimiser == "orthogonal":
            return OrthogonalMomentum(module.parameters(), config.learning_rate)
        if config.schedule == "constant":
            return PublishedAdam(module.parameters(), config.learning_rate)
        decayed = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=config.learning_rate)

    def set_learning_rate(self) -> float:
        """Set the rate of this step in the optimisers, and give it."""
        config = self.config
        rate = config.learning_rate
        if config.schedule == "cosine":
            warmup = max(1, config.steps // 50)
            rise = min(1.0, (self.step + 1) / warmup)
            rate *= rise * 0.5 * (1 + math.cos(math.pi * self.step / config.steps))
        elif config.schedule == "trapezoid":
            rate *= min(1.0, (self.step + 1) / WARM_UP, (config.steps - self.step) / (config.steps - config.falls_from))
        for optimiser in (self.optimiser, self.generator_optimiser):
            for group in optimiser.param_groups if optimiser else ():
                group["lr"] = rate
        return rate

    def autocast(self) -> torch.autocast:
        """Give the context in which networks run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def prepare(self, patches: Tensor) -> Tensor:
        """Turn patches (N, 1, 32, 32) into this process's part of the network's input."""
        x = self.network.prepare(patches.to(self.device))
        return processes.share(x).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the network; in the first steps faster, so that the start is forgotten."""
        if self.average is None:
            return
        keep = min(self.config.moving_average, (1 + self.step) / (10 + self.step))
        pairs = list(zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([old for old, _ in averaged], [new for _, new in averaged], 1 - keep)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)

    def result(self) -> Network:
        """Give the network that is validated and saved: the average, if there is one."""
        return self.network if self.average is None else self.average

    def _parts(self) -> dict[str, Any]:
        parts = {
            "network": self.network,
            "optimiser": self.optimiser,
            "generator": self.generator,
            "generator_optimiser": self.generator_optimiser,
            "average": self.average,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        with atomic_path(path) as temporary:
            torch.save({**state, "step": self.step, "seconds": self.seconds}, temporary)

    def load(self, path: Path) -> None:
        """Go back to a checkpoint of the same run.

        Raises:
            UsageError: the file is damaged, or of another network.
        """
        state = read_checkpoint(path, self.device)
        self.step, self.seconds = state["step"], state["seconds"]
        try:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UsageError(f"{path} is of another network or optimiser; give another --out, or remove it") from error


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        UsageError: the file is damaged, or no checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        state["step"], state["seconds"]
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged, or no checkpoint of a training run; remove it to start anew") from error
    return state


def _network(config: TrainConfig) -> Network:
    arguments: dict[str, Any] = {"bits": config.bits}
    if config.network == "PatchTrunk":
        arguments["layers"] = config.layers
    elif config.network == "PictureNetwork":
        arguments["stages"] = config.stages
    elif config.network == "ImageDiscriminator":
        arguments["normalise"] = config.normalise
    else:
        arguments["standardise"] = config.standardise
    return NETWORKS[config.network](**arguments)
