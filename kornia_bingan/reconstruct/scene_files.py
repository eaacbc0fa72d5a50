"""Pinhole cameras, poses and points become the files that other programs read: PLY, nerfstudio's and MeshLab's.

Poses are of the model: from the world to the camera, which looks along +z with y down. Nothing is moved or turned in
the world, so that all files and the model have the same coordinates.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kornia_bingan.colmap.pinhole import Pinhole
from kornia_bingan.work.files import write_json

Floats = NDArray[np.float64]

_TO_OPENGL = np.diag([1.0, -1.0, -1.0])
"""From a camera that looks along +z with y down to one that looks along -z with y up."""

NEIGHBOURS = 12
"""Nearest points, itself included, that a point's normal is fitted to."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture of the scene: its name in ``images/``, its camera, and its pose, R (3, 3) and t (3,)."""

    picture: str
    pinhole: Pinhole
    rotation: Floats
    translation: Floats

    @property
    def center(self) -> Floats:
        """The position of the camera in the world, float64 (3,)."""
        center: Floats = -self.rotation.T @ self.translation
        return center


def write_transforms(path: Path, shots: Sequence[Shot], points: str) -> None:
    """Write nerfstudio's ``transforms.json``: camera to world, the camera looks along -z with y up.

    A camera that all pictures share is written once, others with their picture.

    Args:
        path: of the file, beside the folder ``images``.
        shots: at least one.
        points: name of the PLY file beside it.
    """
    frames: list[dict[str, Any]] = []
    shared = len({shot.pinhole for shot in shots}) == 1
    for shot in shots:
        pose = np.eye(4)
        pose[:3, :3] = shot.rotation.T @ _TO_OPENGL
        pose[:3, 3] = shot.center
        frame = {"file_path": f"images/{shot.picture}", "transform_matrix": pose.tolist()}
        frames.append(frame if shared else {**frame, **_intrinsics(shot.pinhole)})
    common = _intrinsics(shots[0].pinhole) if shared else {}
    write_json(path, {"camera_model": "PINHOLE", **common, "ply_file_path": points, "frames": frames})


def _intrinsics(pinhole: Pinhole) -> dict[str, float]:
    fx, fy, cx, cy = pinhole.params
    return {"w": pinhole.width, "h": pinhole.height, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}


def write_meshlab(path: Path, shots: Sequence[Shot], points: str) -> None:
    """Write a project of MeshLab: the points as a mesh, and every picture as a raster with its camera.

    Args:
        path: of the ``.mlp`` file, beside the folder ``images``.
        shots: at least one.
        points: name of the PLY file beside it.
    """
    project = ET.Element("MeshLabProject")
    mesh = ET.SubElement(ET.SubElement(project, "MeshGroup"), "MLMesh", label=points, filename=points)
    ET.SubElement(mesh, "MLMatrix44").text = "\n" + "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    group = ET.SubElement(project, "RasterGroup")
    for shot in shots:
        raster = ET.SubElement(group, "MLRaster", label=shot.picture)
        turn = np.eye(4)
        turn[:3, :3] = _TO_OPENGL @ shot.rotation
        camera = {
            "TranslationVector": _words([*-shot.center, 1]),
            "RotationMatrix": _words(turn.ravel()),
            "FocalMm": _words([shot.pinhole.focal_px]),
            "PixelSizeMm": "1 1",
            "ViewportPx": _words([shot.pinhole.width, shot.pinhole.height]),
            "CenterPx": _words([shot.pinhole.width / 2, shot.pinhole.height / 2]),
            "LensDistortion": "0 0",
            "CameraType": "0",
            "BinaryData": "0",
        }
        ET.SubElement(raster, "VCGCamera", camera)
        ET.SubElement(raster, "Plane", semantic="1", fileName=f"images/{shot.picture}")
    ET.indent(project)
    text = ET.tostring(project, encoding="unicode")
    path.write_text(f"<!DOCTYPE MeshLabDocument>\n{text}\n", encoding="utf-8")


def _words(numbers: Any) -> str:
    return " ".join(f"{number:.12g}" for number in numbers)


def write_ply(path: Path, xyz: Floats, rgb: NDArray[np.uint8], normals: Floats | None = None) -> None:
    """Write points as a binary PLY file.

    Args:
        path: of the file.
        xyz: float64 (P, 3), written as float32.
        rgb: uint8 (P, 3).
        normals: unit vectors (P, 3), or nothing.
    """
    columns = [("x", xyz[:, 0]), ("y", xyz[:, 1]), ("z", xyz[:, 2])]
    if normals is not None:
        columns += [("nx", normals[:, 0]), ("ny", normals[:, 1]), ("nz", normals[:, 2])]
    colours = [("red", rgb[:, 0]), ("green", rgb[:, 1]), ("blue", rgb[:, 2])]
    table = np.zeros(len(xyz), [(name, "<f4") for name, _ in columns] + [(name, "u1") for name, _ in colours])
    for name, values in (*columns, *colours):
        table[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    header += [f"property float {name}" for name, _ in columns] + [f"property uchar {name}" for name, _ in colours]
    path.write_bytes("\n".join([*header, "end_header", ""]).encode("ascii") + table.tobytes())


def point_normals(xyz: Floats, towards: Floats) -> Floats:
    """Fit a plane to the nearest points of each point; its normal looks to the side from which the point is seen.

    Args:
        xyz: points, float64 (P, 3).
        towards: mean direction from each point to the cameras that see it, (P, 3).

    Returns:
        Unit vectors, float64 (P, 3). Fewer than three points span no plane: they get their mean direction.
    """
    count = min(NEIGHBOURS, len(xyz))
    if count < 3:
        normals = towards.copy()
    else:
        centred = np.ascontiguousarray(xyz - xyz.mean(0), np.float32)
        kd_tree_single = 4  # FLANN's exact tree for few dimensions
        index = cv2.flann.Index(centred, {"algorithm": kd_tree_single, "leaf_max_size": 10})
        rows, _ = index.knnSearch(centred, count, params={"checks": -1, "eps": 0.0})
        around = xyz[rows]
        around -= around.mean(1, keepdims=True)
        _, axes = np.linalg.eigh(np.einsum("pni,pnj->pij", around, around))
        normals = axes[:, :, 0]  # of the smallest spread
    normals = np.where((normals * towards).sum(1, keepdims=True) < 0, -normals, normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    unit: Floats = np.where(length > 0, normals / np.maximum(length, 1e-300), [0.0, 0.0, 1.0])
    return unit
