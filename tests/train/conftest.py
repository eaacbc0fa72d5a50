from __future__ import annotations

from collections.abc import Iterator

import pytest

from kornia_bingan.network.published import PatchDiscriminator

FEW_INITIAL_PATCHES = (
    "from kornia_bingan.network.published import PatchDiscriminator\n"
    "whole = PatchDiscriminator.initialise\n"
    "PatchDiscriminator.initialise = lambda self, x: whole(self, x[:24])\n"
)
"""First lines of a program that trains: of the published network, one step takes less time than its initialisation."""


@pytest.fixture
def _few_initial_patches() -> Iterator[None]:
    """The same in this process; that 500 patches reach the network is a test of test_step."""
    whole = PatchDiscriminator.initialise
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PatchDiscriminator, "initialise", lambda self, x: whole(self, x[:24]))
        yield
