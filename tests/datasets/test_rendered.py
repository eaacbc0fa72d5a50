from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kornia_bingan.datasets.poses import PosedCamera, load_cameras, pose_errors
from kornia_bingan.datasets.rendered import Array, Plane, Scene, render_scene, render_view
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import image_size, read_image

K = np.array([[300.0, 0, 101.0], [0, 310.0, 73.0], [0, 0, 1]])


def camera_at(center: tuple[float, float, float], R: Array | None = None) -> PosedCamera:
    rotation = np.eye(3) if R is None else R
    return PosedCamera(K, rotation, -rotation @ np.array(center), 200, 150)


def rotation(*degrees: float) -> Array:
    return cv2.Rodrigues(np.radians(degrees))[0]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return render_scene(tmp_path_factory.mktemp("scene"), num_views=3, seed=0)


def test_project_by_hand() -> None:
    camera = camera_at((1.0, 2.0, 3.0), rotation(0, 0, 90))
    # 90 degrees about z takes the world's x to the camera's y; the point is 2 in front, 0.1 along x, 0.2 along y
    pixels = camera.project([[1.1, 2.2, 5.0], [1.0, 2.0, 1.0]])
    np.testing.assert_allclose(pixels[0], [101 - 300 * 0.1, 73 + 310 * 0.05])
    assert np.isnan(pixels[1]).all()
    np.testing.assert_allclose(camera.center, [1, 2, 3])
    assert camera.project(np.zeros((0, 3))).shape == (0, 2)
    np.testing.assert_allclose(camera.project([1.1, 2.2, 5.0]), pixels[:1])


@pytest.mark.parametrize("texels", [8, 64])
@pytest.mark.parametrize("distance", [1.0, 2.0])
def test_corners_of_a_checkerboard_are_where_the_camera_says(distance: float, texels: int) -> None:
    """The board is tilted by 35 degrees and rolled by 10; one texel is 3 to 0.2 pixels wide, a square at least 12."""
    squares = np.indices((9, 11)).sum(axis=0) % 2
    texture = np.kron(squares, np.full((texels, texels), 200)).astype(np.uint8) + np.uint8(20)
    turn = rotation(5, 35, 0) @ rotation(0, 0, 10)
    across, down = turn[:, 0] * 0.08 / texels, turn[:, 1] * 0.08 / texels
    middle = (11 * texels - 1) / 2, (9 * texels - 1) / 2
    board = Plane(np.array([0.02, 0.01, distance]) - middle[0] * across - middle[1] * down, across, down, texture)
    camera = camera_at((0, 0, 0))
    corners = np.array([(texels * i - 0.5, texels * j - 0.5) for j in range(1, 9) for i in range(1, 11)])
    expected = camera.project(board.corner + corners[:, :1] * across + corners[:, 1:] * down)
    matrix = board.homography(camera) @ np.column_stack([corners, np.ones(len(corners))]).T
    np.testing.assert_allclose((matrix[:2] / matrix[2]).T, expected)
    window = round(8 / distance)
    expected = expected[((expected > window + 2) & (expected < np.array([197, 147]) - window)).all(axis=1)]
    assert len(expected) > 40
    grey = np.ascontiguousarray(render_view([board], camera)[:, :, 0])
    start = (expected + 0.4).astype(np.float32, order="C")
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    error = cv2.cornerSubPix(grey, start, (window, window), (-1, -1), criteria) - expected
    assert np.abs(np.median(error, axis=0)).max() < 0.02
    assert np.linalg.norm(error, axis=1).max() < 0.15


def test_a_plane_parallel_to_the_image_is_copied() -> None:
    """Two pixels to a texel and sample centres at quarters: bilinear values worked by hand."""
    texture = np.array([[0, 100, 200]], np.uint8).repeat(3, 0)
    camera = PosedCamera(np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]), np.eye(3), np.zeros(3), 6, 6)
    plane = Plane(np.array([0.0, 0, 1]), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]), texture, (1.0, 0.5, 1.2))
    image = render_view([plane], camera)
    # pixel x sees texel (x - 0.5) / 2
    np.testing.assert_allclose(image[2, 1:5, 0], [25, 75, 125, 175], atol=1e-3)
    np.testing.assert_allclose(image[2, 1:5, 1], [12.5, 37.5, 62.5, 87.5], atol=1e-3)
    np.testing.assert_allclose(image[2, 1:5, 2], [30, 90, 150, 210], atol=1e-3)


