"""Pictures that a network in training finds alike become views of each other.

Two views of one picture teach what crops and colours do not change, but never that two horses are alike. Once the
network has learnt from views, the pictures that it finds most like each are mostly of the same kind; from then on
(``neighbours`` of :class:`kornia_bingan.train.config.TrainConfig`) the second view of a picture is one of a near other.
No label is looked at.

Source: Dwibedi et al., "With a little help from my friends: nearest-neighbor contrastive learning of visual
representations", ICCV 2021, where the nearest in a queue takes the place of one view; here many are drawn from, and
they are those of one moment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kornia_bingan.errors import JobError
from kornia_bingan.train.batches import Source
from kornia_bingan.train.config import TrainConfig
from kornia_bingan.train.picture_jitter import NO_PICTURE_JITTER, draw_views
from kornia_bingan.train.state import TrainingState
from kornia_bingan.work.files import atomic_path

NEIGHBOURS_FILE = "neighbours.npy"
_BATCH = 500
_ROWS = 2**10


def nearest_rows(features: Tensor, count: int) -> Tensor:
    """Find the rows most similar to each row by the cosine, itself left out: int64 (N, count), the nearest first.

    Args:
        features: shape (N, D).
        count: less than N.
    """
    unit = F.normalize(features.float())
    found = []
    for start in range(0, len(unit), _ROWS):
        similarity = unit[start : start + _ROWS] @ unit.T
        own = torch.arange(len(similarity), device=unit.device)
        similarity[own, start + own] = -torch.inf
        found.append(similarity.topk(count, 1).indices)
    return torch.cat(found)


@torch.no_grad()
def likeness(state: TrainingState, pictures: Tensor) -> Tensor:
    """Say what whole pictures, uint8 (N, 32, 32, 3), are to the network that would be saved now: float32 (N, D).

    Descriptors and projections side by side, each of length 1, since which of both knows more of kinds depends on what
    was trained last.
    """
    network: Any = state.result()
    was_training = network.training
    network.eval()
    rows = []
    with state.autocast():
        for part in torch.split(pictures, _BATCH):
            views = network.prepare(draw_views(part, NO_PICTURE_JITTER, np.random.default_rng(0)))
            taps = network(views.contiguous(memory_format=torch.channels_last))
            rows.append(torch.cat([F.normalize(tap.float()) for tap in (taps.low, taps.matching)], 1))
    network.train(was_training)
    return torch.cat(rows)


def neighbours_of_run(config: TrainConfig, state: TrainingState, source: Source) -> NDArray[np.int32]:
    """Find the neighbours of each picture at the step from which they are views; later, read what was found then.

    Returns:
        Rows of ``source.pictures``, int32 (N, neighbours); they are kept in the run folder.

    Raises:
        JobError: the run is beyond that step, and its file is gone or damaged.
    """
    assert source.pictures is not None
    path = config.out / NEIGHBOURS_FILE
    shape = (len(source.pictures), config.neighbours)
    if state.step > config.neighbours_from:
        try:
            near: NDArray[np.int32] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise JobError(f"{path} is missing or damaged; train anew in another --out") from error
        if near.shape != shape:
            raise JobError(f"{path} has {near.shape} rows and neighbours, not {shape}; train anew in another --out")
        return near
    near = nearest_rows(likeness(state, source.pictures), config.neighbours).cpu().numpy().astype(np.int32)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, near)
    return near
