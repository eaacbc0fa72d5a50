import itertools
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pycolmap
import pytest

from kornia_bingan import colmap
from kornia_bingan.colmap import (
    Camera,
    mapping,
    read_features,
    read_model,
    read_verification,
    write_features,
    write_matches,
)
from kornia_bingan.colmap import database as colmap_database
from kornia_bingan.colmap.model import colour_points, count_places
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.keypoints import Keypoints, detect
from tests.helpers.image_bytes import encode, exif, with_exif


def keypoints(xy, size=8.0, angle_deg=30.0):
    count = len(xy)
    full = [np.full(count, value, np.float32) for value in (size, angle_deg, 1.0)]
    return Keypoints(np.asarray(xy, np.float32).reshape(-1, 2), *full, np.zeros(count, np.int32))


def stored(database, table_keypoints=1):
    """The keypoints as the file has them, read without pycolmap."""
    with sqlite3.connect(database) as connection:
        rows, columns, data = connection.execute(
            "SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (table_keypoints,)
        ).fetchone()
    return np.frombuffer(data, np.float32).reshape(rows, columns)


# --- features ---------------------------------------------------------------------------------------------------------


def test_half_a_pixel_is_added_once_and_taken_away_once(tmp_path):
    database = tmp_path / "database.db"
    write_features(database, {"a.jpg": keypoints([[10, 20]])}, Camera(640, 480))
    assert stored(database).tolist() == [[10.5, 20.5, 4.0, pytest.approx(np.pi / 6)]]
    back = read_features(database)["a.jpg"]
    assert back.xy.tolist() == [[10, 20]]
    assert back.size.tolist() == [8]
    np.testing.assert_allclose(back.angle_deg, [30], atol=1e-4)


def test_known_intrinsics_cross_the_frame_too(tmp_path):
    database = tmp_path / "database.db"
    write_features(
        database, {"a.jpg": keypoints([[1, 2]])}, Camera.pinhole(640, 480, fx=600, fy=601, cx=319.5, cy=239.5)
    )
    db = pycolmap.Database.open(str(database))
    camera = db.read_all_cameras()[0]
    db.close()
    assert camera.model.name == "PINHOLE"
    assert camera.params.tolist() == [600, 601, 320, 240]  # the middle of 640 x 480 pixels in COLMAP's frame
    assert camera.has_prior_focal_length


def test_default_camera_is_a_guess_in_the_middle_of_the_image(tmp_path):
    database = tmp_path / "database.db"
    write_features(database, {"a.jpg": keypoints([[1, 2]])}, Camera(400, 500))
    db = pycolmap.Database.open(str(database))
    camera = db.read_all_cameras()[0]
    db.close()
    assert camera.model.name == "SIMPLE_RADIAL"
    assert camera.params.tolist() == [600, 200, 250, 0]
    assert not camera.has_prior_focal_length


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_round_trip_of_any_number_of_keypoints(tmp_path, count):
    rng = np.random.default_rng(count)
    given = Keypoints(
        rng.uniform(0, 4000, (count, 2)).astype(np.float32),
        rng.uniform(1, 200, count).astype(np.float32),
        rng.uniform(0, 360, count).astype(np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.int32),
    )
    database = tmp_path / "database.db"
    write_features(database, {"sub folder/b.jpg": given, "a.jpg": keypoints([[0, 0]])}, Camera(4000, 3000))
    back = read_features(database)
    assert list(back) == ["a.jpg", "sub folder/b.jpg"]
    again = back["sub folder/b.jpg"]
    np.testing.assert_allclose(again.xy, given.xy, atol=3e-4)  # one step of float32 at 4,000
    np.testing.assert_allclose(again.size, given.size, rtol=1e-6)
    np.testing.assert_allclose(again.angle_deg, given.angle_deg, atol=1e-4)
    for name in ("xy", "size", "angle_deg", "response", "octave"):
        assert getattr(again, name).dtype == getattr(given, name).dtype
        assert getattr(again, name).shape == getattr(given, name).shape


