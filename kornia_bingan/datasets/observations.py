"""A sparse model and detected keypoints become observations: which keypoint of which photo shows which point.

The tolerances are those of Brown, Hua and Winder, "Discriminative learning of local image descriptors", PAMI 2011; the
points of a sparse model take the place of their dense depth. No descriptor is looked at:

1. *Reference.* Of the images in the point's track, those with a keypoint at the projected point are candidates; the
   reference is the one that looks at the point from the middle of the track's directions.
2. *Visibility.* The point is visible in the images of its track, and in those that could see it: it lies in front of
   the camera and inside the picture, direction and distance are within the range of the track's own (a little wider),
   and most of the points that the image is known to see around it are not clearly nearer.
3. *Prediction.* The surface at the point is taken for a plane across the mean direction of the track. Its projections
   give the 2 x 2 matrix J from the reference image to the other image. The keypoint is expected where J moves the
   reference keypoint relative to the projected point, at its size times sqrt(det J) (for equal cameras the ratio of
   depths), at its angle plus the rotation in J.
4. *Match.* The nearest keypoint within 5 pixels, 0.25 octaves and 22.5 degrees of the prediction.
5. A keypoint belongs to one point only. Points are taken by the length of their tracks; one whose reference keypoint
   belongs to another point already is that point again, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.datasets.patch_options import Tolerances
from kornia_bingan.datasets.sparse_scene import Floats, Rows, SparseScene, View, look
from kornia_bingan.keypoints import Keypoints

_STEP = 1e-3  # of a projection's numerical derivative, in distances to the point


@dataclass(frozen=True, eq=False)
class Observations:
    """M observations of points, those of a point one after the other, its reference first.

    Attributes:
        point: row of the point in the scene, int64, shape (M,).
        view: row of the image, int64, shape (M,).
        keypoint: row of the keypoint in that image, int64, shape (M,).
        reference: row of the observation that is the point's reference, int64, shape (M,).
        in_track: whether the image is in the point's track, bool, shape (M,).
        visible: how many pairs of a point and an image were visible, the references left out.
    """

    point: Rows
    view: Rows
    keypoint: Rows
    reference: Rows
    in_track: NDArray[np.bool_]
    visible: int

    def __len__(self) -> int:
        return len(self.point)


def find_observations(
    scene: SparseScene, keypoints: Sequence[Keypoints], tolerances: Tolerances | None = None
) -> Observations:
    """Find the keypoints that show the points of a scene, by the rules in the module's docstring.

    Args:
        scene: of :func:`kornia_bingan.datasets.sparse_scene.read_scene`.
        keypoints: of every view, in the order of the views; upright (-1) counts as angle 0.
        tolerances: see :class:`Tolerances`.

    Returns:
        Observations of the points that have at least two; none give arrays of length 0.
    """
    tolerances = tolerances or Tolerances()
    track = _Track(scene)
    reference = _References(scene, keypoints, track, tolerances.reference_px)
    found: list[NDArray[np.float64]] = []
    visible = 0
    for index, view in enumerate(scene.views):
        points = np.flatnonzero((reference.view >= 0) & (reference.view != index))
        points = points[_visible(scene, view, points, track, tolerances)]
        visible += len(points)
        xy, size, angle_deg = reference.predict(view, points)
        row, candidate = pairs_within(xy, keypoints[index].xy.astype(np.float64), tolerances.position_px)
        distance = np.linalg.norm(keypoints[index].xy[candidate] - xy[row], axis=1)
        octaves = np.abs(np.log2(keypoints[index].size[candidate] / size[row]))
        turn = np.abs((_angles(keypoints[index])[candidate] - angle_deg[row] + 180) % 360 - 180)
        good = (octaves <= tolerances.scale_octaves) & (turn <= tolerances.angle_deg)
        row, candidate, distance, turn = row[good], candidate[good], distance[good], turn[good]
        order = np.lexsort((candidate, turn, distance, row))
        row, candidate = row[order], candidate[order]
        first = np.ones(len(row), bool)
        first[1:] = row[1:] != row[:-1]
        point = points[row[first]]
        in_track = np.isin(point, view.seen)
        found.append(np.column_stack([point, np.full(len(point), index), candidate[first], in_track]).astype(np.int64))
    return _one_point_a_keypoint(reference, track.length, np.concatenate(found), visible)


def pairs_within(xy0: Floats, xy1: Floats, radius: float) -> tuple[Rows, Rows]:
    """List all pairs of a row of ``xy0`` (N, 2) and one of ``xy1`` (M, 2) at most ``radius`` apart, shapes (K,)."""
    order = np.argsort(xy1[:, 0], kind="stable")
    x = xy1[order, 0]
    start, stop = np.searchsorted(x, xy0[:, 0] - radius), np.searchsorted(x, xy0[:, 0] + radius, "right")
    count = stop - start
    row0 = np.repeat(np.arange(len(xy0)), count)
    row1 = order[np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(start, count)]
    near = np.linalg.norm(xy0[row0] - xy1[row1], axis=1) <= radius
    return row0[near], row1[near]


def come_close(scene: SparseScene, points0: Rows, points1: Rows, distance_px: float) -> NDArray[np.bool_]:
    """Say which pairs of points project closer than ``distance_px`` in any image, hidden or not, shape (K,)."""
    close = np.zeros(len(points0), bool)
    for view in scene.views:
        difference = view.project(scene.xyz[points0]) - view.project(scene.xyz[points1])
        close |= np.linalg.norm(difference, axis=1) < distance_px  # NaN, behind the camera, is not
    return close


class _Track:
    """The range of directions and distances from which the images of a track look at their point."""

    def __init__(self, scene: SparseScene) -> None:
        count = len(scene.xyz)
        total = np.zeros((count, 3))
        self.near, self.far = np.full(count, np.inf), np.zeros(count)
        self.length = np.zeros(count, np.int64)
        for view in scene.views:
            direction, distance = look(view, scene.xyz[view.seen])
            total[view.seen] += direction
            self.length[view.seen] += 1
            self.near[view.seen] = np.minimum(self.near[view.seen], distance)
            self.far[view.seen] = np.maximum(self.far[view.seen], distance)
        self.mean = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        self.angle = np.zeros(count)
        for view in scene.views:
            angle = self.angle_of(view, scene.xyz, view.seen)
            self.angle[view.seen] = np.maximum(self.angle[view.seen], angle)

    def angle_of(self, view: View, xyz: Floats, points: Rows) -> Floats:
        """Angle between a view's direction and the mean of the track, radians."""
        direction, _ = look(view, xyz[points])
        angle: Floats = np.arccos(np.clip((direction * self.mean[points]).sum(1), -1, 1))
        return angle