def test_a_fine_texture_far_away_becomes_grey_and_not_an_alias() -> None:
    stripes = np.zeros((400, 400), np.uint8)
    stripes[:, ::2] = 255
    plane = Plane(np.array([-1.0, -1, 4]), np.array([0.005, 0, 0]), np.array([0, 0.005, 0]), stripes)
    image = render_view([plane], camera_at((0, 0, 0)))[30:110, 40:160, 0]
    assert np.abs(image - 127.5).max() < 4


def test_the_nearest_plane_is_seen_in_every_pixel() -> None:
    """A plane at depth 2 is cut by one that leans away: the border is where both are at depth 2."""
    wall = Plane(np.array([-2.0, -2, 2]), np.array([0.1, 0, 0]), np.array([0, 0.1, 0]), np.full((40, 40), 50, np.uint8))
    leaning = Plane(
        np.array([-1.0, -1, 1.5]), np.array([0.1, 0, 0.05]), np.array([0, 0.1, 0]), np.full((21, 21), 250, np.uint8)
    )
    behind = Plane(np.array([-1.0, -1, -3]), np.array([0.1, 0, 0]), np.array([0, 0.1, 0]), np.full((9, 9), 1, np.uint8))
    edge_on = Plane(
        np.array([0.0, -1, 1]), np.array([0.0, 0, 0.1]), np.array([0, 0.1, 0]), np.full((9, 9), 1, np.uint8)
    )
    aside = Plane(np.array([50.0, -1, 1]), np.array([0.1, 0, 0]), np.array([0, 0.1, 0]), np.full((9, 9), 1, np.uint8))
    camera = camera_at((0, 0, 0))
    image = render_view([wall, leaning, behind, edge_on, aside], camera)
    np.testing.assert_array_equal(image, render_view([edge_on, aside, leaning, behind, wall], camera))
    border = camera.project([[0.0, 0, 2]])[0, 0]  # x where 1.5 + (x + 1) / 2 = 2
    assert border == 101
    assert np.all(image[:, :101] == 250)
    assert np.all(image[:, 102:] == 50)


def test_a_plane_that_reaches_behind_the_camera_is_seen_in_front_only() -> None:
    floor = Plane(
        np.array([-5.0, 1, -5]), np.array([0.1, 0, 0]), np.array([0, 0, 0.1]), np.full((201, 101), 200, np.uint8)
    )
    image = render_view([floor], camera_at((0, 0, 0)))
    horizon = 73 + 310 * 1 / 15
    assert np.all(image[: math.floor(horizon) - 1] == 90)
    assert np.all(image[math.ceil(horizon) + 1 :, 60:140] == 200)


def test_no_planes_give_the_background() -> None:
    assert np.all(render_view([], camera_at((0, 0, 0))) == 90)


def test_files_of_a_scene(scene: Scene) -> None:
    names, skipped = list_images(scene.images)
    assert names == list(scene.cameras) == ["view_000.jpg", "view_001.jpg", "view_002.jpg"]
    assert skipped == []
    assert all(image_size(scene.images / name) == (800, 600) for name in names)
    loaded = load_cameras(scene.images.parent / "cameras.json")
    assert list(loaded) == names
    for name, camera in scene.cameras.items():
        for key in ("K", "R", "t"):
            np.testing.assert_array_equal(getattr(loaded[name], key), getattr(camera, key))
        assert (loaded[name].width, loaded[name].height) == (800, 600)
        np.testing.assert_allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.R) > 0


def points_seen(scene: Scene, camera: PosedCamera, pixels: NDArray[np.float64]) -> Array:
    """The 3D point that each pixel shows: the nearest hit of its ray with the planes."""
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(camera.K).T @ camera.R
    nearest = np.full(len(pixels), np.inf)
    for plane in scene.planes:
        solution = np.linalg.solve(
            np.stack(
                [np.broadcast_to(plane.across, rays.shape), np.broadcast_to(plane.down, rays.shape), -rays], axis=2
            ),
            np.broadcast_to(camera.center - plane.corner, rays.shape)[:, :, None],
        )[:, :, 0]
        i, j, depth = solution.T
        height, width = plane.texture.shape
        hit = (i > -0.5) & (i < width - 0.5) & (j > -0.5) & (j < height - 0.5) & (depth > 0)
        nearest = np.where(hit & (depth < nearest), depth, nearest)
    assert np.isfinite(nearest).all()
    return camera.center + rays * nearest[:, None]


