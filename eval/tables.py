"""Write the tables of README.md and eval/RESULTS.md from the JSON files of ``eval/results`` and ``weights``.

python -m eval tables            # rewrites both
python -m eval tables --check    # exit status 1 if one is not what the files say
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from eval.ablation import TITLES, measure_of
from kornia_bingan.files import atomic_path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "eval" / "results"
FILES = ("README.md", "eval/RESULTS.md")


def read(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Render a table; the first column is text, the others are numbers."""
    rule = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" if row else rule for row in (header, [], *rows))


def provenance_line(record: dict[str, Any]) -> str:
    """Say which command made a record, from which commit and on which machine."""
    about = record["provenance"]
    commit = (about["commit"] or "no commit")[:12]
    return f"`{record['command']}`, commit {commit}, {about['machine']['cpu']}, {about['date'][:10]}."


def models() -> str:
    """Shipped weights."""
    manifest = read(ROOT / "weights" / "manifest.json")
    rows = [
        [f"[`{name}`](weights/{name}.md)", str(row["bits"]), f"{row['multiply_adds'] / 1e6:.1f} M", row["summary"]]
        for name, row in manifest.items()
    ]
    return markdown(["name", "bits", "multiply-adds a patch", "what it is"], rows)


SUMMARISED = ("rootsift", "sift", "hardtfeat", "hashsift256", "boostdesc", "teblid256", "orb")
"""Peers in the summary, beside ours."""


def summary(split: str) -> str:
    """The most telling value of each protocol, one row a descriptor, with the commands of all."""
    folder = RESULTS
    files = {name: folder / f"{name}-{split}.json" for name in ("m95", "hpatches", "pairs")}
    files |= {"brown": folder / f"brown-{split}.json", "speed": folder / "speed.json"}
    records = {name: read(path) for name, path in files.items() if path.is_file()}
    of: dict[tuple[str, str], str] = {}
    for t in records["m95"]["totals"]:
        if column := {"scene": "scenes", "homography": "homographies"}.get(t["part"]):
            of[f"M95 {column}, x RootSIFT", t["descriptor"]] = f"{t['times_rootsift']:.2f}"
    for r in records["hpatches"]["results"]:
        if r["part"] == "sequences":
            of["homography AUC@3", r["descriptor"]] = f"{r['auc']['3']:.3f}"
    for r in records["pairs"]["results"]:
        if r["part"] == "scenes":
            of["pose AUC@10", r["descriptor"]] = f"{r['auc']['10']:.3f}"
    for r in records.get("brown", {"results": []})["results"]:
        of[f"FPR@95 % {r['set']}", r["descriptor"]] = f"{r['fpr95']:.1f}"
    for r in records.get("speed", {"results": []})["results"]:
        of["keypoints / s", r["descriptor"]] = f"{r['keypoints_per_second']:,.0f}"
    columns = list(dict.fromkeys(column for column, _ in of))
    sizes = {name: about["num_bytes"] for name, about in records["m95"]["peers"].items()}
    ours = [name for name in sizes if name.startswith("bingan")]
    rows = [
        [name, f"{sizes[name]:,}", *(of.get((column, name), "") for column in columns)]
        for name in (*ours, *SUMMARISED)
        if name in sizes
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
    """Keypoints described a second."""
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


def m95(name: str, part: str) -> str:
    """Correct matches at 95 % precision, one row a descriptor, best first."""
    record = read(RESULTS / f"{name}.json")
    totals = sorted((t for t in record["totals"] if t["part"] == part), key=lambda t: -t["m95"])
    sets = totals[0]["data"]
    of = {(row["data"], row["descriptor"]): row["m95"] for row in record["results"]}
    header = ["descriptor", "bytes", *sets, "sum", "x RootSIFT (95 % interval)"]
    rows = []
    for t in totals:
        low, high = t["times_rootsift_interval"]
        cells = [f"{of[data, t['descriptor']]:,}" for data in sets]
        ratio = f"{t['times_rootsift']:.3f} ({low:.3f} to {high:.3f})"
        size = record["peers"][t["descriptor"]]["num_bytes"]
        rows.append([t["descriptor"], f"{size:,}", *cells, f"{t['m95']:,}", ratio])
    absent = f" Absent, no weights at hand: {', '.join(record['absent'])}." if record["absent"] else ""
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}{absent}"


