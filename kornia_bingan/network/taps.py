"""What the losses see of a network."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Taps(NamedTuple):
    """What the losses see of a discriminator, for a batch of N patches.

    Attributes:
        high: wide features whose signs are the target of the regularisers, shape (N, K).
        low: the descriptor before its threshold at 0, shape (N, bits).
        matching: features that the generator's feature matching compares, shape (N, P).
        logits: two free logits of the class "real", shape (N, 2).
    """

    high: Tensor
    low: Tensor
    matching: Tensor
    logits: Tensor