def test_unset_angles_are_upright(tmp_path):
    write_features(tmp_path / "d.db", {"a.jpg": keypoints([[5, 5]], angle_deg=-1)}, Camera(64, 64))
    assert stored(tmp_path / "d.db")[0, 3] == 0


@pytest.mark.parametrize("columns", [2, 4, 6])
def test_arrays_of_double_precision_are_stored_as_float32(tmp_path, columns):
    given = np.tile(np.array([[10.0, 20, 3, 0.5, -0.5, 3]]), (7, 1))[:, :columns]
    write_features(tmp_path / "d.db", {"a.jpg": given}, Camera(64, 64))
    assert stored(tmp_path / "d.db").shape == (7, columns)
    assert stored(tmp_path / "d.db")[0, :2].tolist() == [10.5, 20.5]
    back = read_features(tmp_path / "d.db")["a.jpg"]
    assert back.xy[0].tolist() == [10, 20]
    if columns == 6:
        assert back.size[0] == pytest.approx(2 * np.hypot(3, 0.5))
        assert back.angle_deg[0] == pytest.approx(np.rad2deg(np.arctan2(-0.5, 3)) % 360, abs=1e-3)


def test_scale_and_orientation_are_those_of_colmaps_own_detector(tmp_path):
    from tests.helpers.photos import texture

    (tmp_path / "images").mkdir()
    image = texture(300, 400)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), image)
    pycolmap.logging.minloglevel = 2
    pycolmap.extract_features(str(tmp_path / "d.db"), str(tmp_path / "images"), device=pycolmap.Device.cpu)
    pycolmap.logging.minloglevel = 0
    theirs, ours = read_features(tmp_path / "d.db")["a.png"], detect(image, "dog", 2000)
    distance = np.linalg.norm(ours.xy[:, None] - theirs.xy, axis=2)
    nearest, same = distance.argmin(1), distance.min(1) < 0.3
    assert same.sum() > 100
    assert np.median(ours.size[same] / theirs.size[nearest[same]]) == pytest.approx(1, abs=0.02)
    turn = (ours.angle_deg[same] - theirs.angle_deg[nearest[same]] + 180) % 360 - 180
    assert np.mean(np.abs(turn) < 10) > 0.6  # several orientations of one point are paired at random
    assert abs(np.median(turn)) < 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((4, 3), np.float32), r"a.jpg: keypoints .* got float32 \(4, 3\)"),
        (np.zeros(4), r"a.jpg: .* got float64 \(4,\)"),
        (np.array([["x", "y"]]), r"a.jpg: keypoints are numbers"),
        (np.array([[1, 2], [np.nan, 3]]), r"a.jpg: keypoint 1 is not finite"),
        (np.array([[1, 2, 0, 0]]), r"a.jpg: keypoint 0 .* no size"),
        (keypoints([[1, 2], [np.inf, 0]]), r"a.jpg: keypoint 1 is not finite"),
    ],
)
def test_bad_keypoints_are_named(tmp_path, bad, words):
    with pytest.raises(UsageError, match=words):
        write_features(tmp_path / "d.db", {"a.jpg": bad}, Camera(64, 64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        (Camera(64, 64, "NIKON"), "the camera model is 'NIKON'; choose one of .*PINHOLE"),
        (Camera(64, 64, "PINHOLE", (1.0, 2.0)), r"PINHOLE has the parameters fx, fy, cx, cy, but 2 were given"),
        (Camera.pinhole(64, 64, fx=0, fy=1, cx=3, cy=4), "impossible parameters"),
        (Camera(64, 64, focal_px=float("nan")), "impossible parameters"),
        (Camera(0, 64), "a camera of 0 x 64 pixels is impossible"),
        ({"b.jpg": Camera(64, 64)}, "a.jpg has keypoints but no camera"),
    ],
)
def test_bad_cameras_are_named(tmp_path, camera, words):
    with pytest.raises(UsageError, match=words):
        write_features(tmp_path / "d.db", {"a.jpg": keypoints([[1, 2]])}, camera)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "d.db").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        write_features(tmp_path / "d.db", {"a.jpg": keypoints([[1, 2]])}, Camera(64, 64))
    assert (tmp_path / "d.db").read_text() == "mine"
    with pytest.raises(UsageError, match="no image"):
        write_features(tmp_path / "e.db", {}, Camera(64, 64))
    with pytest.raises(UsageError, match="cannot be made"):
        write_features(tmp_path / "d.db" / "e.db", {"a.jpg": keypoints([[1, 2]])}, Camera(64, 64))