def homographies(name: str) -> str:
    """Matching on image sequences."""
    record = read(RESULTS / f"{name}.json")
    chosen = sorted((r for r in record["results"] if r["part"] == "sequences"), key=lambda r: -r["auc"]["3"])
    header = ["descriptor", "ratio", "matches", "MMA@1", "MMA@3", "MMA@5", "matching score", "AUC@1", "AUC@3", "AUC@5"]
    rows = []
    for r in chosen:
        shares = [r["mma"]["1"], r["mma"]["3"], r["mma"]["5"], r["matching_score"], *r["auc"].values()]
        rows.append([r["descriptor"], f"{r['ratio']:.3f}", f"{r['matches']:,}", *(f"{value:.3f}" for value in shares)])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def verification(name: str) -> str:
    """FPR@95 on patch sets, one column a set."""
    record = read(RESULTS / f"{name}.json")
    sets = list(dict.fromkeys(row["set"] for row in record["results"]))
    names = list(dict.fromkeys(row["descriptor"] for row in record["results"]))
    of = {(row["set"], row["descriptor"]): row for row in record["results"]}
    rows = []
    for descriptor in sorted(names, key=lambda n: sum(of[s, n]["fpr95"] for s in sets)):
        cells = []
        for patch_set in sets:
            row = of[patch_set, descriptor]
            cells.append(f"{row['fpr95']:.2f} ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})")
        rows.append([descriptor, *cells])
    header = ["descriptor", *(f"{patch_set}, FPR@95 % (interval)" for patch_set in sets)]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def ablation(name: str) -> str:
    """Training runs side by side, of patches or of whole pictures."""
    record = read(RESULTS / f"{name}.json")
    measure = measure_of(record["results"])
    pictures = measure == "map"
    header = ["run", *(["bits"] if pictures else []), "GAN", "DMR", "BRE", "two views"]
    header += ["normalised before the sign" if pictures else "standardised"]
    header += [f"{'pictures' if pictures else 'patches'} seen", "minutes"]
    header += [f"{TITLES[measure]} untrained", "mean of the second half", "last"]
    rows = []
    for r in record["results"]:
        terms = [f"{r[f'lambda_{term}']:g}" for term in ("gan", "dmr", "bre", "two_view")]
        scores = [f"{r[key][measure]:.1f}" for key in ("untrained", "late_mean", "last")]
        cost = [f"{r['patches']:,}", f"{r['seconds'] / 60:.0f}"]
        flag = "yes" if r["normalise" if pictures else "standardise"] else "no"
        rows.append([r["run"], *([str(r["bits"])] if pictures else []), *terms, flag, *cost, *scores])
    first = record["results"][0]
    return f"{markdown(header, rows)}\n\n{provenance_line({**record, 'provenance': first['provenance']})}"


_PUBLISHED = (
    ("SH", "hand-made features", 12.95, 14.09, 13.89, "rerun of Lin et al., CVPR 2016"),
    ("LSH", "hand-made features", 12.55, 13.76, 15.07, "rerun of Lin et al., CVPR 2016"),
    ("PCA-ITQ", "hand-made features", 15.67, 16.20, 16.64, "rerun of Lin et al., CVPR 2016"),
    ("DeepBit", "network pretrained with labels", 19.43, 24.86, 27.73, "Lin et al., CVPR 2016"),
    ("DBD-MQ", "network pretrained with labels", 21.53, 26.50, 31.85, "Duan et al., CVPR 2017"),
    ("BinGAN", "from scratch, no labels", 30.05, 34.65, 36.77, "Zieba et al., NIPS 2018"),
    ("GraphBit", "network pretrained with labels", 32.15, 36.74, 39.90, "Duan et al., CVPR 2018"),
    ("CIBHash", "network pretrained with labels", 59.0, 62.2, 64.1, "Qiu et al., IJCAI 2021"),
)
"""Method, class, mAP@1000 in percent at 16, 32 and 64 bits, source; their routines differ."""


