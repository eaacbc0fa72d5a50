"""The record of ``python -m eval sfm`` in short: one row per descriptor, and ours beside SIFT with its own detector."""

from __future__ import annotations

from typing import Any

from eval.harness.columns import Column, Row

OWN = "sift, own detector"


def _whole(header: str, key: str) -> Column:
    """Give the mean error over the scenes in which every photo is registered, and their number."""
    return Column(header, key, lambda r: f"{r[key]:.3f} ({r['whole']})", best="least")


COLUMNS = (
    Column("descriptor", "descriptor"),
    Column("registered", "registered", lambda r: f"{r['registered']} / {r['images']}", best="most"),
    Column("points", "points", ",", best="most"),
    Column("observations", "observations", ",", best="most"),
    Column("track length", lambda r: r["observations"] / max(1, r["points"]), ".2f", best="most"),
    Column("reprojection error px", "error_px", ".3f", best="least"),
    _whole("rotation error deg (scenes)", "rotation_deg"),
    _whole("position error % (scenes)", "position_percent"),
)
OWN_COLUMNS = (
    Column("scene", "scene"),
    Column("descriptor", "descriptor"),
    Column("keypoints", "keypoints", ","),
    Column("registered", lambda r: f"{len(r['registered'])} / {r['images']}"),
    Column("observations", "observations", ","),
    Column("x ours", lambda r: r["observations"] / r["of_ours"] if r["of_ours"] else None, ".2f"),
    Column("reprojection error px", lambda r: r["mean_reprojection_error_px"] if r["points"] else None, ".3f"),
    Column("of the longest tracks px", "longest_error_px", ".3f"),
    Column("rotation error deg", "rotation_deg", ".3f"),
    Column("position error %", "position_percent", ".3f"),
)


def by_descriptor(record: Row) -> list[dict[str, Any]]:
    """Sum up the scenes of each descriptor; errors of poses are means over the scenes with every photo registered."""
    rows = []
    for descriptor in dict.fromkeys(r["descriptor"] for r in record["results"]):
        of = [r for r in record["results"] if r["descriptor"] == descriptor]
        whole = [r for r in of if r["rotation_deg"] is not None and len(r["registered"]) == r["images"]]
        row = {"descriptor": descriptor, "registered": sum(len(r["registered"]) for r in of), "whole": len(whole)}
        row |= {key: sum(r[key] for r in of) for key in ("images", "points", "observations")}
        error = sum(r["mean_reprojection_error_px"] * r["observations"] for r in of)
        row["error_px"] = error / max(1, row["observations"])
        for key in ("rotation_deg", "position_percent"):
            row[key] = sum(r[key] for r in whole) / len(whole) if whole else None
        rows.append(row)
    return rows


def beside_own_detector(record: Row) -> list[dict[str, Any]]:
    """Give ours and SIFT with its own detector, scene by scene."""
    first, of = record["comparison"]["first"], {(r["scene"], r["descriptor"]): r for r in record["results"]}
    rows = []
    for scene, about in record["comparison"]["others"][OWN]["scenes"].items():
        more = {"of_ours": of[scene, first]["observations"]}
        for descriptor, longest in zip((first, OWN), about["longest_error_px"], strict=True):
            rows.append({**of[scene, descriptor], **more, "longest_error_px": longest})
    return rows


def own_detector_words(record: Row) -> str:
    """Compare the observations of all scenes."""
    first = record["comparison"]["first"]
    ours, own = (sum(r["observations"] for r in record["results"] if r["descriptor"] == name) for name in (first, OWN))
    return f"All scenes: {own:,} observations of {OWN}, {own / ours:.2f} x the {ours:,} of {first}."
