"""The tables of ``python -m eval speed``, ``cluster``, ``fuzz`` and ``reads``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eval.markdown import RESULTS, markdown, provenance_line, read

Format = Callable[[Any], str]


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _of(part: str, header: list[str], keys: list[str]) -> str:
    record = read(RESULTS / "speed.json")
    rows = [[_number(row.get(key)) for key in keys] for row in record[part]]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def networks() -> str:
    """Patches a second of networks."""
    header = ["network", "form", "threads", "patches / s", "floor", "x published", "flipped bits", "FPR@95 %"]
    keys = ["network", "form", "threads", "patches_per_second", "floor_patches_per_second", "times_published"]
    return _of("networks", header, [*keys, "flipped_bits", "fpr95"])


def optimisations() -> str:
    """What each change of the form brought."""
    return _of(
        "optimisations",
        ["network", "change", "predicted x", "measured x"],
        ["network", "change", "predicted", "measured"],
    )


def cutting() -> str:
    """Keypoints a second of cutting patches."""
    header = ["", "threads", "keypoints / s", "floor", "x Kornia"]
    return _of("cutting", header, ["cutter", "threads", "keypoints_per_second", "floor_keypoints_per_second", "times"])


def matching() -> str:
    """Seconds of matching one pair of images."""
    header = ["matcher", "codes a side", "threads", "seconds", "pairs of codes / s", "floor, seconds", "x ours"]
    keys = ["matcher", "codes", "threads", "seconds", "pairs_per_second", "floor_seconds", "times_slower"]
    return _of("matching", header, keys)


def pipeline() -> str:
    """Seconds of a reconstruction, stage by stage."""
    return _of("pipeline", ["pipeline", "stage", "seconds"], ["pipeline", "stage", "seconds"])


def memory() -> str:
    """Peak memory of jobs."""
    return _of("memory", ["job", "peak MB", "above start MB"], ["job", "peak_mb", "above_start_mb"])


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
        "kB a unit",
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
}
