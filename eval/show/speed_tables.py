"""The tables of ``python -m eval speed``, ``cluster``, ``fuzz`` and ``reads``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eval.show.markdown import RESULTS, markdown, provenance_line, read

Format = Callable[[Any], str]


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


SPEED = "speed"
FLOAT32 = "speed-float32"
"""The same run on a processor that does not compute in bfloat16."""


def _of(name: str, part: str, header: list[str], keys: list[str]) -> str:
    record = read(RESULTS / f"{name}.json")
    rows = [[_number(row.get(key)) for key in keys] for row in record[part]]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def networks(name: str = SPEED) -> str:
    """Patches per second of networks."""
    header = ["network", "form", "threads", "patches / s", "floor", "x published", "flipped bits", "FPR@95 %"]
    keys = ["network", "form", "threads", "patches_per_second", "floor_patches_per_second", "times_published"]
    return _of(name, "networks", header, [*keys, "flipped_bits", "fpr95"])


def optimisations(name: str = SPEED) -> str:
    """What each change of the form brought."""
    return _of(
        name,
        "optimisations",
        ["network", "change", "predicted x", "measured x"],
        ["network", "change", "predicted", "measured"],
    )


def cutting(name: str = SPEED) -> str:
    """Keypoints per second of cutting patches."""
    header = ["", "threads", "keypoints / s", "floor", "x Kornia"]
    return _of(
        name, "cutting", header, ["cutter", "threads", "keypoints_per_second", "floor_keypoints_per_second", "times"]
    )


def matching(name: str = SPEED) -> str:
    """Seconds of matching one pair of images."""
    header = ["matcher", "codes per side", "threads", "seconds", "pairs of codes / s", "floor, seconds", "x ours"]
    keys = ["matcher", "codes", "threads", "seconds", "pairs_per_second", "floor_seconds", "times_slower"]
    return _of(name, "matching", header, keys)


def pipeline(name: str = SPEED) -> str:
    """Seconds of a reconstruction, stage by stage."""
    return _of(name, "pipeline", ["pipeline", "stage", "seconds"], ["pipeline", "stage", "seconds"])


def memory(name: str = SPEED) -> str:
    """Peak memory of jobs."""
    return _of(name, "memory", ["job", "peak MB", "above start MB"], ["job", "peak_mb", "above_start_mb"])


def cluster() -> str:
    """Work by several processes: cost, and whether the files are the same."""
    record = read(RESULTS / "cluster.json")
    header = [
        "workers",
        "start, s",
        "describe, s",
        "match, s",
        "an empty unit, ms",
        "kB to start",
        "kB per unit",
        "files",
    ]
    rows = []
    for r in record["results"]:
        name = str(r["workers"]) if r["workers"] else "none, in process"
        costs = [_number(r[key]) for key in ("start_s", "describe_s", "match_s", "empty_unit_ms")]
        moved = (
            [_number(r["start_bytes"] / 1000), _number(r["bytes"] / r["units"] / 1000)] if r["workers"] else ["", ""]
        )
        rows.append([name, *costs, *moved, "same bytes" if r["same_bytes"] else "OTHER BYTES"])
    fault = record["fault"]
    killed = ["", _number(fault["describe"]), _number(fault["match"]), "", "", ""]
    files = "same bytes" if fault["same_bytes"] else "OTHER BYTES"
    rows.append([f"{fault['workers']}, one killed", *killed, files])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def fuzz() -> str:
    """How readers took mutated files."""
    record = read(RESULTS / "fuzz.json")
    keys = ["kind", "files", "read", "refused", "faults"]
    rows = [[_number(row[key]) for key in keys] for row in record["results"]]
    return f"{markdown(keys, rows)}\n\n{provenance_line(record)}"


def reads() -> str:
    """What the reader of pictures takes."""
    record = read(RESULTS / "reads.json")
    rows = [list(row.values()) for row in record["results"]]
    return f"{markdown(list(record['results'][0]), rows)}\n\n{provenance_line(record)}"


TABLES = {
    "reads": reads,
    "fuzz": fuzz,
    "cluster": cluster,
    "speed-networks": networks,
    "speed-optimisations": optimisations,
    "speed-cutting": cutting,
    "speed-matching": matching,
    "speed-pipeline": pipeline,
    "speed-memory": memory,
    f"{FLOAT32}-optimisations": lambda: optimisations(FLOAT32),
    f"{FLOAT32}-pipeline": lambda: pipeline(FLOAT32),
}