@pytest.mark.parametrize(("sharing", "count"), [("per-size", 2), ("per-image", 3)])
def test_sharing_of_cameras(tmp_path, sharing, count):
    sizes = {"a": (64, 48), "b": (48, 64), "c": (64, 48)}
    features = dict.fromkeys(sizes, keypoints([[1, 2]]))
    write_features(tmp_path / "d.db", features, colmap.cameras_for(sizes, sharing))
    db = pycolmap.Database.open(str(tmp_path / "d.db"))
    cameras = {image.name: db.read_camera(image.camera_id) for image in db.read_all_images()}
    assert db.num_cameras() == count
    db.close()
    assert {name: (camera.width, camera.height) for name, camera in cameras.items()} == sizes


def test_one_camera_for_different_sizes_is_refused():
    with pytest.raises(UsageError, match="a is 64 x 48 and b is 48 x 64"):
        colmap.cameras_for({"a": (64, 48), "b": (48, 64)}, "single")
    assert len(set(colmap.cameras_for({"a": (64, 48), "b": (64, 48)}, "single").values())) == 1
    with pytest.raises(UsageError, match="choose one of single"):
        colmap.cameras_for({"a": (64, 48)}, "some")


# --- matches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three_images(tmp_path):
    database = tmp_path / "d.db"
    many = keypoints(np.random.default_rng(0).uniform(0, 640, (50, 2)))
    write_features(database, {"a": many, "b": many, "empty": keypoints([])}, Camera(640, 480))
    return database


GOOD = np.array([[0, 0], [1, 1]])


@pytest.mark.parametrize(
    ("matches", "words"),
    [
        ({("a", "b"): GOOD.astype(np.float64)}, r"pair a - b: matches are integers \(M, 2\), got float64 \(2, 2\)"),
        ({("a", "b"): np.array([[np.nan, 1]])}, r"pair a - b: matches are integers"),
        ({("a", "b"): GOOD.astype(bool)}, r"pair a - b: .* got bool"),
        ({("a", "b"): np.zeros((2, 3), np.int64)}, r"pair a - b: .* \(2, 3\)"),
        ({("a", "b"): np.zeros(0, np.int64)}, r"pair a - b: .* \(0,\)"),
        ({("a", "b"): np.array([[0, 0], [-1, 3]])}, r"pair a - b: match 1 names keypoint -1 of a, which has 50"),
        ({("a", "b"): np.array([[0, 50]])}, r"pair a - b: match 0 names keypoint 50 of b, which has 50"),
        (
            {("a", "b"): np.array([[0, 2**63]], np.uint64)},
            r"pair a - b: match 0 names keypoint 9223372036854775808 of b",
        ),
        ({("a", "empty"): np.array([[0, 0]])}, r"pair a - empty: match 0 names keypoint 0 of empty, which has 0"),
        ({("a", "a"): GOOD}, r"pair a - a: an image cannot be matched with itself"),
        ({("a", "b"): GOOD, ("b", "a"): GOOD}, r"pair b - a is given twice, once in each order"),
        ({("a", "c"): GOOD}, r"pair a - c: c is no image of"),
        ({("a", "b"): np.array([[0, 0], [1, 1], [0, 0]])}, r"pair a - b: a match is given twice"),
    ],
)
def test_bad_matches_name_the_pair_and_write_nothing(three_images, matches, words):
    with pytest.raises(UsageError, match=words):
        write_matches(three_images, {("b", "empty"): np.zeros((0, 2), int), **matches}, verification=False)
    assert read_verification(three_images).pairs == 0


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint32, np.uint8])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_matches_are_stored_as_32_bit_rows_of_their_images(three_images, dtype, names):
    given = np.array([[0, 7], [3, 2]], dtype)
    state = write_matches(three_images, {names: given}, verification=False)
    assert (state.pairs, state.verified, state.rejected, state.matches) == (1, 0, 0, 2)
    with sqlite3.connect(three_images) as connection:
        rows, columns, data = connection.execute("SELECT rows, cols, data FROM matches").fetchone()
    assert (rows, columns, len(data)) == (2, 2, 16)
    db = pycolmap.Database.open(str(three_images))
    ids = {image.name: image.image_id for image in db.read_all_images()}
    back = db.read_matches(ids[names[0]], ids[names[1]])
    db.close()
    assert back.tolist() == given.tolist()


