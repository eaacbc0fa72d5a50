"""What is to be matched, and the truth about it: pairs of photos with cameras, or of pictures with homographies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.harness.cache import digest
from eval.harness.data import (
    HomographySequence,
    Scene,
    find_scenes,
    find_sequences,
    near_pairs,
    read_scene,
    read_sequence,
    transform,
)
from eval.harness.features import cached_keypoints, keypoints_digest
from kornia_bingan.datasets.poses import PosedCamera
from kornia_bingan.errors import UsageError
from kornia_bingan.keypoints import Keypoints

MAX_KEYPOINTS = 2000
MAX_GAP = 4

Kind = Literal["epipolar", "homography"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be matched, and the truth about it.

    Attributes:
        name: of the scene or sequence.
        group: ``scene``, or the group of the sequence.
        images: grey uint8 (H, W).
        keypoints: one set an image.
        pairs: index pairs.
        kind: what the matrices are.
        matrices: one per pair, float64 (P, 3, 3): fundamental matrices or homographies, from the first to the second.
    """

    name: str
    group: str
    images: tuple[NDArray[np.uint8], ...]
    keypoints: tuple[Keypoints, ...]
    pairs: tuple[tuple[int, int], ...]
    kind: Kind
    matrices: Matrix

    def identity(self) -> dict[str, Any]:
        """What decides the result beside the descriptor, as JSON can hold it."""
        return {
            "images": digest(*self.images),
            "keypoints": [keypoints_digest(points) for points in self.keypoints],
            "pairs": [list(pair) for pair in self.pairs],
            "kind": self.kind,
            "matrices": digest(self.matrices),
        }


def fundamental_matrix(camera0: PosedCamera, camera1: PosedCamera) -> Matrix:
    """Give F, float64 (3, 3), with ``[xy1, 1] F [xy0, 1]^T = 0`` for the two views of a point."""
    R = camera1.R @ camera0.R.T
    return fundamental_of_pose(camera0.K, camera1.K, R, camera1.t - R @ camera0.t)


def fundamental_of_pose(K0: Matrix, K1: Matrix, R: Matrix, t: Matrix) -> Matrix:
    """Give F as :func:`fundamental_matrix` does, for ``x1 = R @ x0 + t`` in the frames of the cameras."""
    skew = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    F: Matrix = np.linalg.inv(K1).T @ skew @ R @ np.linalg.inv(K0)
    return F


def epipolar_errors_px(F: Matrix, xy0: NDArray[Any], xy1: NDArray[Any]) -> Matrix:
    """Give the larger of both distances to the epipolar line of the other point, pixels, float64 (M,)."""
    points0, points1 = (np.column_stack([np.asarray(xy, np.float64), np.ones(len(xy))]) for xy in (xy0, xy1))
    lines1, lines0 = points0 @ F.T, points1 @ F
    residual = np.abs(np.einsum("ij,ij->i", points1, lines1))
    slopes = np.minimum(np.hypot(*lines0.T[:2]), np.hypot(*lines1.T[:2]))
    # A point in the epipole has no line; it counts as wrong.
    errors: Matrix = np.where(slopes > 0, residual / np.where(slopes > 0, slopes, 1), np.inf)
    return errors


def transfer_errors_px(H: Matrix, xy0: NDArray[Any], xy1: NDArray[Any]) -> Matrix:
    """Give the smaller of both distances after mapping one point onto the other, pixels, float64 (M,)."""
    there = np.linalg.norm(transform(H, xy0) - xy1, axis=1)
    inverse: Matrix = np.asarray(np.linalg.inv(H), np.float64)
    back = np.linalg.norm(transform(inverse, xy1) - xy0, axis=1)
    errors: Matrix = np.nan_to_num(np.fmin(there, back), nan=np.inf)
    return errors


def scene_problem(scene: Scene, keypoints: Sequence[Keypoints]) -> Problem:
    """Pair the photos of a scene with cameras.

    Raises:
        UsageError: the scene has no cameras.
    """
    if scene.cameras is None:
        raise UsageError(f"{scene.name} has no cameras.json, so it is not known which matches are correct")
    pairs = near_pairs(len(scene.images), MAX_GAP)
    matrices = np.array([fundamental_matrix(scene.cameras[i], scene.cameras[j]) for i, j in pairs])
    return Problem(scene.name, "scene", scene.images, tuple(keypoints), tuple(pairs), "epipolar", matrices)


def sequence_problem(sequence: HomographySequence, keypoints: Sequence[Keypoints]) -> Problem:
    """Pair the first picture of a sequence with each other one."""
    pairs = tuple((0, k + 1) for k in range(len(sequence.homographies)))
    matrices = np.array(sequence.homographies)
    return Problem(sequence.name, sequence.group, sequence.images, tuple(keypoints), pairs, "homography", matrices)


def load_problems(
    data: Path, only: Sequence[str], cache: Path | None, *, with_sequences: bool = True
) -> Iterable[Problem]:
    """Read the scenes with cameras and the homography sequences of a folder, one at a time.

    Raises:
        UsageError: there is none, or one is damaged.
    """
    scenes = find_scenes(data, only, with_cameras=True)
    sequences = find_sequences(data, only) if with_sequences else []
    names = [path.name for path in scenes] + [path.stem for path in sequences]
    if missing := sorted(set(only) - set(names)):
        raise UsageError(f"{data} has no '{missing[0]}' with ground truth; it has {', '.join(names) or 'none'}")
    if not names:
        raise UsageError(f"{data} has no scene with cameras.json and no homography sequence")
    for path in scenes:
        scene = read_scene(path)
        yield scene_problem(scene, [cached_keypoints(image, MAX_KEYPOINTS, cache) for image in scene.images])
    for path in sequences:
        sequence = read_sequence(path)
        yield sequence_problem(sequence, [cached_keypoints(image, MAX_KEYPOINTS, cache) for image in sequence.images])