class _References:
    """The reference image and keypoint of each point, and what follows from them for another image."""

    def __init__(self, scene: SparseScene, keypoints: Sequence[Keypoints], track: _Track, radius: float) -> None:
        table = []
        for index, view in enumerate(scene.views):
            row, candidate = pairs_within(view.project(scene.xyz[view.seen]), keypoints[index].xy.astype(float), radius)
            point = view.seen[row]
            distance = np.linalg.norm(view.project(scene.xyz[point]) - keypoints[index].xy[candidate], axis=1)
            angle = track.angle_of(view, scene.xyz, point)
            table.append(np.column_stack([point, angle, np.full(len(point), index), distance, candidate]))
        rows = np.concatenate(table)
        rows = rows[np.lexsort(rows.T[::-1])]
        point, first = np.unique(rows[:, 0].astype(np.int64), return_index=True)
        count = len(scene.xyz)
        self.view, self.keypoint = np.full(count, -1), np.full(count, -1)
        self.view[point], self.keypoint[point] = rows[first, 2], rows[first, 4]
        self.xyz = scene.xyz
        # two directions across the mean direction of the track
        self.axes = np.linalg.svd(track.mean[:, None, :])[2][:, 1:]
        self.offset, self.size, self.angle_deg = np.zeros((count, 2)), np.ones(count), np.zeros(count)
        self.step, self.to_image = np.ones(count), np.zeros((count, 2, 2))
        for index, view in enumerate(scene.views):
            points = np.flatnonzero(self.view == index)
            chosen = keypoints[index][self.keypoint[points]]
            self.offset[points] = chosen.xy - view.project(scene.xyz[points])
            self.size[points], self.angle_deg[points] = chosen.size, _angles(chosen)
            self.step[points] = _STEP * look(view, scene.xyz[points])[1]
            self.to_image[points] = self._derivative(view, points)

    def _derivative(self, view: View, points: Rows) -> Floats:
        """The matrix from the plane at a point to pixels, shape (n, 2, 2)."""
        columns = []
        for axis in (0, 1):
            step = self.step[points, None] * self.axes[points, axis]
            ahead, behind = view.project(self.xyz[points] + step), view.project(self.xyz[points] - step)
            columns.append((ahead - behind) / (2 * self.step[points, None]))
        return np.stack(columns, 2)

    def predict(self, view: View, points: Rows) -> tuple[Floats, Floats, Floats]:
        """Where, how large and at which angle (degrees) the reference keypoint is expected in a view."""
        matrix = self._derivative(view, points) @ np.linalg.inv(self.to_image[points])
        xy = view.project(self.xyz[points]) + (matrix @ self.offset[points, :, None])[:, :, 0]
        size = self.size[points] * np.sqrt(np.abs(np.linalg.det(matrix)))
        turn = np.arctan2(matrix[:, 1, 0] - matrix[:, 0, 1], matrix[:, 0, 0] + matrix[:, 1, 1])
        return xy, size, self.angle_deg[points] + np.rad2deg(turn)


