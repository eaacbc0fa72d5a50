from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.quality import loops
from kornia_bingan.search.vocabulary import Bag
from tests.helpers.photos import texture
from tests.helpers.scenes import copy_scene


def bag(*words: int) -> Bag:
    return np.array(words), np.full(len(words), 1 / len(words))


def test_the_best_answer_is_never_the_photo_itself() -> None:
    bags = [bag(1, 2), bag(1, 3), bag(1, 2, 4), bag(9, 10)]
    scores, hits, answers = loops.best_answers(bags, [0, 1, 3], [{2}, {2}, {0}])
    assert scores.tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert hits.tolist() == [True, False, True]
    assert answers == [2, 0, 0]  # of equally poor answers the first


def test_figures_by_hand() -> None:
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    found = loops.figures(scores, hits, np.ones(4))
    assert found == pytest.approx({"recall": 3 / 4, "sure": 2 / 4, "one": 3 / 4, "average": (1 + 1 + 3 / 4) / 4})
    # a wrong answer of the same score is accepted with the right one
    tied = loops.figures(np.array([0.9, 0.8, 0.8]), np.array([True, True, False]), np.ones(3))
    assert tied == pytest.approx({"recall": 2 / 3, "sure": 1 / 3, "one": 2 / 3, "average": (1 + 2 / 3) / 3})
    drawn = loops.figures(scores, hits, np.array([0, 1, 3, 0]))
    assert drawn == pytest.approx({"recall": 1 / 4, "sure": 1 / 4, "one": 1 / 4, "average": 1 / 4})
    none = loops.figures(scores, np.zeros(4, bool), np.ones(4))
    assert none == {"recall": 0, "sure": 0, "one": 0, "average": 0}


def test_wrong_answers_are_named() -> None:
    bags = [bag(1, 2), bag(1, 3), bag(1, 3, 4), bag(9, 10)]
    paths = [Path(name) for name in ("a/images/0.jpg", "a/images/1.jpg", "others/2.jpg", "others/3.jpg")]
    row = loops._measured(bags, [0, 1], [{1}, {0}], paths)
    wrong = {"photo": "a/1.jpg", "answer": "others/2.jpg", "score": 0.6667, "of_the_right": 0.5, "rank": 1}
    assert row["wrong"] == [wrong]
    assert (row["recall"], row["sure"], row["one"]) == (0.5, 0, 0.5)
    record = {"results": [{"codes": "none wrong", "wrong": []}, {"codes": "x", "keypoints": "dog", "levels": 4, **row}]}
    (shown,) = loops.wrong_answers(record)
    cells = ["x", "dog", "4", "a/1.jpg", "others/2.jpg", "0.667", "0.500", "0"]
    assert [column.text(shown) for column in loops.WRONG_COLUMNS] == cells


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_scene(tmp_path / "places" / "room", 3, half=True)
    for folder, seeds in (("others", (1, 2)), ("learnt", (3, 4))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            cv2.imwrite(str(tmp_path / folder / f"{seed}.png"), texture(200, 300, seed))
    folders = [str(tmp_path / name) for name in ("places", "others", "learnt")]
    words = ["loops", *folders, "--ours", "bingan256-lite", "--levels", "2", "--no-cache"]
    from eval.__main__ import main

    assert main([*words, "--out", str(tmp_path / "loops.json")]) == 0
    record = json.loads((tmp_path / "loops.json").read_text())
    assert (record["asked"], record["photos"], record["trained_on"]) == (3, 5, 2)
    assert [(row["codes"], row["keypoints"]) for row in record["results"]] == [
        ("bingan256-lite", "dog"),
        ("bingan256-lite", "orb"),
        ("ORB", "orb"),
    ]
    for row in record["results"]:
        assert 10 < row["words"] <= 100
        assert 0 <= row["sure"] <= row["average"] <= row["recall"] <= 1
        assert row["sure"] <= row["one"] <= row["recall"]
    assert record["results"][-1]["recall"] == 1  # whatever weights are shipped
    assert "recall@1" in capsys.readouterr().out
