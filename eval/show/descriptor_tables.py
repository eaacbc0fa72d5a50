"""Tables of what descriptors reach: one function a table, each gets the name of a JSON file in ``eval/results``."""

from __future__ import annotations

from typing import Any

from eval.show.markdown import RESULTS, ROOT, markdown, provenance_line, read, with_interval


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
    """Mean average precision of the three tasks of HPatches."""
    record = read(RESULTS / f"{name}.json")
    tasks = ("verification", "matching", "retrieval")
    header = ["descriptor", *(f"{task} {level}" for task in tasks for level in ("easy", "hard", "tough"))]
    header += [f"{task} (interval)" for task in tasks]
    rows = []
    for r in sorted(record["results"], key=lambda r: -r["matching"]):
        cells = [f"{r[f'{task}_{level}']:.3f}" for task in tasks for level in ("easy", "hard", "tough")]
        for task in tasks:
            low, high = r[f"{task}_interval"]
            cells.append(f"{r[task]:.3f} ({low:.3f} to {high:.3f})")
        rows.append([r["descriptor"], *cells])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def pose(name: str) -> str:
    """Two-view pose."""
    record = read(RESULTS / f"{name}.json")
    header = ["descriptor", "part", "pairs", "AUC@5", "AUC@10 (interval)", "AUC@20", "matches", "inliers", "failures"]
    rows = []
    for r in sorted(record["results"], key=lambda r: (r["part"] != "scenes", -r["auc"]["10"])):
        low, high = r["auc10_interval"]
        auc = [f"{r['auc']['5']:.3f}", f"{r['auc']['10']:.3f} ({low:.3f} to {high:.3f})", f"{r['auc']['20']:.3f}"]
        counts = [f"{r[key]:,}" for key in ("matches", "inliers", "failures")]
        rows.append([r["descriptor"], r["part"], str(r["pairs"]), *auc, *counts])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def sfm_check(name: str) -> str:
    """SIFT through the harness beside plain pycolmap."""
    record = read(RESULTS / f"{name}.json")
    measures = ("points", "observations", "mean_reprojection_error_px", "rotation_deg", "position_percent")
    rows = []
    for r in record["summary"]:
        values = [r[key] for key in measures]
        cells = ["" if v is None else f"{v[0]:,.3f} ({v[1]:,.3f} to {v[2]:,.3f})" for v in values]
        rows.append([r["scene"], r["pipeline"], str(r["seeds"]), *cells])
    header = ["scene", "pipeline", "seeds", *(f"{key.replace('_', ' ')} (least to most)" for key in measures)]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


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
    header = ["scene", "descriptor", "registered", "points", "observations", "track length", "reprojection error px"]
    header += ["rotation error deg", "position error %", "bytes"]
    rows = []
    for r in record["results"]:
        truth = ["" if r[key] is None else f"{r[key]:.3f}" for key in ("rotation_deg", "position_percent")]
        row = [r["scene"], r["descriptor"], f"{len(r['registered'])} / {r['images']}", f"{r['points']:,}"]
        row += [f"{r['observations']:,}", f"{r['mean_track_length']:.2f}", f"{r['mean_reprojection_error_px']:.3f}"]
        rows.append([*row, *truth, f"{r['descriptor_bytes']:,}"])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


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
    totals = sorted((t for t in record["totals"] if t["part"] == part), key=lambda t: -t["m95"])
    sets = totals[0]["data"]
    of = {(row["data"], row["descriptor"]): row for row in record["results"]}
    header = [
        "descriptor",
        "bytes",
        *(f"{name} (95 % interval)" for name in sets),
        "sum (interval)",
        "x RootSIFT (interval)",
    ]
    first = record["constants"].get("first")
    header += [f"{first} is x this (interval)"] if first else []
    rows = []
    for t in totals:
        low, high = t["times_rootsift_interval"]
        chosen = [of[data, t["descriptor"]] for data in sets]
        cells = [with_interval(row["m95"], row["m95_interval"], 0) for row in chosen]
        cells.append(with_interval(t["m95"], t["m95_interval"], 0))
        cells.append(f"{t['times_rootsift']:.3f} ({low:.3f} to {high:.3f})")
        if first:
            cells.append(with_interval(t["ours_times"], t["ours_times_interval"], 3) if "ours_times" in t else "")
        size = record["peers"][t["descriptor"]]["num_bytes"]
        rows.append([t["descriptor"], f"{size:,}", *cells])
    absent = f" Absent, no weights at hand: {', '.join(record['absent'])}." if record["absent"] else ""
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}{absent}"