def test_keypoints_repeat_where_the_true_geometry_says(scene: Scene) -> None:
    detector = cv2.SIFT_create(nfeatures=4000, enable_precise_upscale=True)
    (name0, camera0), (name1, camera1) = list(scene.cameras.items())[:2]
    found = []
    for name in (name0, name1):
        keypoints = detector.detect(read_image(scene.images / name))
        assert len(keypoints) > 2000
        found.append(np.array([keypoint.pt for keypoint in keypoints]))
    corners = np.floor(found[0] / [200, 150]).astype(int)
    assert all((corners == [i, j]).all(axis=1).sum() > 60 for i in range(4) for j in range(4)), "a bare quarter"
    projected = camera1.project(points_seen(scene, camera0, found[0]))
    inside = ((projected > 10) & (projected < [789, 589])).all(axis=1)
    distances = np.linalg.norm(projected[inside][:, None] - found[1], axis=2).min(axis=1)
    assert inside.sum() > 1000
    assert (distances < 1.0).mean() > 0.4  # 25 degrees apart, with occlusion and texture of every scale
    offset = projected[inside] - found[1][np.linalg.norm(projected[inside][:, None] - found[1], axis=2).argmin(axis=1)]
    assert np.abs(np.median(offset[distances < 1.0], axis=0)).max() < 0.05  # half a pixel of mistake would show


def test_the_same_seed_gives_the_same_files(scene: Scene, tmp_path: Path) -> None:
    again = render_scene(tmp_path / "again", num_views=3, seed=0)
    other = render_scene(tmp_path / "other", num_views=1, seed=1)
    for name in scene.cameras:
        assert (again.images / name).read_bytes() == (scene.images / name).read_bytes()
    assert (other.images / "view_000.jpg").read_bytes() != (scene.images / "view_000.jpg").read_bytes()
    render_scene(tmp_path / "again", num_views=3, seed=0)  # over the same files
    with pytest.raises(UsageError, match=r"view_001\.jpg, which is not of this scene"):
        render_scene(tmp_path / "again", num_views=1)
    with pytest.raises(UsageError, match="num_views is 0"):
        render_scene(tmp_path / "none", num_views=0)


def test_exposure_and_noise_are_there_and_mild(scene: Scene) -> None:
    gains, noises = [], []
    for name, camera in scene.cameras.items():
        clean = cv2.cvtColor(render_view(scene.planes, camera), cv2.COLOR_RGB2GRAY)
        photo = read_image(scene.images / name).astype(np.float32)
        middle = (clean > 40) & (clean < 200)
        gain = float(np.median(photo[middle] / clean[middle]))
        gains.append(gain)
        noises.append(float((photo - gain * clean)[middle].std()))
    assert all(0.9 < gain < 1.1 for gain in gains)
    assert max(gains) - min(gains) > 0.01
    assert all(0.8 < noise < 3 for noise in noises)


def test_cameras_of_shared_scenes_are_read(shared_data: Path) -> None:
    for name in ("herz_jesus", "temple_ring", "fox"):
        folder = shared_data / "validate" / name
        cameras = load_cameras(folder / "cameras.json")
        assert len(cameras) >= 10
        for photo, camera in cameras.items():
            photos = [path for path in (folder / photo, folder / "images" / photo) if path.exists()]
            assert image_size(photos[0]) == (camera.width, camera.height)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "not a JSON file"),
        ("[1]", "holds a list"),
        ('{"a.jpg": {"K": 1}}', r"a\.jpg is not a camera"),
        ('{"a.jpg": [1]}', r"a\.jpg is not a camera"),
        ('{"a.jpg": {"K": [[1]], "R": [[1]], "t": [1], "width": 1, "height": 1}}', "have shapes"),
        (
            json.dumps(
                {
                    "a.jpg": {
                        "K": np.eye(3).tolist(),
                        "R": (-np.eye(3)).tolist(),
                        "t": [0, 0, 0],
                        "width": 1,
                        "height": 1,
                    }
                }
            ),
            "not a rotation",
        ),
    ],
)
def test_a_wrong_cameras_file_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "cameras.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_cameras(path)


def test_a_cameras_file_with_notes_only_is_empty(tmp_path: Path) -> None:
    (tmp_path / "cameras.json").write_text('{"convention": "none"}')
    assert load_cameras(tmp_path / "cameras.json") == {}


def random_poses(num: int) -> dict[str, tuple[Array, Array]]:
    rng = np.random.default_rng(5)
    return {f"{i}.jpg": (rotation(*rng.uniform(-90, 90, 3)), rng.normal(size=3)) for i in range(num)}


