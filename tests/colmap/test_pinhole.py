from __future__ import annotations

import cv2
import numpy as np
import pycolmap
import pytest

from kornia_bingan.colmap.pinhole import Pinhole, Undistortion, pinhole_for, undistort_model
from kornia_bingan.errors import JobError
from tests.helpers.photos import texture


def camera(model: str, *params: float, size: tuple[int, int] = (400, 300)) -> pycolmap.Camera:
    return pycolmap.Camera(model=model, width=size[0], height=size[1], params=params, camera_id=1)


@pytest.mark.parametrize(
    "made",
    [
        camera("SIMPLE_PINHOLE", 300, 200, 150),
        camera("SIMPLE_RADIAL", 300, 200, 150, -0.1),
        camera("SIMPLE_RADIAL", 300, 200, 150, 0.1),
        camera("OPENCV", 300, 300, 200, 150, -0.1, 0.02, 0, 0),
        camera("OPENCV_FISHEYE", 250, 250, 200, 150, 0.01, 0, 0, 0),
    ],
    ids=lambda made: f"{made.model.name} {made.params[-1]}",
)
def test_a_camera_with_a_central_principal_point_becomes_that_of_colmap(made: pycolmap.Camera) -> None:
    ours, theirs = pinhole_for(made), pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), made)
    assert abs(ours.width - theirs.width) <= 2  # COLMAP stays within the centres of the outermost pixels
    assert abs(ours.height - theirs.height) <= 2
    assert ours.focal_px == theirs.focal_length_x == theirs.focal_length_y
    # nothing outside of the photo is seen
    x, y = np.meshgrid([-0.5, 0.0, 0.5], [-0.5, 0.0, 0.5])
    rays = np.column_stack([x.ravel() * ours.width, y.ravel() * ours.height]) / ours.focal_px
    places = made.img_from_cam(np.column_stack([rays, np.ones(9)]))
    assert (places > -0.01).all()
    assert (places < [400.01, 300.01]).all()


def test_the_principal_point_is_moved_to_the_middle_and_the_two_focal_lengths_become_one() -> None:
    made = camera("PINHOLE", 300, 310, 210, 140)
    ours = pinhole_for(made)
    assert ours == Pinhole(380 * 305 // 300, 280 * 305 // 310, 305)
    assert ours.params == (305, 305, ours.width / 2, ours.height / 2)


def test_what_fits_no_pinhole_camera_is_one_sentence() -> None:
    with pytest.raises(JobError, match="the panoramas of 400 x 200 fit no pinhole camera"):
        pinhole_for(camera("EQUIRECTANGULAR", 400, 200, size=(400, 200)))
    with pytest.raises(JobError, match="principal point of the PINHOLE camera of 400 x 300 lies outside"):
        pinhole_for(camera("PINHOLE", 300, 300, -5, 150))


@pytest.mark.parametrize("size", [(1100, 20), (20, 1100), (33000, 4), (1, 1)])
def test_without_distortion_every_pixel_stays_where_it_is(size: tuple[int, int]) -> None:
    """Also over the edges of tiles, and in a picture whose side OpenCV's remap does not take."""
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    made = camera("SIMPLE_PINHOLE", 300, size[0] / 2, size[1] / 2, size=size)
    undistort = Undistortion(made, pinhole_for(made))
    for _ in range(2):  # places are kept for the second
        np.testing.assert_array_equal(undistort(image), image)


def test_opencv_undistorts_in_the_same_way() -> None:
    image = np.stack([texture(300, 400, seed) for seed in range(3)], 2)
    made = camera("OPENCV", 300, 300, 200, 150, -0.1, 0.02, 0.001, -0.002)
    new = pinhole_for(made)
    K = np.array([[300.0, 0, 199.5], [0, 300, 149.5], [0, 0, 1]])
    new_K = np.array([[300.0, 0, new.width / 2 - 0.5], [0, 300, new.height / 2 - 0.5], [0, 0, 1]])
    distortion = np.array([-0.1, 0.02, 0.001, -0.002])
    maps = cv2.initUndistortRectifyMap(K, distortion, np.eye(3), new_K, (new.width, new.height), cv2.CV_32FC1)
    theirs = cv2.remap(image, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    difference = np.abs(Undistortion(made, new)(image).astype(int) - theirs)
    assert np.percentile(difference, 99) <= 2  # places are rounded to 1/32 px
    assert difference.mean() < 0.1


def test_what_a_camera_does_not_show_is_black() -> None:
    white = np.full((300, 400, 3), 255, np.uint8)
    seen = Undistortion(camera("SIMPLE_PINHOLE", 300, 200, 150), Pinhole(410, 300, 300))(white)
    assert seen[:, 5:-5].all()
    assert not seen[:, :5].any()
    assert not seen[:, -5:].any()


def test_what_a_fisheye_sees_beyond_90_degrees_leaves_its_track() -> None:
    made = camera("OPENCV_FISHEYE", 60, 60, 100, 100, 0, 0, 0, 0, size=(200, 200))  # 95 degrees to each side
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(made)
    places = np.array([[100.0, 100], [130, 100], [199, 100]])  # the last at 94.5 degrees
    for number in (1, 2, 3):
        image = pycolmap.Image(name=f"{number}.png", keypoints=places, camera_id=1, image_id=number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    for index in range(3):
        elements = [pycolmap.TrackElement(number, index) for number in (1, 2, 3)]
        model.add_point3D(np.array([index, 0.0, 1]), pycolmap.Track(elements), np.zeros(3, np.uint8))
    pinhole = pinhole_for(made)
    undistort_model(model, {1: pinhole}, {f"{number}.png": f"new{number}.png" for number in (1, 2, 3)})
    image = model.images[1]
    assert [point.has_point3D() for point in image.points2D] == [True, True, False]
    assert len(model.points3D) == 2
    np.testing.assert_allclose(image.points2D[1].xy, [pinhole.width / 2 + 60 * np.tan(0.5), pinhole.height / 2])
    assert image.name == "new1.png"
    assert (model.cameras[1].width, model.cameras[1].model.name) == (pinhole.width, "PINHOLE")
