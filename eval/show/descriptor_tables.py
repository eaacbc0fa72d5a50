"""Tables of what descriptors reach: one function a table, each gets the name of a JSON file in ``eval/results``."""

from __future__ import annotations

from typing import Any

from eval.quality import brown, calibrate, hpatches, pairs
from eval.quality import m95 as matched
from eval.quality import revisited as ratios
from eval.quality import sfm as reconstructed
from eval.quality import sfm_check as sfm_checked
from eval.quality import support as regions
from eval.quality.patch_tasks import columns as patch_task_columns
from eval.show.markdown import RESULTS, ROOT, markdown, markdown_of, provenance_line, read, with_interval


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

OWN = "sift, own detector"

AS_RUN = ", as commands run it"


def summary(split: str) -> str:
    """The most telling value of each protocol, one row per descriptor, with the commands of all."""
    folder = RESULTS
    files = {name: folder / f"{name}-{split}.json" for name in ("m95", "hpatches", "pairs")}
    files |= {"brown": folder / f"brown-{split}.json", "speed": folder / "speed.json"}
    records = {name: read(path) for name, path in files.items() if path.is_file()}
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


def patch_tasks(name: str) -> str:
    """Mean average precision of the three tasks of HPatches, best first."""
    record = read(RESULTS / f"{name}.json")
    rows = sorted(record["results"], key=lambda r: -r["matching"])
    return f"{markdown_of(patch_task_columns(rows), rows)}\n\n{provenance_line(record)}"


def pose(name: str) -> str:
    """Two-view pose, scenes before single pairs, best first."""
    record = read(RESULTS / f"{name}.json")
    rows = sorted(record["results"], key=lambda r: (r["part"] != "scenes", -r["auc"]["10"]))
    return f"{markdown_of(pairs.COLUMNS, rows)}\n\n{provenance_line(record)}"


def sfm_check(name: str) -> str:
    """SIFT through the harness beside plain pycolmap."""
    record = read(RESULTS / f"{name}.json")
    return f"{markdown_of(sfm_checked.COLUMNS, record['summary'])}\n\n{provenance_line(record)}"


def speed(name: str) -> str:
    """Keypoints described per second."""
    record = read(RESULTS / f"{name}.json")
    rows = [
        [r["descriptor"], f"{r['bytes']:,}", f"{1000 * r['seconds']:.1f}", f"{r['keypoints_per_second']:,.0f}"]
        for r in sorted(record["results"], key=lambda r: r["seconds"])
    ]
    header = ["descriptor", "bytes", f"ms for {record['keypoints']:,} keypoints", "keypoints / s"]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def sfm(name: str) -> str:
    """COLMAP reconstructions of scenes."""
    record = read(RESULTS / f"{name}.json")
    return f"{markdown_of(reconstructed.COLUMNS, record['results'])}\n\n{provenance_line(record)}"


def sfm_all(name: str) -> str:
    """COLMAP reconstructions, one row per descriptor: sums over scenes; pose errors where every photo is registered."""
    record = read(RESULTS / f"{name}.json")
    rows = []
    for descriptor in dict.fromkeys(r["descriptor"] for r in record["results"]):
        of = [r for r in record["results"] if r["descriptor"] == descriptor]
        points, observations = (sum(r[key] for r in of) for key in ("points", "observations"))
        error = sum(r["mean_reprojection_error_px"] * r["observations"] for r in of) / max(1, observations)
        registered = f"{sum(len(r['registered']) for r in of)} / {sum(r['images'] for r in of)}"
        cells = [registered, f"{points:,}", f"{observations:,}", f"{observations / max(1, points):.2f}", f"{error:.3f}"]
        whole = [r for r in of if r["rotation_deg"] is not None and len(r["registered"]) == r["images"]]
        for key in ("rotation_deg", "position_percent"):
            cells.append(f"{sum(r[key] for r in whole) / len(whole):.3f} ({len(whole)})" if whole else "")
        rows.append([descriptor, *cells])
    header = ["descriptor", "registered", "points", "observations", "track length", "reprojection error px"]
    header += ["rotation error deg (scenes)", "position error % (scenes)"]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def own_detector(name: str) -> str:
    """Ours beside SIFT with its own detector, which has more keypoints."""
    record = read(RESULTS / f"{name}.json")
    first, of = record["comparison"]["first"], {(r["scene"], r["descriptor"]): r for r in record["results"]}
    header = ["scene", "descriptor", "keypoints", "registered", "observations", "x ours", "reprojection error px"]
    header += ["of the longest tracks px", "rotation error deg", "position error %"]
    rows = []
    for scene in dict.fromkeys(r["scene"] for r in record["results"]):
        longest = record["comparison"]["others"][OWN]["scenes"][scene]["longest_error_px"]
        ours = of[scene, first]
        for descriptor, of_longest in zip((first, OWN), longest, strict=True):
            r = of[scene, descriptor]
            share = f"{r['observations'] / ours['observations']:.2f}" if ours["observations"] else ""
            row = [scene, descriptor, f"{r['keypoints']:,}", f"{len(r['registered'])} / {r['images']}"]
            row += [f"{r['observations']:,}", share, f"{r['mean_reprojection_error_px']:.3f}" if r["points"] else ""]
            values = (of_longest, r["rotation_deg"], r["position_percent"])
            rows.append([*row, *("" if value is None else f"{value:.3f}" for value in values)])
    totals = [sum(r["observations"] for (_, d), r in of.items() if d == descriptor) for descriptor in (first, OWN)]
    text = (
        f"All scenes: {totals[1]:,} observations of {OWN}, {totals[1] / totals[0]:.2f} x the {totals[0]:,} of {first}."
    )
    return f"{markdown(header, rows)}\n\n{text} {provenance_line(record)}"


