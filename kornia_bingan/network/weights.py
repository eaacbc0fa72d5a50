"""Networks to and from safetensors files, and the list of shipped weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kornia_bingan.errors import UsageError
from kornia_bingan.network.published import NETWORKS, Network
from kornia_bingan.work.files import atomic_path, sha256_of

_KEY = "kornia_bingan"


@dataclass(frozen=True)
class ShippedModel:
    """One row of :func:`list_models`."""

    name: str
    bits: int
    multiply_adds: int
    sha256: str
    summary: str


def weights_folder() -> Path:
    """Give the folder of shipped weights: inside the installed package, or ``weights/`` of a checkout."""
    package = Path(str(files("kornia_bingan")))
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def _manifest() -> dict[str, dict[str, Any]]:
    path = weights_folder() / "manifest.json"
    if not path.is_file():
        return {}
    manifest: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def list_models() -> list[ShippedModel]:
    """List the shipped weights: name, bits, multiply-adds per patch, sha256 of the file, one line."""
    return [
        ShippedModel(name, row["bits"], row["multiply_adds"], row["sha256"], row["summary"])
        for name, row in sorted(_manifest().items())
    ]


def find_weights(name_or_path: str | Path) -> Path:
    """Find a weights file: a shipped name such as ``bingan256``, or a path.

    Raises:
        UsageError: neither exists, or a shipped file's sha256 is not the one in the manifest.
    """
    shipped = _manifest().get(str(name_or_path))
    if shipped is None:
        path = Path(name_or_path)
        if not path.is_file():
            names = ", ".join(sorted(_manifest())) or "none"
            raise UsageError(f"no weights '{name_or_path}': give a .safetensors file or a shipped name ({names})")
        return path
    path = weights_folder() / f"{name_or_path}.safetensors"
    if not path.is_file():
        raise UsageError(f"{path.name} is missing from the installation; install kornia_bingan again")
    if sha256_of(path) != shipped["sha256"]:
        raise UsageError(f"{path} is damaged: its sha256 is not the one in the manifest; install kornia_bingan again")
    return path


def calibration_of(name: str) -> dict[str, float]:
    """Give what :class:`kornia_bingan.matching.Calibration` takes, for shipped weights.

    Raises:
        UsageError: the name is not shipped, or its weights have no calibration.
    """
    found: dict[str, float] = _measured_of(name, "calibration")
    return found


def context_of(name_or_path: str | Path) -> dict[str, Any]:
    """Give what :meth:`kornia_bingan.matching.ContextModel.of` takes, for shipped weights or their file.

    Raises:
        UsageError: there are no such weights, or no model of context for them.
    """
    name = str(name_or_path)
    if name not in _manifest():
        digest = sha256_of(find_weights(name_or_path))
        name = next((key for key, row in _manifest().items() if row["sha256"] == digest), name)
    found: dict[str, Any] = _measured_of(name, "context")
    return found


def has_context(name_or_path: str | Path) -> bool:
    """Say whether :func:`context_of` has a model for weights."""
    try:
        context_of(name_or_path)
    except UsageError:
        find_weights(name_or_path)  # there are such weights
        return False
    return True


def _measured_of(name: str, what: str) -> Any:
    row = _manifest().get(name)
    if row is None or what not in row:
        have = ", ".join(key for key, value in sorted(_manifest().items()) if what in value) or "none"
        raise UsageError(f"there is no {what} for '{name}', only for: {have}")
    return row[what]


def _digest(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def save_weights(path: Path, network: Network, training: dict[str, Any]) -> None:
    """Write a network with what is needed to build it again and how it was trained.

    Filters and matrices are stored in half precision, vectors as they are.

    The metadata is one JSON string under one key, since safetensors writes several keys in random order; equal networks
    give equal files.

    Args:
        path: a ``.safetensors`` file; appears whole or not at all.
        network: the network to save.
        training: anything JSON can hold.
    """
    tensors = {}
    for name, value in network.state_dict().items():
        stored = value.detach().cpu().contiguous().clone()
        # Filters in half precision: half the size, and fewer than one bit in a thousand of a code changes.
        tensors[name] = stored.half() if stored.ndim >= 2 and stored.is_floating_point() else stored
    description = {
        "format": 1,
        "network": type(network).__name__,
        "arguments": network.arguments(),
        "tensors_sha256": _digest(tensors),
        "training": training,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(description, sort_keys=True)})


def read_description(path: Path) -> dict[str, Any]:
    """Read the metadata of a weights file.

    Raises:
        UsageError: the file is not a safetensors file, or was not written by :func:`save_weights`.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        description: dict[str, Any] = json.loads(metadata[_KEY])
    except (KeyError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} was not written by kornia_bingan: its metadata has no '{_KEY}' entry") from error
    return description, tensors


def load_weights(path: Path) -> Network:
    """Build the network of a weights file, in evaluation mode, on the CPU.

    Raises:
        UsageError: the file is unreadable, of another format, of an unknown network, has tensors of wrong names or
            shapes, or a flipped byte.
    """
    description, tensors = _read(path)
    if description.get("format") != 1 or description.get("network") not in NETWORKS:
        raise UsageError(
            f"{path} has format {description.get('format')} and network {description.get('network')}; this version "
            f"reads format 1 and {', '.join(NETWORKS)}"
        )
    try:
        network = NETWORKS[description["network"]](**description["arguments"])
        wanted = network.state_dict()
        for name, value in wanted.items():
            if name not in tensors or tensors[name].shape != value.shape:
                found = tuple(tensors[name].shape) if name in tensors else "missing"
                raise UsageError(f"{path}: tensor '{name}' is {found}, the network needs {tuple(value.shape)}")
        if extra := sorted(set(tensors) - set(wanted)):
            raise UsageError(f"{path}: tensor '{extra[0]}' does not belong to {description['network']}")
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: the network's arguments {description.get('arguments')} are unusable") from error
    if _digest(tensors) != description.get("tensors_sha256"):
        raise UsageError(f"{path} is damaged: its tensors do not have the sha256 that was written with them")
    network.load_state_dict(tensors)
    return network.float().eval()  # whatever torch's default dtype is
