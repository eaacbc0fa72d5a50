"""Truth: codes around known centres, values worked by hand, and a reader that goes as ORB-SLAM2's does (f2e6f51)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from kornia_bingan import cli
from kornia_bingan.bits import hamming_distances
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.search.photo_words import make_vocabulary
from kornia_bingan.search.vocabulary import (
    Vocabulary,
    _median,
    read_vocabulary,
    score,
    train_vocabulary,
    write_vocabulary,
)
from tests.helpers.photos import texture

Codes = NDArray[np.uint8]


def noisy(centres: Codes, count: int, flips: int, rng: np.random.Generator) -> tuple[Codes, NDArray[np.int64]]:
    """Codes with some bits of a centre flipped, and which centre each has."""
    which = rng.integers(len(centres), size=count)
    bits = np.unpackbits(centres[which], axis=1)
    for row in bits:
        row[rng.choice(row.size, flips, replace=False)] ^= 1
    return np.packbits(bits, axis=1), which


def by_hand() -> Vocabulary:
    """Root with the children 00.. and ff.., of which the second has 7f.. and fe.. below it."""
    parents = np.array([-1, 0, 0, 2, 2])
    codes = np.array([[0] * 32, [0] * 32, [255] * 32, [127] * 32, [254] * 32], np.uint8)
    return Vocabulary(2, 2, parents, codes, np.array([0, 0.5, 0, 1.0, 2.0]))


def test_a_code_goes_to_the_nearest_child_of_each_level() -> None:
    vocabulary = by_hand()
    assert vocabulary.leaves.tolist() == [1, 3, 4]
    codes = np.array([[0] * 32, [1] * 32, [255] * 32, [127] * 32, [254] * 32, [15] * 32], np.uint8)
    assert vocabulary.words(codes).tolist() == [0, 0, 1, 1, 2, 0]  # of equally near ones the first
    assert vocabulary.words(codes[:0]).tolist() == []
    with pytest.raises(UsageError, match="codes of 32 bytes, got 16"):
        vocabulary.words(codes[:, :16])


def test_bags_and_scores_by_hand() -> None:
    vocabulary = by_hand()
    zero, low, high = (np.full((1, 32), value, np.uint8) for value in (0, 127, 254))
    bag0 = vocabulary.bag(np.concatenate([zero, zero, low]))
    bag1 = vocabulary.bag(np.concatenate([low, high]))
    assert (bag0[0].tolist(), bag0[1].tolist()) == ([0, 1], [0.5, 0.5])
    assert (bag1[0].tolist(), bag1[1].tolist()) == ([1, 2], [1 / 3, 2 / 3])
    assert score(bag0, bag0) == 1
    assert score(bag0, bag1) == pytest.approx(1 - (0.5 + abs(0.5 - 1 / 3) + 2 / 3) / 2)
    assert score(bag1, bag0) == score(bag0, bag1)
    nothing = vocabulary.bag(zero[:0])
    assert len(nothing[0]) == len(nothing[1]) == 0
    assert score(nothing, bag0) == 0


def test_the_words_of_groups_are_the_groups() -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (3, 32), dtype=np.uint8)
    codes, which = noisy(centres, 600, 2, rng)
    vocabulary = train_vocabulary(np.split(codes, 10), branches=3, levels=1)
    medians = vocabulary.codes[vocabulary.leaves]
    nearest = hamming_distances(centres, medians)
    assert nearest.min(1).tolist() == [0] * 3  # the majority has every bit right
    np.testing.assert_array_equal(vocabulary.words(codes), nearest.argmin(1)[which])


def test_a_tree_is_deep_and_wide_as_asked_for_and_the_same_again() -> None:
    rng = np.random.default_rng(1)
    photos = [noisy(rng.integers(0, 256, (50, 32), dtype=np.uint8), 200, 20, rng)[0] for _ in range(4)]
    vocabulary = train_vocabulary(photos, branches=3, levels=4)
    depth = np.zeros(len(vocabulary.parents), int)
    for node in range(1, len(depth)):
        depth[node] = depth[vocabulary.parents[node]] + 1
    assert depth.max() == 4
    assert np.bincount(vocabulary.parents[1:]).max() == 3
    assert len(vocabulary.leaves) <= 3**4
    again = train_vocabulary(photos, branches=3, levels=4)
    assert np.array_equal(again.codes, vocabulary.codes)
    with_word = [set(vocabulary.words(each).tolist()) for each in photos]
    for word, leaf in enumerate(vocabulary.leaves):
        assert vocabulary.weights[leaf] == pytest.approx(math.log(4 / sum(word in each for each in with_word)))
    assert not np.delete(vocabulary.weights, vocabulary.leaves).any()


def test_few_and_equal_codes() -> None:
    three = np.repeat(np.array([[1] * 32, [2] * 32, [255] * 32], np.uint8), 5, axis=0)
    vocabulary = train_vocabulary([three, three[:0]], branches=10, levels=5)
    assert sorted(vocabulary.codes[vocabulary.leaves][:, 0].tolist()) == [1, 2, 255]
    assert len(vocabulary.parents) == 4
    for photos in ([], [three[:1]], [three[:0]]):
        with pytest.raises(UsageError, match="a vocabulary needs codes"):
            train_vocabulary(photos)
    for branches, levels in ((1, 3), (21, 3), (10, 0), (10, 11)):
        with pytest.raises(UsageError, match=f"{branches} branches and {levels} levels"):
            train_vocabulary([three], branches, levels)


def test_medians_are_majorities() -> None:
    codes = np.array([[0b1100], [0b1010], [0b0110]], np.uint8)
    assert _median(codes, codes[0]).tolist() == [0b1110]
    assert _median(codes[:2], codes[0]).tolist() == [0b1110]  # an even vote gives 1
    assert _median(codes[:0], codes[2]).tolist() == [0b0110]


def as_orb_slam_reads(text: str) -> tuple[list[int], list[dict[str, object]]]:
    """The loop of its reader: a line for each node, until nothing is left, also for an empty last one."""
    first, *lines = text.split("\n")
    nodes = []
    for line in lines:
        parent, is_leaf, *rest = line.split(" ")
        assert len(rest) == 33
        nodes.append(
            {
                "parent": int(parent),
                "leaf": is_leaf == "1",
                "code": [int(x) for x in rest[:32]],
                "weight": float(rest[32]),
            }
        )
    return [int(x) for x in first.split()], nodes


def test_the_file_is_dbow2s(tmp_path: Path) -> None:
    write_vocabulary(by_hand(), tmp_path / "sub" / "words.txt")
    text = (tmp_path / "sub" / "words.txt").read_text()
    head, nodes = as_orb_slam_reads(text)
    assert head == [2, 2, 0, 0]
    assert [node["parent"] for node in nodes] == [0, 0, 2, 2]
    assert [node["leaf"] for node in nodes] == [True, False, True, True]
    assert [node["weight"] for node in nodes] == [0.5, 0, 1, 2]
    assert nodes[2]["code"] == [127] * 32
    with pytest.raises(UsageError, match="32 bytes, these have 1"):
        write_vocabulary(train_vocabulary([np.array([[1], [2]], np.uint8)]), tmp_path / "short.txt")
    assert not (tmp_path / "short.txt").exists()


def test_a_vocabulary_is_read_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    photos = [rng.integers(0, 256, (90, 32), dtype=np.uint8) for _ in range(3)]
    vocabulary = train_vocabulary(photos, 4, 3)
    path = tmp_path / "words.txt"
    write_vocabulary(vocabulary, path)
    again = read_vocabulary(path)
    assert (again.branches, again.levels) == (4, 3)
    for name in ("parents", "codes", "weights", "leaves"):
        np.testing.assert_array_equal(getattr(again, name), getattr(vocabulary, name))
    # that of ORB is written node by node, with two blanks and an end of the last line
    _, *lines = path.read_text().split("\n")
    path.write_text("4 3  0 0\n" + "\n".join(lines) + "\n")
    np.testing.assert_array_equal(read_vocabulary(path).words(photos[0]), vocabulary.words(photos[0]))


CODE = "0 " * 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no vocabulary"),
        ("", "no vocabulary"),
        (f"2 2 0 0\n0 1 {CODE}", "no vocabulary"),
        ("2 2 0 0", "damaged"),
        (f"2 2 1 0\n0 1 {CODE}1", r"\[1, 0\]"),
        (f"2 2 0 0\n0 0 {CODE}1", "damaged"),
        (f"2 2 0 0\n1 1 {CODE}1", "damaged"),
        (f"2 2 0 0\n0 1 {CODE.replace('0', '300', 1)}1", "damaged"),
        ("2 2 0 0" + 3 * f"\n0 1 {CODE}1", "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "words.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_vocabulary(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    views = {f"{place}{k}.png": texture(200, 300, place)[:, 30 * k :][:, :200] for place in (1, 2, 3) for k in (0, 1)}
    (tmp_path / "photos").mkdir()
    for name, picture in views.items():
        cv2.imwrite(str(tmp_path / "photos" / name), picture)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "words.txt"
    words = [
        "vocabulary",
        str(tmp_path / "photos"),
        str(out),
        "--descriptor",
        "bingan256-lite",
        "--max-keypoints",
        "150",
    ]
    assert cli.main([*words, "--branches", "6", "--levels", "3", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    vocabulary = read_vocabulary(out)
    assert (counts["photos"], counts["words"], counts["nodes"]) == (6, len(vocabulary.leaves), len(vocabulary.parents))
    assert 500 < counts["codes"] <= 900
    assert counts["skipped"][0]["name"] == "broken.jpg"
    assert 2 * counts["words"] <= counts["codes"]
    assert "hardly two of each" not in caplog.text
    assert (vocabulary.branches, vocabulary.levels) == (6, 3)
    assert cli.main([*words, "--branches", "8", "--levels", "5"]) == 0
    assert f"{counts['codes']} codes make " in caplog.text
    assert "words, hardly two of each" in caplog.text
    capsys.readouterr()
    assert cli.main([*words[:2], str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert cli.main([*words, "--levels", "11"]) == 2
    assert cli.main([*words, "--max-keypoints", "0"]) == 2


def test_photos_without_codes(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    cv2.imwrite(str(tmp_path / "grey" / "a.png"), np.full((80, 80), 90, np.uint8))
    with pytest.raises(JobError, match="give no codes"):
        make_vocabulary(tmp_path / "grey", tmp_path / "words.txt")
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no photos"):
        make_vocabulary(tmp_path / "none", tmp_path / "words.txt")
