"""Tables of what descriptors reach, from the JSON files in ``eval/results``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from eval.cost import speed as described
from eval.harness.columns import Column
from eval.quality import brown, calibrate, hpatches, pairs, patch_tasks, peer_support, revisited, robustness, support
from eval.quality import m95 as matched
from eval.quality import sfm as reconstructed
from eval.quality import sfm_check as sfm_checked
from eval.quality import sfm_summary as reconstructions
from eval.show.markdown import (
    ROOT,
    best_first,
    is_measured,
    markdown,
    markdown_of,
    provenance_line,
    read,
    read_record,
    table,
    with_interval,
)
from eval.show.speed_tables import FLOAT32, SPEED
from eval.training import context as in_context


def models() -> str:
    """Shipped weights."""
    manifest = read(ROOT / "weights" / "manifest.json")
    rows = [
        [f"[`{name}`]({name}.md)", str(row["bits"]), f"{row['multiply_adds'] / 1e6:.1f} M", row["summary"]]
        for name, row in manifest.items()
    ]
    return markdown(["name", "bits", "multiply-adds", "what it is"], rows)


SUMMARISED = ("rootsift", "sift", "hardtfeat", "hashsift256", "boostdesc", "teblid256", "orb")
"""Peers in the summary, beside ours."""

AS_RUN = ", as commands run it"


def summary(split: str) -> str:
    """The most telling value of each protocol, one row per descriptor, with the commands of all."""
    files = {name: f"{name}-{split}" for name in ("m95", "hpatches", "pairs", "brown")} | {"speed": "speed"}
    records = {name: read_record(file) for name, file in files.items() if is_measured(file)}
    of: dict[tuple[str, str], str] = {}
    for t in records["m95"]["totals"]:
        if column := {"scene": "scenes", "homography": "homographies"}.get(t["part"]):
            cell = with_interval(t["times_rootsift"], t["times_rootsift_interval"], 2)
            of[f"M95 {column}, x RootSIFT", t["descriptor"]] = cell
            if t.get("ours_times") is not None:
                cell = with_interval(t["ours_times"], t["ours_times_interval"], 2)
                of[f"{records['m95']['constants']['first']} is x this, {column}", t["descriptor"]] = cell
    for r in records["hpatches"]["results"]:
        if r["part"] == "sequences":
            of["homography AUC@3", r["descriptor"]] = with_interval(r["auc"]["3"], r["auc3_interval"], 3)
    for r in records["pairs"]["results"]:
        if r["part"] == "scenes":
            of["pose AUC@10", r["descriptor"]] = with_interval(r["auc"]["10"], r["auc10_interval"], 3)
    for r in records.get("brown", {"results": []})["results"]:
        of[f"FPR@95 % {r['set']}", r["descriptor"]] = with_interval(r["fpr95"], r["interval"], 1)
    for r in records.get("speed", {"results": []})["results"]:
        # ours as the commands run them, after the networks as they were trained
        of["keypoints / s", r["descriptor"].removesuffix(AS_RUN)] = f"{r['keypoints_per_second']:,.0f}"
    columns = list(dict.fromkeys(column for column, _ in of))
    sizes = {name: about["num_bytes"] for name, about in records["m95"]["peers"].items()}
    ours = [name for name in sizes if name.startswith("bingan")]
    rows = [
        [name, f"{sizes[name]:,}", *(of.get((column, name), "") for column in columns)]
        for name in (*ours, *(name for base in SUMMARISED for name in sizes if name.partition("@")[0] == base))
    ]
    commands = "\n".join(f"- {provenance_line(record)}" for record in records.values())
    return f"{markdown(['descriptor', 'bytes', *columns], rows)}\n\n{commands}"


def speed(name: str) -> str:
    """Keypoints described per second, the fastest first."""
    return table(name, described.descriptor_columns(read_record(name)["keypoints"]), best_first(lambda r: r["seconds"]))


def pose(name: str) -> str:
    """Two-view pose, scenes before single pairs, best first."""
    return table(name, pairs.COLUMNS, best_first(lambda r: (r["part"] != "scenes", -r["auc"]["10"])))


def own_detector(name: str) -> str:
    """Ours beside SIFT with its own detector, which has more keypoints."""
    record = read_record(name)
    shown = markdown_of(reconstructions.OWN_COLUMNS, reconstructions.beside_own_detector(record))
    return f"{shown}\n\n{reconstructions.own_detector_words(record)} {provenance_line(record)}"


def regions_of_peers(name: str) -> str:
    """M95 of peers against the side of their support region, one row per peer, the best in bold."""
    if not is_measured(name):
        return "Not measured yet: `python -m eval peer_support DATA/validate`."
    return table(name, peer_support.columns(read_record(name)), peer_support.rows_of)


def m95(name: str, part: str) -> str:
    """Correct matches at 95 % precision, one row per descriptor, best first."""
    record = read_record(name)
    absent = f" Absent, no weights at hand: {', '.join(record['absent'])}." if record["absent"] else ""
    return table(name, matched.columns(record, part), lambda _: matched.totals_of(record, part)) + absent


def verification(name: str) -> str:
    """FPR@95 on patch sets, one column per set."""
    columns, rows = brown.by_set(read_record(name)["results"])
    return table(name, columns, lambda _: rows)


def changed_copies(name: str) -> str:
    """Matching score against the strength of a change, one table a change."""
    record = read_record(name)
    parts = []
    for change in dict.fromkeys(r["change"] for r in record["results"]):
        chosen = [r for r in record["results"] if r["change"] == change]
        parts.append(markdown_of(robustness.columns(chosen), chosen))
    return "\n\n".join([*parts, provenance_line(record)])


def context(key: str, split: str, *names: str) -> str:
    """What neighbours add to distance and ratio, on scenes left out (results) or of another split (tested).

    RootSIFT stands beside it by its ratio test, at the support region that suits it best, on the same pairs, and in its
    own rows in context, where that was measured.
    """
    names += tuple(name for name in ("rootsift",) if is_measured(f"context-{name}"))
    records = [read_record(f"context-{name}") for name in names]
    rows = [{"codes": n, **r} for n, record in zip(names, records, strict=True) for r in record.get(key, [])]
    if not rows:
        return "Not measured yet: `python -m eval context DATA/validate --test DATA/heldout`."
    rootsift: dict[str, int] = {}
    for row in read_record(f"m95-{split}")["results"]:
        if row["descriptor"].partition("@")[0] == "rootsift":
            rootsift[row["data"]] = max(row["m95"], rootsift.get(row["data"], 0))
    beside = [
        Column("RootSIFT, ratio", lambda r: rootsift[r["scene"]], ","),
        Column("x RootSIFT", lambda r: r["m95_context"] / rootsift[r["scene"]], ".2f"),
    ]
    shown = markdown_of([Column("codes", "codes"), *in_context.COLUMNS, *beside], rows)
    return "\n\n".join([shown, *map(provenance_line, records)])


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "brown": partial(verification, "brown"),
    "revisited": partial(table, "revisited", revisited.COLUMNS, best_first(lambda r: (r["set"], -r["map"]))),
    "peer-support": partial(regions_of_peers, "peer-support"),
    **{name: partial(speed, name) for name in (SPEED, FLOAT32)},
    "support": partial(table, "support", support.columns),
    "affine": partial(m95, "affine-validate", "scene"),
    "calibration": partial(table, "calibration-bingan256", calibrate.COLUMNS),
    "context": partial(context, "results", "validate", "bingan256", "bingan256-lite"),
    "context-tested": partial(context, "tested", "heldout", "bingan256", "bingan256-lite"),
    "robustness": partial(changed_copies, "robustness-validate"),
}
for _split in ("validate", "heldout"):
    TABLES |= {
        f"summary-{_split}": partial(summary, _split),
        f"m95-{_split}": partial(m95, f"m95-{_split}", "scene"),
        f"m95-homographies-{_split}": partial(m95, f"m95-{_split}", "homography"),
        f"hpatches-{_split}": partial(
            table, f"hpatches-{_split}", hpatches.COLUMNS, best_first(lambda r: -r["auc"]["3"], "sequences")
        ),
        f"brown-{_split}": partial(verification, f"brown-{_split}"),
        f"patch-tasks-{_split}": partial(
            table, f"patch-tasks-{_split}", patch_tasks.columns, best_first(lambda r: -r["matching"])
        ),
        f"pairs-{_split}": partial(pose, f"pairs-{_split}"),
        f"sfm-{_split}": partial(table, f"sfm-{_split}", reconstructed.COLUMNS),
        f"sfm-all-{_split}": partial(table, f"sfm-{_split}", reconstructions.COLUMNS, reconstructions.by_descriptor),
        f"sfm-own-{_split}": partial(own_detector, f"sfm-{_split}"),
        f"sfm-check-{_split}": partial(table, f"sfm-check-{_split}", sfm_checked.COLUMNS, lambda r: r["summary"]),
    }