def published_retrieval() -> str:
    """What articles state."""
    rows = [[name, kind, *(f"{value:.1f}" for value in values), source] for name, kind, *values, source in _PUBLISHED]
    return markdown(["published", "class", "16 bits", "32 bits", "64 bits", "source"], rows)


def cifar10(name: str) -> str:
    """Retrieval of whole pictures by every convention, best first at each width; published values apart."""
    record = read(RESULTS / f"{name}.json")
    header = ["codes", "bits", "exact@1000 (interval)", "deepbit", "published", "full depth"]
    rows = []
    for r in sorted(record["results"], key=lambda r: (r["bits"], -r["exact"])):
        low, high = r["interval"]
        values = [f"{r[key]:.2f}" for key in ("deepbit", "published", "full")]
        rows.append([r["descriptor"], str(r["bits"]), f"{r['exact']:.2f} ({low:.2f} to {high:.2f})", *values])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def overlap(name: str) -> str:
    """Recall of photos that show the same place."""
    record = read(RESULTS / f"{name}.json")
    depths = [key for key in record["results"][0] if key.startswith("recall@")]
    rows = []
    for r in record["results"]:
        bounds = [r[key.replace("recall", "interval")] for key in depths]
        cells = [f"{r[key]:.3f} ({low:.3f} to {high:.3f})" for key, (low, high) in zip(depths, bounds, strict=True)]
        rows.append([r["code"], str(r["bits"]), *cells])
    return f"{markdown(['code of a photo', 'bits', *depths], rows)}\n\n{provenance_line(record)}"


def retrieval_pairs(name: str) -> str:
    """Reconstruction with all pairs and with similar ones only."""
    record = read(RESULTS / f"{name}.json")
    header = ["scene", "its photos", "photos", "pairs compared", "registered", "points", "matching, s", "verifying, s"]
    rows = []
    for r in record["results"]:
        seconds = [f"{r['seconds'].get(stage, 0):.0f}" for stage in ("match", "verify")]
        counts = [f"{r['pairs']:,} ({r['choice']})", str(r["registered"]), f"{r['points']:,}"]
        rows.append([r["scene"], str(r["own"]), str(r["photos"]), *counts, *seconds])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def index_speed(name: str) -> str:
    """Searching many codes."""
    record = read(RESULTS / f"{name}.json")
    header = ["codes", "index", "build, s", "queries / s", "bytes a code", "recall@1", "recall@10"]
    rows = []
    for r in record["results"]:
        cost = [f"{r['build_seconds']:.1f}", f"{r['queries_per_second']:,.0f}", f"{r['bytes_per_code']:.1f}"]
        shares = [f"{r[key]:.3f}" for key in ("recall@1", "recall@10")]
        rows.append([f"{r['count']:,} {r['codes']}", r["index"], *cost, *shares])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def adapt(name: str) -> str:
    """Adaptation to the photos of one scene, before and after."""
    record = read(RESULTS / f"{name}.json")
    header = ["scene", "photos", "steps", "minutes", "nearest % before", "after", "M95 before", "after", "ratio"]
    rows = []
    for r in record["results"]:
        cost = [str(r["photos"]), f"{r['steps']:,}", f"{r['seconds'] / 60:.0f}"]
        nearest = [f"{r['nearest'][key]:.1f}" for key in ("before", "after")]
        m95_cells = [f"{r['m95'][key]:,}" for key in ("before", "after")]
        rows.append([r["data"], *cost, *nearest, *m95_cells, f"{r['m95_ratio']:.3f}"])
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def train_speed(name: str) -> str:
    """Speed of a training step against a straightforward implementation."""
    record = read(RESULTS / f"{name}.json")
    rows = [
        [r["step"], r["freed_memory"], f"{1 / r['seconds']:.2f}", f"{25 / r['seconds']:.0f}", f"{r['ratio']:.2f}"]
        for r in record["results"]
    ]
    header = ["step", "freed memory", "steps / s", "patches / s", "x straightforward"]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


