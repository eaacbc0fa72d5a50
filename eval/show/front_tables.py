"""What the front pages show of the results: a verdict, a few telling rows, the worst losses, two plots.

Nothing here names a value: which peers are the best, and where others win, is read from the records. A peer counts at
the support region at which it does best, ``NAME`` or ``NAME@SIDE``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from eval.quality.sfm_summary import OWN
from eval.show.descriptor_tables import AS_RUN
from eval.show.markdown import RESULTS, markdown, read, with_interval
from eval.show.scatter import Point, svg_scatter

Record = dict[str, Any]
REFERENCE, FAST = "rootsift", "orb"
"""Peers that every front table has: what is compared with, and what most people use for speed."""


def record_of(protocol: str, split: str) -> Record:
    """Read the record of a protocol; an empty one where it was not measured."""
    path = RESULTS / f"{protocol}-{split}.json"
    record: Record = read(path) if path.is_file() else {"results": [], "totals": [], "peers": {}}
    return record


def base(name: str) -> str:
    """Give the descriptor behind a row: ``orb`` for ``orb@16``."""
    return name.partition("@")[0]


def is_ours(name: str) -> bool:
    """Say whether a row is one of our networks, or its float descriptor."""
    return name.startswith("bingan")


def rates() -> dict[str, float]:
    """Give keypoints per second by descriptor, ours as the commands run them."""
    path = RESULTS / "speed.json"
    rows = read(path)["results"] if path.is_file() else []
    return {row["descriptor"].removesuffix(AS_RUN): row["keypoints_per_second"] for row in rows}


def front_rows(split: str) -> list[Record]:
    """Give the totals of M95 in scenes that the front shows, each with ``bytes`` and ``binary``.

    Ours; the reference; the best other peer of real values; the best binary one; and the fast one.
    """
    record = record_of("m95", split)
    best: dict[str, Record] = {}
    for total in record["totals"]:
        name = total["descriptor"]
        if total["part"] == "scene" and not name.endswith("/float"):
            about = record["peers"][name]
            row = {**total, "bytes": about["num_bytes"], "binary": about["norm"] == "hamming"}
            if base(name) not in best or row["m95"] > best[base(name)]["m95"]:
                best[base(name)] = row
    first = record.get("constants", {}).get("first")  # what the others are compared with
    ours = sorted((row for name, row in best.items() if is_ours(name)), key=lambda row: row["descriptor"] != first)
    others = [row for name, row in best.items() if not is_ours(name) and name not in (REFERENCE, FAST)]
    chosen = [best[REFERENCE]]
    for binary in (False, True):
        chosen += sorted((row for row in others if row["binary"] is binary), key=lambda row: -row["m95"])[:1]
    return [*ours, *chosen, best[FAST]]


def front_table(split: str, num_rows: int) -> str:
    """Write the first rows of the front, one row per descriptor."""
    of_plane = {t["descriptor"]: t for t in record_of("m95", split)["totals"] if t["part"] == "homography"}
    of_pose = {r["descriptor"]: r for r in record_of("pairs", split)["results"] if r["part"] == "scenes"}
    speed = rates()
    rows = []
    for row in front_rows(split)[:num_rows]:
        name = row["descriptor"]
        cells = [with_interval(row["times_rootsift"], row["times_rootsift_interval"], 2)]
        plane, pose = of_plane.get(name), of_pose.get(name)
        cells.append(with_interval(plane["times_rootsift"], plane["times_rootsift_interval"], 2) if plane else "")
        cells.append(with_interval(pose["auc"]["10"], pose["auc10_interval"], 2) if pose else "")
        rate = speed.get(name, speed.get(base(name)))
        rows.append([name, f"{row['bytes']:,}", *cells, "" if rate is None else f"{rate:,.0f}"])
    header = ["descriptor", "bytes", "correct matches in scenes, x RootSIFT", "in homographies, x RootSIFT"]
    return markdown([*header, "pose AUC@10°", "keypoints / s"], rows)


def verdict(split: str) -> str:
    """Answer the question of the results in one sentence."""
    rows = front_rows(split)
    first = rows[0]
    low, high = first["times_rootsift_interval"]
    if low > 1:
        answer = "Better"
    elif high < 1:
        answer = "No"
    else:
        answer = "As well, within what these data can tell"
    binary = [row for row in rows if row["binary"] and not is_ours(row["descriptor"])]
    rival = max(binary, key=lambda row: row["m95"])
    return (
        f"{answer}. `{first['descriptor']}` finds {first['times_rootsift']:.2f} times the correct matches of RootSIFT "
        f"(95 % interval {low:.2f} to {high:.2f}) in scenes with true cameras that it was not trained or chosen on; "
        f"the best other binary descriptor, `{rival['descriptor']}` with {rival['bytes']} bytes, finds "
        f"{rival['times_rootsift']:.2f} times as many."
    )


@dataclass(frozen=True)
class Loss:
    """A measure in which another descriptor beats ours: by what factor, in words, and the page that shows it.

    The words begin with the measure and a colon.
    """

    factor: float
    words: str
    page: str


def losses(split: str) -> list[Loss]:
    """Give the worst loss of each measure, the largest factor first; none where ours is the best."""
    first = front_rows(split)[0]["descriptor"]
    found = [
        max(measure, key=lambda loss: loss.factor)
        for measure in (
            list(_speed(first)),
            list(_matches(split, first, "scene", "scenes")),
            list(_matches(split, first, "homography", "homographies")),
            *_higher(split, first),
            list(_patch_pairs(split, first)),
            *_reconstruction(split, first),
        )
        if measure
    ]
    return sorted((loss for loss in found if loss.factor > 1), key=lambda loss: -loss.factor)


_SFM = "reconstruction.md"


def _rivals(rows: list[Record]) -> list[Record]:
    return [row for row in rows if not is_ours(row["descriptor"])]


def _speed(first: str) -> Iterator[Loss]:
    of = rates()
    for name, rate in of.items():
        if first in of and not is_ours(name):
            factor = rate / of[first]
            text = f"describes {factor:.1f} times as many keypoints per second ({rate:,.0f} against {of[first]:,.0f})"
            yield Loss(factor, f"Speed: `{name}` {text}, one thread", "speed.md")


def _matches(split: str, first: str, group: str, page: str) -> Iterator[Loss]:
    rows = [row for row in record_of("m95", split)["results"] if row["group"] == group]
    ours = {row["data"]: row["m95"] for row in rows if row["descriptor"] == first}
    for row in _rivals(rows):
        own = ours.get(row["data"], 0)
        factor = row["m95"] / max(1, own)
        text = f"`{row['descriptor']}` finds {row['m95']:,} correct matches, `{first}` {own:,}"
        yield Loss(factor, f"Matches on `{row['data']}`: {text}", f"{page}.md")


def _higher(split: str, first: str) -> Iterator[list[Loss]]:
    """Values between 0 and 1 that should be high; one list per measure."""
    measures = (
        ("hpatches", "sequences", "auc", "3", "Homographies (AUC@3)", "homographies.md"),
        ("hpatches", "sequences", "mma", "3", "Matching accuracy on homographies (MMA@3)", "homographies.md"),
        ("pairs", "scenes", "auc", "10", "Two-view pose (AUC@10)", "pose.md"),
    )
    for protocol, part, key, limit, title, page in measures:
        rows = [row for row in record_of(protocol, split)["results"] if row["part"] == part]
        own = next((row[key][limit] for row in rows if row["descriptor"] == first), 0)
        yield [
            Loss(
                row[key][limit] / own,
                f"{title}: `{row['descriptor']}` {row[key][limit]:.3f}, `{first}` {own:.3f}",
                page,
            )
            for row in _rivals(rows)
            if own > 0
        ]


def _patch_pairs(split: str, first: str) -> Iterator[Loss]:
    rows = record_of("brown", split)["results"]
    own = next((row["fpr95"] for row in rows if row["descriptor"] == first), None)
    for row in _rivals(rows):
        if own and row["fpr95"]:
            words = f"`{row['descriptor']}` {row['fpr95']:.2f} %, `{first}` {own:.2f} %"
            yield Loss(own / row["fpr95"], f"Patch verification (FPR@95): {words}", "patches.md")


def _reconstruction(split: str, first: str) -> Iterator[list[Loss]]:
    rows = record_of("sfm", split)["results"]
    ours = {row["scene"]: row for row in rows if row["descriptor"] == first}
    registered: list[Loss] = []
    errors: list[Loss] = []
    poses: list[Loss] = []
    own_detector: list[Loss] = []
    for row in _rivals(rows):
        scene, name = row["scene"], row["descriptor"]
        own = ours[scene]
        counts = len(row["registered"]), len(own["registered"])
        words = f"{counts[0]} of {row['images']} with `{name}`, {counts[1]} with `{first}`"
        registered.append(Loss(counts[0] / max(1, counts[1]), f"Photos registered on `{scene}`: {words}", _SFM))
        if not counts[0] == counts[1] == row["images"]:
            continue  # of fewer photos, errors are those of the easier ones
        for key, unit, places, title, into in (
            ("mean_reprojection_error_px", "px", 3, "Reprojection error", errors),
            ("position_percent", "%", 3, "Camera positions", poses),
            ("rotation_deg", "degrees", 3, "Camera rotations", poses),
        ):
            if row[key] and own[key]:
                words = f"{row[key]:.{places}f} {unit} with `{name}`, {own[key]:.{places}f} {unit} with `{first}`"
                into.append(Loss(own[key] / row[key], f"{title} on `{scene}`: {words}", _SFM))
    totals = {name: sum(r["observations"] for r in rows if r["descriptor"] == name) for name in (first, OWN)}
    if totals[first] and totals[OWN]:
        words = f"{totals[OWN]:,} with `{OWN}`, {totals[first]:,} with `{first}` and fewer keypoints"
        own_detector = [Loss(totals[OWN] / totals[first], f"Observations of all scenes: {words}", _SFM)]
    yield from (registered, errors, poses, own_detector)


def losses_table(split: str) -> str:
    """Write all losses."""
    rows = [
        [loss.words, f"{loss.factor:.2f}", f"[{loss.page.removesuffix('.md')}]({loss.page})"] for loss in losses(split)
    ]
    return markdown(["where", "factor", "page"], rows)


def worst(split: str, count: int = 3) -> str:
    """Write the worst losses as a list, for the README."""
    told = [(*loss.words.split(": ", 1), loss.page) for loss in losses(split)[:count]]
    return "\n".join(f"- [{measure}](docs/results/{page}): {words}." for measure, words, page in told)


def caption() -> str:
    """Say what the picture of matches shows."""
    record = read(RESULTS / "front.json")
    counts = []
    for row in record["results"]:
        wrong = row["matches"] - row["correct"]
        counts.append(f"{row['correct']:,} correct and {wrong:,} wrong matches by `{row['descriptor']}`")
    return (
        f"Two views of a rendered room, 50 degrees apart, and the same {record['keypoints']:,} keypoints in each: "
        f"{', '.join(counts)}. Green is correct, red is wrong; each accepts matches at its ratio for 95 % precision. "
        f"The picture is made by `{record['command']}`."
    )


def looks() -> str:
    """Say how often the held-out data were looked at, and why."""
    told = read(RESULTS / "heldout-looks.json")
    lines = [f"{number}. {look['date']}: {look['why']}." for number, look in enumerate(told, 1)]
    return "\n".join(["The held-out data were measured with shipped weights only, each time for a reason:", "", *lines])


def plot(split: str, over: str) -> str:
    """Draw M95 of all descriptors over bytes or over keypoints per second, as SVG."""
    record, speed = record_of("m95", split), rates()
    shown: dict[str, Record] = {}
    for total in record["totals"]:
        name = base(total["descriptor"])
        if over == "speed" and name.endswith("/float"):
            continue  # nobody runs these for speed
        if total["part"] == "scene" and (name not in shown or total["m95"] > shown[name]["m95"]):
            shown[name] = total
    points = []
    for name, total in shown.items():
        x = record["peers"][total["descriptor"]]["num_bytes"] if over == "bytes" else speed.get(name)
        if x is not None:
            low, high = total["times_rootsift_interval"]
            points.append(Point(total["descriptor"], x, total["times_rootsift"], low, high, is_ours(name)))
    label = "bytes per keypoint" if over == "bytes" else "keypoints described per second, one thread"
    ticks = [2.0**power for power in range(3, 14)] if over == "bytes" else _RATES
    return svg_scatter(points, label, "correct matches, x RootSIFT", ticks, guide=1.0)


_RATES = [digit * 10.0**power for power in range(2, 8) for digit in (1, 3)]


PLOTS = {"docs/images/bytes.svg": "bytes", "docs/images/speed.svg": "speed"}
"""Files that the front pages show, and what each is drawn over."""


TABLES: dict[str, Callable[[], str]] = {
    "caption": caption,
    "looks": looks,
    "verdict": partial(verdict, "heldout"),
    "five": partial(front_table, "heldout", 5),
    "six": partial(front_table, "heldout", 6),
    "worst": partial(worst, "heldout"),
    **{f"losses-{split}": partial(losses_table, split) for split in ("validate", "heldout")},
}