def test_a_stored_pair_is_not_written_again(three_images):
    write_matches(three_images, {("a", "b"): GOOD}, verification=False)
    with pytest.raises(UsageError, match=r"pair b - a is already in"):
        write_matches(three_images, {("b", "a"): GOOD}, verification=False)


def test_a_pair_without_matches_is_not_written(three_images):
    state = write_matches(three_images, {("a", "b"): np.zeros((0, 2), np.int64)})
    assert (state.pairs, state.verified, state.rejected, state.inliers) == (0, 0, 0, {})


def test_no_database_or_another_file(tmp_path):
    (tmp_path / "text.db").write_text("not a database " * 100)
    for call in (read_features, read_verification, colmap.verify, lambda path: write_matches(path, {})):
        with pytest.raises(UsageError, match="no such database"):
            call(tmp_path / "absent.db")
        with pytest.raises(UsageError, match="cannot be opened"):
            call(tmp_path / "text.db")
    assert not (tmp_path / "absent.db").exists()


# --- verification and mapping -----------------------------------------------------------------------------------------

NAMES = [f"{n}.png" for n in range(5)]
CENTRES = np.array([[n - 2.0, 0.2 * n, 0] for n in range(5)])


def scene(tmp_path, *, images=5, camera=None, noise=0.0, unrelated=False, twice=0):
    """300 points, some with two keypoints, before cameras that look along z with f = 500, in our frame."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-3, -2, 5], [3, 2, 9], (300, 3))
    features = {}
    for name, centre in list(zip(NAMES, CENTRES, strict=True))[:images]:
        if unrelated:
            xyz = rng.uniform([-3, -2, 5], [3, 2, 9], (300, 3))
        seen = xyz - centre
        xy = 500 * seen[:, :2] / seen[:, 2:] + [319.5, 239.5] + rng.normal(0, noise, (300, 2))
        features[name] = keypoints(np.concatenate([xy, xy[:twice]]))
    database = tmp_path / "database.db"
    write_features(database, features, camera or Camera.pinhole(640, 480, fx=500, fy=500, cx=319.5, cy=239.5))
    rows = np.repeat(np.arange(300 + twice)[:, None], 2, 1)
    return database, {pair: rows for pair in itertools.combinations(features, 2)}, xyz


def align(points, onto):
    """Scale, rotation and shift of Umeyama (1991) that bring points onto others."""
    a, b = points - points.mean(0), onto - onto.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(s) @ sign) / (a**2).sum()
    return scale, rotation, onto.mean(0) - scale * rotation @ points.mean(0)


def test_synthetic_points_give_their_cameras_back(tmp_path):
    database, matches, _ = scene(tmp_path)
    state = write_matches(database, matches)
    assert (state.pairs, state.verified, state.rejected) == (10, 10, 0)
    assert state.inliers["0.png", "1.png"] >= 299
    assert set(state.inliers) == set(itertools.combinations(NAMES, 2))
    seen = []
    model = colmap.reconstruct(
        database, None, tmp_path / "model", refine=False, log=tmp_path / "log" / "map.txt", progress=seen.append
    )
    assert seen == [2, 3, 4, 5]
    assert "initial" in (tmp_path / "log" / "map.txt").read_text()
    assert model.names == tuple(NAMES)
    assert len(model.xyz) == len(model.rgb) == len(model.error_px) > 290
    assert model.mean_reprojection_error_px < 0.01
    assert model.observations == model.track_length.sum()
    assert model.mean_track_length == pytest.approx(model.observations / len(model.xyz))
    assert all(camera.params == (500, 500, 319.5, 239.5) for camera in model.cameras)  # read back in this frame
    centres = -np.einsum("nij,ni->nj", model.rotations, model.translations)
    scale, rotation, shift = align(centres, CENTRES)
    np.testing.assert_allclose(scale * centres @ rotation.T + shift, CENTRES, atol=2e-3)
    # the true cameras are not turned: R_i = R^T for all of them
    np.testing.assert_allclose(model.rotations @ rotation.T, np.tile(np.eye(3), (5, 1, 1)), atol=1e-3)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "cameras.bin",
        "frames.bin",
        "images.bin",
        "points3D.bin",
        "rigs.bin",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.db", "log", "model"]
    colmap.write_points(tmp_path / "model", tmp_path / "points.ply")
    assert f"element vertex {len(model.xyz)}".encode() in (tmp_path / "points.ply").read_bytes()


def test_two_runs_give_equal_bytes_on_any_number_of_threads(tmp_path):
    results = []
    for threads, name in ((1, "one"), (2, "two")):
        (tmp_path / name).mkdir()
        database, matches, _ = scene(tmp_path / name, noise=0.5)
        write_matches(database, matches, verification=False)
        state = colmap.verify(database, threads=threads)
        colmap.reconstruct(database, None, tmp_path / name / "model")
        files = sorted((tmp_path / name / "model").iterdir())
        results.append((state, {path.name: path.read_bytes() for path in files}))
    assert results[0] == results[1]


def in_this_process(monkeypatch, module):
    """Let COLMAP's work be done here instead of in a child process, where a test sees it."""

    def run(function, arguments, **_):
        return getattr(module, function.partition(":")[2])(lambda _: None, **arguments)

    monkeypatch.setattr(module, "run_in_child", run)