def moved(poses: dict[str, tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
    """The same cameras in another frame: X' = 2.5 Q X + d."""
    Q, d = rotation(20, -70, 130), np.array([3.0, -1.0, 10.0])
    centers = {name: 2.5 * Q @ (-R.T @ t) + d for name, (R, t) in poses.items()}
    return {name: (R @ Q.T, -R @ Q.T @ centers[name]) for name, (R, t) in poses.items()}


@pytest.mark.parametrize("num", [3, 4, 20])
def test_a_similarity_is_no_error(num: int) -> None:
    truth = random_poses(num)
    errors = pose_errors(moved(truth), truth)
    assert errors["num_compared"] == num
    assert errors["median_rotation_deg"] < 1e-6
    assert errors["median_position_percent"] < 1e-6


@pytest.mark.parametrize("angle_deg", [1e-5, 2.0, 120.0, 180.0])
def test_a_turn_of_every_camera_on_its_spot_is_a_rotation_error(angle_deg: float) -> None:
    truth = random_poses(6)
    turned = {}
    for name, (R, t) in moved(truth).items():
        turn = rotation(0, angle_deg * 0.6, angle_deg * 0.8)
        turned[name] = (turn @ R, turn @ t)  # keeps the centre -R.T t
    errors = pose_errors(turned, truth)
    assert errors["median_rotation_deg"] == pytest.approx(angle_deg, rel=1e-4)
    assert errors["median_position_percent"] < 1e-6


def test_a_position_error_by_hand() -> None:
    """Four cameras on a square, estimated with heights +-d in turn: no similarity but the scale can lessen that."""
    square, d = [(1, 1, 0), (1, -1, 0), (-1, -1, 0), (-1, 1, 0)], 0.2
    truth = {str(i): (np.eye(3), -np.array(center, float)) for i, center in enumerate(square)}
    bent = {str(i): (np.eye(3), -np.array([x, y, d * (-1) ** i])) for i, (x, y, _) in enumerate(square)}
    scale = 8 / (8 + 4 * d**2)
    distance = math.sqrt(2 * (scale - 1) ** 2 + (scale * d) ** 2)
    errors = pose_errors(bent, truth)
    assert errors["median_position_percent"] == pytest.approx(100 * distance / math.sqrt(8))
    assert errors["median_rotation_deg"] == pytest.approx(0, abs=1e-9)


def test_the_median_ignores_one_bad_camera_and_unknown_names() -> None:
    truth = random_poses(40)
    estimated = moved(truth)
    R, t = estimated["7.jpg"]
    estimated["7.jpg"] = (rotation(0, 90, 0) @ R, rotation(0, 90, 0) @ t)
    estimated["unknown.jpg"] = (np.eye(3), np.zeros(3))
    for index in range(20, 40):
        del estimated[f"{index}.jpg"]
    errors = pose_errors(estimated, truth)
    assert errors["num_compared"] == 20
    assert errors["median_rotation_deg"] < 1e-6


def test_a_mirror_image_is_not_aligned_away() -> None:
    truth = {name: (np.eye(3), t) for name, (_, t) in random_poses(8).items()}
    mirrored = {name: (R, t * np.array([1, 1, -1])) for name, (R, t) in truth.items()}
    assert pose_errors(mirrored, truth)["median_position_percent"] > 5


def test_what_cannot_be_aligned_is_said() -> None:
    truth = random_poses(5)
    with pytest.raises(JobError, match="2 photos have"):
        pose_errors({name: truth[name] for name in ("0.jpg", "1.jpg")}, truth)
    with pytest.raises(JobError, match="0 photos have"):
        pose_errors({}, truth)
    line = {str(i): (np.eye(3), np.array([float(i), 2.0 * i, 0.0])) for i in range(5)}
    with pytest.raises(JobError, match="on one line"):
        pose_errors(line, line)
    spot = {name: (np.eye(3), np.zeros(3)) for name in truth}
    with pytest.raises(JobError, match="in one place"):
        pose_errors(spot, truth)
    with pytest.raises(UsageError, match=r"pose of 3\.jpg is not a finite"):
        pose_errors(truth | {"3.jpg": (np.eye(3), np.array([np.nan, 0, 0]))}, truth)
    with pytest.raises(UsageError, match=r"pose of 3\.jpg"):
        pose_errors(truth | {"3.jpg": (np.eye(3), np.zeros((3, 1)))}, truth)
