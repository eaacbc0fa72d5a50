"""The log of a training run becomes pictures, and TensorBoard's file if that is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.images.read import read_color, write_image
from kornia_bingan.network.published import Generator

Picture = NDArray[np.uint8]

_WIDTH, _HEIGHT, _MARGIN = 480, 260, 48
_COLUMNS = 3


def read_log(out: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read the log of a run: by name of the value, steps and numbers; names of validation begin with ``val/``."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prefix = "val/" if row["kind"] == "validation" else ""
        for name, value in row.items():
            if name not in ("step", "kind", "seconds"):
                steps, values = series.setdefault(prefix + name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return series


def draw_log(out: Path) -> Path:
    """Draw every value of the log against steps, one panel per value: ``out/curves.png``."""
    series = read_log(out)
    panels = [_panel(name, steps, values) for name, (steps, values) in sorted(series.items())]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % _COLUMNS)
    rows = [np.hstack(panels[start : start + _COLUMNS]) for start in range(0, len(panels), _COLUMNS)]
    path = out / "curves.png"
    write_image(path, np.vstack(rows))
    return path


def draw_patches(out: Path, real: NDArray[np.float32], generator: Generator | None, seed: int) -> Path:
    """Draw up to 64 real patches, and beside them 64 generated ones if there is a generator: ``out/patches.png``.

    Args:
        out: run folder.
        real: float32 in [0, 1], shape (N, 1, 32, 32), or (N, 3, 32, 32) for pictures.
        generator: its output in (-1, 1) is shown in grey beside patches, in colour beside pictures.
        seed: of the noise.
    """
    grids = [_grid(real[:64])]
    if generator is not None:
        device = next(generator.parameters()).device
        noise = generator.sample_noise(64, torch.Generator(device).manual_seed(seed))
        with torch.no_grad():
            fake = generator(noise).float().cpu().numpy()
        if real.shape[1] == 1:
            fake = fake.mean(1, keepdims=True)
        gap = np.full((256, 16, *grids[0].shape[2:]), 255, np.uint8)
        grids += [gap, _grid((fake * 128 + 127.5) / 255)]
    path = out / "patches.png"
    write_image(path, np.hstack(grids))
    return path


def write_tensorboard(out: Path) -> Path:
    """Write the log and the pictures of a run for TensorBoard: ``out/tensorboard/``.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed: pip install 'kornia_bingan[tensorboard]'") from error
    folder = out / "tensorboard"
    writer: Any = SummaryWriter(str(folder))
    for name, (steps, values) in read_log(out).items():
        for step, value in zip(steps, values, strict=True):
            writer.add_scalar(name, value, step)
    if (out / "patches.png").exists():
        writer.add_image("patches, real and generated", read_color(out / "patches.png"), dataformats="HWC")
    writer.close()
    return folder


def _grid(patches: NDArray[np.float32]) -> Picture:
    channels, side = patches.shape[1:3]
    cells = np.zeros((64, channels, side, side), np.float32)
    cells[: len(patches)] = patches
    rows = cells.reshape(8, 8, channels, side, side).transpose(0, 3, 1, 4, 2).reshape(8 * side, 8 * side, channels)
    # OpenCV writes blue, green, red; grey pictures have no third axis
    rows = rows[..., ::-1] if channels == 3 else rows[..., 0]
    return np.asarray(np.clip(rows, 0, 1) * 255, np.uint8)


def _panel(name: str, steps: Sequence[int], values: Sequence[float]) -> Picture:
    picture: Picture = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    y = np.asarray(values, np.float64)
    low, high = float(y.min()), float(y.max())
    # A few wild values must not flatten the rest.
    if len(y) > 20:
        low, high = (float(v) for v in np.quantile(y, [0.01, 0.99]))
    span, last = max(high - low, 1e-12), max(steps[-1], 1)
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    points = np.stack(
        [
            _MARGIN + np.asarray(steps) / last * width,
            _HEIGHT - _MARGIN - np.clip((y - low) / span, 0, 1) * height,
        ],
        1,
    )
    cv2.rectangle(picture, (_MARGIN, _MARGIN), (_WIDTH - _MARGIN, _HEIGHT - _MARGIN), (200, 200, 200))
    cv2.polylines(
        picture, [np.rint(points).astype(np.int32)], isClosed=False, color=(160, 60, 20), lineType=cv2.LINE_AA
    )

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), lineType=cv2.LINE_AA)

    write(name, _MARGIN, _MARGIN - 12)
    write(f"{high:.4g}", 2, _MARGIN + 6)
    write(f"{low:.4g}", 2, _HEIGHT - _MARGIN)
    write(f"step {last:,}", _WIDTH - _MARGIN - 80, _HEIGHT - _MARGIN + 18)
    return picture