def test_the_seed_and_the_error_of_verification_reach_colmap(tmp_path, monkeypatch):
    database, matches, _ = scene(tmp_path, images=2)
    in_this_process(monkeypatch, colmap_database)
    given = []

    def spy(path, *, verifier_options, two_view_geometry_options):
        ransac = two_view_geometry_options.ransac
        number = two_view_geometry_options.min_num_inliers
        given.append((path, verifier_options.num_threads, number, ransac.max_error, ransac.random_seed))

    monkeypatch.setattr(pycolmap, "geometric_verification", spy)
    write_matches(database, matches, seed=7)
    write_matches(database, {})
    colmap.verify(database)
    colmap.verify(database, max_error_px=2.5, min_inliers=21, seed=9, threads=3)
    path = str(database)
    usual = (path, -1, 15, 4.0, 0)
    assert given == [(path, -1, 15, 4.0, 7), usual, usual, (path, 3, 21, 2.5, 9)]


def test_a_smaller_error_has_fewer_inliers_and_few_inliers_are_no_pair(tmp_path, monkeypatch):
    """The same points with a noise of 1.5 px, verified at 8 and at 1 px; 300 matches are fewer than 400."""
    in_this_process(monkeypatch, colmap_database)
    numbers = []
    for name, changes in (
        ("wide", {"max_error_px": 8.0}),
        ("narrow", {"max_error_px": 1.0}),
        ("many", {"max_error_px": 8.0, "min_inliers": 400}),
    ):
        (tmp_path / name).mkdir()
        database, matches, _ = scene(tmp_path / name, images=2, noise=1.5)
        write_matches(database, matches, verification=False)
        state = colmap.verify(database, **changes)
        numbers.append((state.verified, state.rejected, state.inliers["0.png", "1.png"]))
    (wide, narrow, many) = numbers
    assert wide[:2] == narrow[:2] == (1, 0)
    assert wide[2] > 290
    assert narrow[2] < 240
    assert many == (0, 1, 0)