def _visible(scene: SparseScene, view: View, points: Rows, track: _Track, tolerances: Tolerances) -> NDArray[np.bool_]:
    """Say which points a view sees: those of its tracks, and those that pass the checks of the module's docstring."""
    xyz = scene.xyz[points]
    _, distance = look(view, xyz)
    slack = 2**tolerances.beyond_track_octaves
    angle = track.angle_of(view, scene.xyz, points)
    possible = angle <= track.angle[points] + np.deg2rad(tolerances.beyond_track_deg)
    possible &= (distance * slack >= track.near[points]) & (distance <= track.far[points] * slack)
    possible[possible] = view.inside(xyz[possible])
    in_track = np.isin(points, view.seen)
    rows = np.flatnonzero(possible & ~in_track)
    radius = tolerances.occlusion_radius * max(view.camera.width, view.camera.height)
    _, seen_distance = look(view, scene.xyz[view.seen])
    row, neighbour = pairs_within(view.project(xyz[rows]), view.project(scene.xyz[view.seen]), radius)
    behind = distance[rows[row]] > (1 + tolerances.occlusion) * seen_distance[neighbour]
    around = np.bincount(row, minlength=len(rows))
    hidden = np.bincount(row, behind, minlength=len(rows)) > around / 2
    possible[rows[hidden]] = False
    # Nothing around says nothing: sky, or a part of the scene that this image shows and the model lacks.
    possible[rows[around == 0]] = False
    return np.asarray(possible | (in_track & view.inside(xyz)))


def _angles(keypoints: Keypoints) -> NDArray[np.float32]:
    return np.where(keypoints.angle_deg == -1, np.float32(0), keypoints.angle_deg)


def _one_point_a_keypoint(reference: _References, length: Rows, matches: Rows, visible: int) -> Observations:
    """Give every keypoint to one point, and drop the points that are left with one observation."""
    matches = matches[np.lexsort((matches[:, 1], matches[:, 0]))]
    start = np.searchsorted(matches[:, 0], np.arange(len(length) + 1))
    has_reference = np.flatnonzero(reference.view >= 0)
    order = has_reference[np.lexsort((has_reference, -length[has_reference]))]
    taken: set[tuple[int, int]] = set()
    kept: dict[int, list[tuple[int, int, int]]] = {}
    for point in order.tolist():
        own = (int(reference.view[point]), int(reference.keypoint[point]))
        if own in taken:
            continue
        rows = [(*own, 1)]
        for _, view, keypoint, in_track in matches[start[point] : start[point + 1]].tolist():
            if (view, keypoint) not in taken:
                rows.append((view, keypoint, in_track))
        if len(rows) > 1:
            kept[point] = rows
            taken.update((view, keypoint) for view, keypoint, _ in rows)
    points = sorted(kept)
    counts = np.array([len(kept[point]) for point in points], np.int64)
    table = np.array([row for point in points for row in kept[point]], np.int64).reshape(-1, 3)
    first = np.cumsum(counts) - counts
    return Observations(
        np.repeat(np.array(points, np.int64), counts),
        table[:, 0],
        table[:, 1],
        np.repeat(first, counts),
        table[:, 2].astype(bool),
        visible,
    )