def homographies(name: str) -> str:
    """Matching on image sequences."""
    record = read(RESULTS / f"{name}.json")
    chosen = sorted((r for r in record["results"] if r["part"] == "sequences"), key=lambda r: -r["auc"]["3"])
    header = ["descriptor", "ratio", "matches", "MMA@1", "MMA@3 (interval)", "MMA@5", "matching score", "AUC@1"]
    header += ["AUC@3 (interval)", "AUC@5"]
    rows = []
    for r in chosen:
        mma, auc = r["mma"], r["auc"]
        cells = [f"{mma['1']:.3f}", with_interval(mma["3"], r["mma3_interval"], 3), f"{mma['5']:.3f}"]
        cells += [f"{r['matching_score']:.3f}", f"{auc['1']:.3f}", with_interval(auc["3"], r["auc3_interval"], 3)]
        rows.append([r["descriptor"], f"{r['ratio']:.3f}", f"{r['matches']:,}", *cells, f"{auc['5']:.3f}"])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def verification(name: str) -> str:
    """FPR@95 on patch sets, one column per set."""
    record = read(RESULTS / f"{name}.json")
    sets = list(dict.fromkeys(row["set"] for row in record["results"]))
    names = list(dict.fromkeys(row["descriptor"] for row in record["results"]))
    of = {(row["set"], row["descriptor"]): row for row in record["results"]}
    rows = []
    scored = {n: [of[s, n]["fpr95"] for s in sets if (s, n) in of] for n in names}
    for descriptor in sorted(names, key=lambda n: sum(scored[n]) / len(scored[n])):
        cells = []
        for patch_set in sets:
            row = of.get((patch_set, descriptor))
            cells.append(
                "" if row is None else f"{row['fpr95']:.2f} ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})"
            )
        rows.append([descriptor, *cells])
    header = ["descriptor", *(f"{patch_set}, FPR@95 % (interval)" for patch_set in sets)]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


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
    scenes = list(record["results"][0]["m95"])
    header = ["detector", "half side / size", "in use", *scenes, "sum"]
    rows = [
        [r["detector"], f"{r['factor']:g}" if r["factor"] else r["described"], "yes" if r["in_use"] else ""]
        + [f"{r['m95'][scene]:,}" for scene in scenes]
        + [f"{r['sum']:,}"]
        for r in record["results"]
    ]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def revisited(name: str) -> str:
    """Mean average precision of the ratio of first to second distance."""
    record = read(RESULTS / f"{name}.json")
    rows = []
    for r in sorted(record["results"], key=lambda r: (r["set"], -r["map"])):
        low, high = r["interval"]
        package = "" if r["map_package"] is None else f"{r['map_package']:.2f}"
        rows.append([r["set"], r["descriptor"], f"{r['map']:.2f} ({low:.2f} to {high:.2f})", package])
    header = ["set", "descriptor", "mAP % (interval)", "by the package's rule"]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


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
    rows = [
        [r["scene"], f"{r['matches']:,}", *(f"{r[key]:.4f}" for key in ("share_correct", "brier", "calibration_error"))]
        for r in record["results"]
    ]
    header = ["scene left out", "matches", "share right", "Brier score", "calibration error"]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"