def test_the_settings_of_a_reconstruction_reach_colmaps_mappers(tmp_path, monkeypatch):
    database, matches, _ = scene(tmp_path, images=3)
    write_matches(database, matches)
    in_this_process(monkeypatch, mapping)
    given = []

    def incremental(path, images, out, options, **_):
        seeds = {options.random_seed, options.mapper.random_seed, options.triangulation.random_seed}
        threads = {options.num_threads, options.mapper.num_threads}
        start = options.mapper.init_max_forward_motion, options.mapper.init_min_tri_angle
        kept = set(options.constant_cameras), options.ba_refine_sensor_from_rig
        given.append((path, seeds, threads, options.min_model_size, *kept, start))
        return {}

    def mapped_globally(path, images, out, options):
        mapper = options.mapper
        parts = (options, mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation)
        adjustment = mapper.bundle_adjustment
        threads = {options.num_threads, mapper.num_threads, adjustment.ceres.solver_options.num_threads}
        refined = {adjustment.refine_focal_length, adjustment.refine_extra_params}
        gpu = {adjustment.ceres.use_gpu, mapper.global_positioning.use_gpu}
        moved = {part.refine_sensor_from_rig for part in (*parts[1:4], adjustment)}
        given.append((path, {part.random_seed for part in parts}, threads, options.min_model_size, refined, gpu, moved))
        return {}

    monkeypatch.setattr(pycolmap, "incremental_mapping", incremental)
    monkeypatch.setattr(pycolmap, "global_mapping", mapped_globally)
    changes = {"seed": 11, "threads": 2, "min_model_size": 5}
    for mapper, more in itertools.product(("incremental", "global"), ({}, {**changes, "refine": False})):
        with pytest.raises(JobError, match="no model was found"):
            colmap.reconstruct(database, None, tmp_path / "model", mapper=mapper, **more)
    path = str(database)
    assert given == [
        (path, {0}, {1}, 3, set(), False, (0.95, 16)),
        (path, {0}, {1}, 3, set(), False, (1, 4)),  # a second try, since there is no model
        (path, {11}, {2}, 5, {1}, False, (0.95, 16)),
        (path, {11}, {2}, 5, {1}, False, (1, 4)),
        (path, {0}, {1}, 3, {True}, {False}, {False}),
        (path, {11}, {2}, 5, {False}, {False}, {False}),
    ]


def test_the_largest_model_has_most_images_then_most_points_then_came_first():
    class Size:
        def __init__(self, images, points):
            self.num_reg_images, self.num_points3D = (lambda: images), (lambda: points)

    assert mapping._by_size({0: Size(3, 90), 1: Size(5, 10), 2: Size(5, 20), 3: Size(5, 20)}) == ["2", "3", "1", "0"]
    assert mapping._by_size({}) == []


def test_of_two_models_the_largest_is_left_alone_in_its_folder(tmp_path, monkeypatch):
    database, matches, _ = scene(tmp_path, images=3)
    write_matches(database, matches)
    in_this_process(monkeypatch, mapping)
    mapped = pycolmap.incremental_mapping

    def two_models(path, images, out, options, **more):
        models = mapped(path, images, out, options, **more)
        shutil.copytree(Path(out) / "0", Path(out) / "7")
        second = SimpleNamespace(num_reg_images=lambda: 2, num_points3D=lambda: 9, reg_image_ids=lambda: [1, 2])
        return {**models, 7: second}

    monkeypatch.setattr(pycolmap, "incremental_mapping", two_models)
    assert len(colmap.reconstruct(database, None, tmp_path / "model").names) == 3
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".bin"}