def recipe_search(name: str) -> str:
    """Training runs that change one thing each."""
    record = read(RESULTS / f"{name}.json")
    header = ["run", "idea", "predicted", "changes", "x RootSIFT (interval)", "its float", "code / float", "minutes"]
    rows = []
    for r in record["results"]:
        low, high = r["interval"]
        changes = ", ".join(f"`{key} {value}`" for key, value in r["changes"].items())
        measured = f"{r['times_rootsift']:.3f} ({low:.3f} to {high:.3f})"
        shares = [f"{r['float_times_rootsift']:.3f}", f"{r['code_of_float']:.3f}", f"{r['seconds'] / 60:.0f}"]
        rows.append([r["run"], r["idea"], r["predicted"] or "not written down", changes, measured, *shares])
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


def calibration(name: str) -> str:
    """How far stated probabilities are from measured shares."""
    record = read(RESULTS / f"{name}.json")
    rows = [
        [r["scene"], f"{r['matches']:,}", *(f"{r[key]:.4f}" for key in ("share_correct", "brier", "calibration_error"))]
        for r in record["results"]
    ]
    header = ["scene left out", "matches", "share right", "Brier score", "calibration error"]
    return f"{markdown(header, rows)}\n\n{provenance_line(record)}"


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "brown": lambda: verification("brown"),
    "revisited": lambda: revisited("revisited"),
    "speed": lambda: speed("speed"),
    "ablation": lambda: ablation("ablation"),
    "cifar10": lambda: cifar10("cifar10"),
    "cifar10-published": published_retrieval,
    "cifar10-terms": lambda: ablation("cifar10-terms"),
    "overlap": lambda: overlap("overlap"),
    "retrieval-pairs": lambda: retrieval_pairs("retrieval-pairs"),
    "index-speed": lambda: index_speed("index-speed"),
    "adapt": lambda: adapt("adapt"),
    "train-speed": lambda: train_speed("train-speed"),
    "recipe-search": lambda: recipe_search("recipe-search"),
    "support": lambda: support("support"),
    "calibration": lambda: calibration("calibration-bingan256"),
    "robustness": lambda: robustness("robustness-validate"),
}
for _split in ("validate", "heldout"):
    TABLES |= {
        f"summary-{_split}": partial(summary, _split),
        f"m95-{_split}": partial(m95, f"m95-{_split}", "scene"),
        f"m95-homographies-{_split}": partial(m95, f"m95-{_split}", "homography"),
        f"hpatches-{_split}": partial(homographies, f"hpatches-{_split}"),
        f"brown-{_split}": partial(verification, f"brown-{_split}"),
        f"patch-tasks-{_split}": partial(patch_tasks, f"patch-tasks-{_split}"),
        f"pairs-{_split}": partial(pose, f"pairs-{_split}"),
        f"sfm-{_split}": partial(sfm, f"sfm-{_split}"),
        f"sfm-check-{_split}": partial(sfm_check, f"sfm-check-{_split}"),
    }


def fill(text: str) -> str:
    """Replace what stands between the markers of each table."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval tables")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args(argv)
    stale = []
    for name in FILES:
        before = (ROOT / name).read_text(encoding="utf-8")
        after = fill(before)
        if after != before:
            stale.append(name)
            if not arguments.check:
                with atomic_path(ROOT / name) as temporary:
                    temporary.write_text(after, encoding="utf-8")
    if arguments.check:
        print(f"{', '.join(stale)}: stale, run python -m eval tables" if stale else "all tables are up to date")
    return int(bool(stale) and arguments.check)
