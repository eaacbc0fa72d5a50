"""Which vocabulary knows a place again: of our codes, or of ORB's, as ORB-SLAM would use them?

    python -m eval loops DATA/validate DATA/train_scenes DATA/train_clear/single/coco_by [--levels 4,5] [--out FILE]

Protocol. There is no driving sequence among the data, so places stand in for it: every photo of the scenes (first
folder) asks the photos of all scenes and the distractors (second folder) but itself, by the L1 score of its bag of
words. A photo is right if COLMAP verifies at least 30 matches of its own SIFT with the one that asks. Vocabularies are
trained on a third folder, which shows no place of the others: k = 10, the same photos, 1,000 keypoints each, by the
same function, of our codes at DoG keypoints and at those of ORB, and of ORB's own codes at these.

``recall@1`` is the share of the photos whose best answer is right. A threshold on the score of the best answer accepts
some of them: ``recall at no wrong loop`` is the largest share that is right while none that is accepted is wrong, at
``one`` while at most one is, and ``precision on average`` is the area under precision over recall. The record names all
wrong answers, those with the largest scores first. Photos that overlap with none are not asked. Intervals draw photos.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from eval.harness.bootstrap import bootstrap_interval
from eval.harness.cache import cached
from eval.harness.columns import Column, text_of
from eval.harness.command import Names, Out, Scenes, SomeNames, command_line
from eval.harness.data import find_scenes, read_scene
from eval.harness.options import RESULTS, WorkOptions, load_models
from eval.harness.records import check_clean, write_json
from eval.quality.overlap import overlaps
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.images.read import read_image, shrink
from kornia_bingan.network.weights import find_weights
from kornia_bingan.search.index import MAX_KEYPOINTS, MAX_SIZE, photo_codes
from kornia_bingan.search.vocabulary import Bag, score, train_vocabulary
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.provenance import provenance

BRANCHES, SEED = 10, 0
Codes = NDArray[np.uint8]

COLUMNS = (
    Column("codes", "codes"),
    Column("keypoints", "keypoints"),
    Column("levels", "levels", "d"),
    Column("words", "words", ",d"),
    Column("recall@1", "recall", ".3f", "most", "recall_interval"),
    Column("recall at no wrong loop", "sure", ".3f", "most", "sure_interval"),
    Column("at one", "one", ".3f", "most", "one_interval"),
    Column("precision on average", "average", ".3f", "most", "average_interval"),
)

WRONG_COLUMNS = (
    *COLUMNS[:3],
    Column("photo", "photo"),
    Column("wrong answer", "answer"),
    Column("its score", "score", ".3f"),
    Column("of the best right one", "of_the_right", ".3f"),
    Column("answers with larger scores", lambda row: row["rank"] - 1, "d"),
)


def wrong_answers(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a row for each wrong answer of a record."""
    return [{**row, **wrong} for row in record["results"] for wrong in row["wrong"]]


def best_answers(
    bags: list[Bag], asking: list[int], right: list[set[int]]
) -> tuple[NDArray[Any], NDArray[np.bool_], list[int]]:
    """Give the score of the best answer to each that asks, whether it is right, and its row; of equals the first."""
    scores, hits, answers = [], [], []
    for row, truth in zip(asking, right, strict=True):
        values = np.array([-1.0 if other == row else score(bags[row], bag) for other, bag in enumerate(bags)])
        best = int(values.argmax())
        scores.append(values[best])
        hits.append(best in truth)
        answers.append(best)
    return np.array(scores), np.array(hits), answers


def figures(scores: NDArray[Any], hits: NDArray[np.bool_], counts: NDArray[Any]) -> dict[str, float]:
    """Turn the best answers, each counted so many times, into the four figures; answers of one score come together."""
    total = counts.sum()
    found = accepted = average = sure = one = 0.0
    for value in np.unique(scores)[::-1]:
        at = scores == value
        new = float(counts[at & hits].sum())
        found, accepted = found + new, accepted + float(counts[at].sum())
        average += new / total * found / max(accepted, 1)
        if found == accepted:
            sure = found / total
        if accepted - found <= 1:
            one = found / total
    return {"recall": float(counts[hits].sum() / total), "sure": sure, "one": one, "average": average}


def orb_codes(path: Path) -> Codes:
    """Describe a photo by OpenCV's ORB, at most 1,024 pixels and 1,000 keypoints."""
    _, codes = cv2.ORB.create(MAX_KEYPOINTS).detectAndCompute(shrink(read_image(path), MAX_SIZE), None)
    return np.empty((0, 32), np.uint8) if codes is None else np.asarray(codes, np.uint8)