def peer_support(name: str) -> str:
    """M95 of peers against the side of their support region, one row per peer, the best in bold."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return "Not measured yet: `python -m eval peer_support DATA/validate`."
    record = read(path)
    of: dict[tuple[str, Any], int] = {(r["descriptor"], r["side_sigma"]): r["sum"] for r in record["results"]}
    usual_of = {r["descriptor"]: r for r in record["results"] if r["usual"]}
    rows = []
    for peer, chosen in record["chosen"].items():
        usual = usual_of[peer]
        side = "fixed" if usual["side_sigma"] is None else f"{usual['side_sigma']:g}"
        cells = []
        for sigma in record["sides"]:
            value = of.get((peer, sigma))
            text = "" if value is None else f"{value:,}"
            cells.append(f"**{text}**" if text and sigma == chosen["best"] else text)
        best = "as used" if chosen["best"] == chosen["usual"] else f"{chosen['best']:g}"
        end = ", the last tried" if chosen["at_end"] else ""
        gain = f"{chosen['best_sum'] / max(1, chosen['usual_sum']):.3f}"
        rows.append([peer, side, f"{usual['sum']:,}", *cells, f"{best}{end}", gain])
    header = [
        "descriptor",
        "as people use it, sigma",
        "M95",
        *(f"{sigma:g}" for sigma in record["sides"]),
        "best",
        "gain",
    ]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def m95(name: str, part: str) -> str:
    """Correct matches at 95 % precision, one row per descriptor, best first."""
    record = read(RESULTS / f"{name}.json")
    table = markdown_of(matched.columns(record, part), matched.totals_of(record, part))
    absent = f" Absent, no weights at hand: {', '.join(record['absent'])}." if record["absent"] else ""
    return f"{table}\n\n{provenance_line(record)}{absent}"


def homographies(name: str) -> str:
    """Matching on image sequences, best first."""
    record = read(RESULTS / f"{name}.json")
    rows = sorted((r for r in record["results"] if r["part"] == "sequences"), key=lambda r: -r["auc"]["3"])
    return f"{markdown_of(hpatches.COLUMNS, rows)}\n\n{provenance_line(record)}"


def verification(name: str) -> str:
    """FPR@95 on patch sets, one column per set."""
    record = read(RESULTS / f"{name}.json")
    return f"{markdown_of(*brown.by_set(record['results']))}\n\n{provenance_line(record)}"


def robustness(name: str) -> str:
    """Matching score against the strength of a change, one table a change."""
    record = read(RESULTS / f"{name}.json")
    parts = []
    for change in dict.fromkeys(r["change"] for r in record["results"]):
        chosen = [r for r in record["results"] if r["change"] == change]
        header = [f"{change} ({chosen[0]['unit']})", *(f"{strength:g}" for strength in chosen[0]["strengths"])]
        parts.append(markdown(header, [[r["descriptor"], *(f"{v:.3f}" for v in r["score"])] for r in chosen]))
    return "\n\n".join([*parts, provenance_line(record)])


def support(name: str) -> str:
    """M95 of detectors and support regions."""
    record = read(RESULTS / f"{name}.json")
    table = markdown_of(regions.columns(record["results"]), record["results"])
    return f"{table}\n\n{provenance_line(record)}"


def revisited(name: str) -> str:
    """Mean average precision of the ratio of first to second distance, best first in each set."""
    record = read(RESULTS / f"{name}.json")
    rows = sorted(record["results"], key=lambda r: (r["set"], -r["map"]))
    return f"{markdown_of(ratios.COLUMNS, rows)}\n\n{provenance_line(record)}"


def context(*names: str) -> str:
    """What neighbours add to distance and ratio, on scenes that were left out."""
    header = [
        "codes",
        "scene left out",
        "M95, ratio",
        "M95, context",
        "x",
        "Brier score",
        "calibration error",
        "ms a pair",
    ]
    rows, records = [], [read(RESULTS / f"{name}.json") for name in names]
    for name, record in zip(names, records, strict=True):
        for r in record["results"]:
            share = r["m95_context"] / max(r["m95_ratio"], 1)
            cells = [f"{r['m95_ratio']:,}", f"{r['m95_context']:,}", f"{share:.3f}"]
            cells += [f"{r['brier']:.4f}", f"{r['calibration_error']:.4f}", f"{r['ms_per_pair']:.1f}"]
            rows.append([name.removeprefix("context-"), r["scene"], *cells])
    return "\n\n".join([markdown(header, rows), *(provenance_line(record) for record in records)])


def calibration(name: str) -> str:
    """How far stated probabilities are from measured shares."""
    record = read(RESULTS / f"{name}.json")
    return f"{markdown_of(calibrate.COLUMNS, record['results'])}\n\n{provenance_line(record)}"