def test_matches_that_fit_no_geometry_are_rejected(tmp_path):
    database, matches, _ = scene(tmp_path, images=3, unrelated=True)
    # among 40 random matches, 15 may lie within 4 px of some epipolar geometry
    state = write_matches(database, {pair: rows[:20] for pair, rows in matches.items()})
    assert (state.pairs, state.verified, state.rejected) == (3, 0, 3)
    assert set(state.inliers.values()) == {0}
    with pytest.raises(JobError, match="none of the 3 matched pairs passed verification"):
        colmap.reconstruct(database, None, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_pairs_without_a_base_line_give_no_model(tmp_path):
    xy = np.random.default_rng(0).uniform(50, 400, (200, 2))
    database = tmp_path / "database.db"
    write_features(database, {"a": keypoints(xy), "b": keypoints(xy)}, Camera(640, 480))
    write_matches(database, {("a", "b"): np.repeat(np.arange(200)[:, None], 2, 1)})
    with pytest.raises(JobError, match="no model was found"):
        colmap.reconstruct(database, None, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.db"]


def test_raw_pairs_are_not_passed_on_in_silence(tmp_path):
    database, matches, _ = scene(tmp_path, images=3)
    with pytest.raises(UsageError, match="no matched pairs"):
        colmap.reconstruct(database, None, tmp_path / "model")
    write_matches(database, matches, verification=False)
    with pytest.raises(UsageError, match=r"3 of the 3 matched pairs .* are not verified; call verify"):
        colmap.reconstruct(database, None, tmp_path / "model")


def test_outputs_are_not_overwritten_and_photos_must_exist(tmp_path):
    database, matches, _ = scene(tmp_path, images=3)
    write_matches(database, matches)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("x")
    with pytest.raises(UsageError, match="is no empty folder"):
        colmap.reconstruct(database, None, tmp_path / "model")
    with pytest.raises(UsageError, match=r"0.png is in .* but not in"):
        colmap.reconstruct(database, tmp_path, tmp_path / "other")


def test_points_of_one_place_are_counted_once(tmp_path):
    database, matches, _ = scene(tmp_path, images=3, twice=40)
    write_matches(database, matches)
    model = colmap.reconstruct(database, None, tmp_path / "model", refine=False)
    assert 330 <= len(model.xyz) <= 340
    assert len(model.xyz) - count_places(tmp_path / "model") == 40
    with pytest.raises(UsageError, match="holds no readable COLMAP model"):
        count_places(tmp_path)


def test_points_get_the_colours_of_upright_photos(tmp_path):
    """Left half red, right half green; one photo is stored on its side with an EXIF orientation."""
    database, matches, _ = scene(tmp_path, images=3)
    write_matches(database, matches)
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, name in enumerate(NAMES[:3]):
        # every photo is painted by the true side of the points it sees: x < 0 in the world is red
        boundary = round(500 * (0 - CENTRES[index, 0]) / 7 + 319.5)
        picture = np.zeros((480, 640, 3), np.uint8)
        # OpenCV writes blue, green, red
        picture[:, : max(boundary, 0), 2], picture[:, max(boundary, 0) :, 1] = 200, 200
        if index == 1:  # orientation 6: shown after a quarter turn clockwise
            data = with_exif(encode(".png", np.ascontiguousarray(np.rot90(picture))), exif(6), (480, 640))
        else:
            data = encode(".png", picture)
        (photos / name).write_bytes(data)
    model = colmap.reconstruct(database, photos, tmp_path / "model", refine=False)
    centres = -np.einsum("nij,ni->nj", model.rotations, model.translations)
    scale, rotation, shift = align(centres, CENTRES[:3])
    world_x = (scale * model.xyz @ rotation.T + shift)[:, 0]
    assert {tuple(colour) for colour in model.rgb[world_x < -1.5].tolist()} == {(200, 0, 0)}
    assert {tuple(colour) for colour in model.rgb[world_x > 1.5].tolist()} == {(0, 200, 0)}
    # a photo that was cut since has no colour for what was below
    data = (photos / NAMES[0]).read_bytes()
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    (photos / NAMES[0]).write_bytes(encode(".png", np.ascontiguousarray(whole[:200])))
    colour_points(tmp_path / "model", photos)
    again = read_model(tmp_path / "model")
    np.testing.assert_array_equal(again.rgb[np.abs(world_x) > 1.5], model.rgb[np.abs(world_x) > 1.5])


def test_model_of_colmaps_own_synthetic_scene(tmp_path):
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, 6, 120
    pycolmap.set_random_seed(3)
    db = pycolmap.Database.open(str(tmp_path / "theirs.db"))
    truth = pycolmap.synthesize_dataset(options, db)
    db.close()
    (tmp_path / "truth").mkdir()
    truth.write(str(tmp_path / "truth"))
    expected = read_model(tmp_path / "truth")
    # their scene passes through our functions: read, written again, verified and mapped
    features = read_features(tmp_path / "theirs.db")
    write_features(tmp_path / "ours.db", features, expected.cameras[0])
    db = pycolmap.Database.open(str(tmp_path / "theirs.db"))
    names = {image.image_id: image.name for image in db.read_all_images()}
    matches = {}
    for pair_id, rows in zip(*db.read_all_matches(), strict=True):
        id0, id1 = pycolmap.pair_id_to_image_pair(pair_id)
        matches[names[id0], names[id1]] = rows
    db.close()
    state = write_matches(tmp_path / "ours.db", matches)
    assert state.verified == state.pairs == 15
    model = colmap.reconstruct(tmp_path / "ours.db", None, tmp_path / "model", refine=False)
    assert model.names == expected.names
    assert model.mean_reprojection_error_px < 0.05

    def centres(of):
        return -np.einsum("nij,ni->nj", of.rotations, of.translations)

    scale, rotation, shift = align(centres(model), centres(expected))
    np.testing.assert_allclose(scale * centres(model) @ rotation.T + shift, centres(expected), atol=1e-2)
    np.testing.assert_allclose(model.rotations @ rotation.T, expected.rotations, atol=1e-3)
    assert expected.cameras[0].params == pytest.approx((1280, 511.5, 383.5, 0.05))
    assert model.cameras[0].params == pytest.approx((1280, 511.5, 383.5, 0.05))


def test_verification_goes_on_after_a_kill_with_the_same_result(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, matches, _ = scene(tmp_path / "whole", noise=1.0)
    expected = write_matches(whole, matches)
    database, matches, _ = scene(tmp_path, noise=1.0)
    write_matches(database, matches, verification=False)
    with pytest.raises(JobError, match=r"verification was stopped at the time limit|before verification"):
        colmap.verify(database, time_limit_s=0.05)
    assert colmap.verify(database) == expected


def test_a_crash_inside_colmap_is_a_sentence(three_images, tmp_path):
    """Raw matches behind the back of write_matches, for an image without keypoints: pycolmap dies of SIGSEGV."""
    db = pycolmap.Database.open(str(three_images))
    ids = {image.name: image.image_id for image in db.read_all_images()}
    db.write_matches(ids["a"], ids["empty"], np.repeat(np.arange(40, dtype=np.uint32)[:, None], 2, 1))
    db.close()
    with pytest.raises(JobError, match=r"^verification was killed by SIG\w+; the end of its log is in"):
        colmap.verify(three_images, log=tmp_path / "log.txt")


def test_no_model_to_read(tmp_path):
    with pytest.raises(UsageError, match="holds no readable COLMAP model"):
        read_model(tmp_path)
    with pytest.raises(UsageError, match="holds no readable COLMAP model"):
        read_model(tmp_path / "absent")


def test_png_can_be_written_after_the_import_and_torch_is_not_loaded():
    """OpenCV aborts in its PNG encoder if pycolmap was loaded first; a process that verifies or maps starts at once."""
    code = (
        "import kornia_bingan.{0}; import cv2, numpy as np;"
        "assert cv2.imencode('.png', np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8))[0];"
        "import sys; assert 'torch' not in sys.modules"
    )
    for module in ("colmap.database", "colmap.mapping"):
        subprocess.run([sys.executable, "-c", code.format(module)], check=True)