@command_line("loops")
def main(
    data: Scenes,
    distractors: tyro.conf.Positional[Path],
    training: tyro.conf.Positional[Path],
    work: WorkOptions,
    ours: SomeNames = ("bingan256",),
    levels: Names = ("4", "5"),
    only: Names = (),
    out: Out = RESULTS / "loops.json",
) -> int:
    """Ask for places by bags of words.

    Args:
        distractors: folder of other photos.
        training: folder of photos for the vocabularies.
        ours: shipped names or weights files, separated by commas.
        levels: depths of the trees, separated by commas.
    """
    check_clean(out)
    cache = work.begin()
    folders = find_scenes(data, only)
    if not folders:
        raise UsageError(f"{data} has no scene")
    truth_of: dict[Path, set[Path]] = {}
    for folder in folders:
        scene = read_scene(folder)
        root = folder / "images"
        found = overlaps(dict(zip(scene.names, scene.images, strict=True)), cache)
        truth_of |= {root / name: {root / other for other in others} for name, others in found.items()}
    paths = [*(path for folder in folders for path in _photos(folder / "images")), *_photos(distractors)]
    learnt = _photos(training)
    row_of = {path: row for row, path in enumerate(paths)}
    asking = [row for path, row in row_of.items() if truth_of.get(path)]
    right = [{row_of[other] for other in truth_of[paths[row]]} for row in asking]
    results = []
    for name, detector, describe, about in _describers(ours):
        key = {"step": "loops", "codes": about, "detector": detector}
        codes = _all_codes(cache, key, describe, [*paths, *learnt])
        for depth in map(int, levels):
            words = train_vocabulary(codes[len(paths) :], BRANCHES, depth, SEED)
            row: dict[str, Any] = {"codes": name, "keypoints": detector, "levels": depth, "words": len(words.leaves)}
            row |= _measured([words.bag(each) for each in codes[: len(paths)]], asking, right, paths)
            results.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    record = {
        "protocol": "loops",
        "command": f"python -m eval loops {' '.join(_named(path, data) for path in (data, distractors, training))} "
        f"--ours {','.join(ours)} --levels {','.join(levels)}",
        "scenes": [folder.name for folder in folders],
        "asked": len(asking),
        "photos": len(paths),
        "trained_on": len(learnt),
        "results": results,
        "provenance": provenance(find_weights(ours[0]), SEED),
    }
    write_json(out, record)
    print(text_of(COLUMNS, results))
    return 0


def _measured(bags: list[Bag], asking: list[int], right: list[set[int]], paths: list[Path]) -> dict[str, Any]:
    scores, hits, answers = best_answers(bags, asking, right)
    row: dict[str, Any] = {name: round(value, 4) for name, value in figures(scores, hits, np.ones(len(hits))).items()}
    for name in list(row):
        interval = bootstrap_interval(partial(_one, scores, hits, name), [len(hits)], 500, SEED)
        row[f"{name}_interval"] = [round(value, 4) for value in interval]
    row["wrong"] = [
        {
            "photo": _place(paths[asking[k]]),
            "answer": _place(paths[answers[k]]),
            "score": round(float(scores[k]), 4),
            "of_the_right": round(max(score(bags[asking[k]], bags[other]) for other in right[k]), 4),
            "rank": 1 + int((scores > scores[k]).sum()),
        }
        for k in np.argsort(-scores, kind="stable").tolist()
        if not hits[k]
    ]
    return row


def _place(path: Path) -> str:
    """Name a photo as data and records do: the folder of its scene, its own name."""
    scene = path.parent.parent.name if path.parent.name == "images" else path.parent.name
    return f"{scene}/{path.name}"


def _one(scores: NDArray[Any], hits: NDArray[np.bool_], name: str, counts: NDArray[Any]) -> float:
    return figures(scores, hits, counts)[name]


def _describers(ours: tuple[str, ...]) -> list[tuple[str, str, Any, str]]:
    found: list[tuple[str, str, Any, str]] = []
    for given, (name, model) in zip(ours, load_models(ours).items(), strict=True):
        for detector in ("dog", "orb"):
            describe = partial(photo_codes, model, detector=detector)
            found.append((name, detector, describe, sha256_of(find_weights(given))))
    return [*found, ("ORB", "orb", orb_codes, cv2.__version__)]


def _named(folder: Path, data: Path) -> str:
    return f"DATA/{os.path.relpath(folder.resolve(), data.resolve().parent)}"


def _photos(folder: Path) -> list[Path]:
    names = list_images(folder)[0]
    if not names:
        raise UsageError(f"{folder} has no photos")
    return [folder / name for name in names]


def _all_codes(cache: Path | None, key: dict[str, Any], describe: Any, paths: list[Path]) -> list[Codes]:
    def describe_all() -> dict[str, NDArray[Any]]:
        rows = [describe(path) for path in paths]
        return {"codes": np.concatenate(rows), "counts": np.array([len(each) for each in rows])}

    stored = cached(cache, {**key, "photos": [sha256_of(path) for path in paths]}, describe_all)
    return np.split(stored["codes"], np.cumsum(stored["counts"])[:-1])
