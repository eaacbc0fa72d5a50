"""The model card of shipped weights: a certificate as Markdown, with what was measured with just these weights."""

from __future__ import annotations

import json
from typing import Any

from eval.show.markdown import RESULTS
from eval.training.certificate import shipped_name
from kornia_bingan.train.config import PICTURE_NETWORKS

PUBLISHED_PATCHES = 40_000_000
"""400 epochs of 100,000 patches."""


def card(about: dict[str, Any]) -> str:
    """Render a certificate as Markdown."""
    config = about["training"]["config"]
    machine = about["provenance"]["machine"]
    of_stages = [stage["commit"] for stage in about.get("stages", ()) if "commit" in stage]
    commits = dict.fromkeys([*of_stages, about["provenance"]["commit"]])
    lines = [
        f"# {about['name']}",
        "",
        about["summary"],
        "",
        "| | |",
        "|---|---|",
        f"| network | {about['network']}, {about['bits']} bits, {about['multiply_adds'] / 1e6:.1f} M multiply-adds |",
        f"| sha256 | `{about['sha256']}` |",
        f"| command | `{about['command']}` |",
        f"| steps | {steps_taken(about)} |",
        f"| time | {about['seconds'] / 60:.0f} minutes, {config['threads'] or 'all but one'} thread(s), "
        f"{about['training']['precision'].removeprefix('torch.')}, {machine.get('gpu', machine['cpu'])} |",
        f"| data | {contents(about['training'])} |",
        *([f"| corrections | {share:g} of what was learnt |"] if (share := about["training"].get("share")) else []),
        f"| commit | {', then '.join(commits)} |",
        "",
        f"{validated_on(about['training']['config'])}, at the end of training (before training in brackets):",
        "",
        *validated(about),
    ]
    lines += measured_results(about)
    if about["data"]["sources"]:
        lines += ["", "Trained on photos of these repositories; the licence is what each states, and need not cover "]
        lines[-1] += "every photo in it. The photos are not part of this package."
        lines += ["", "| source | photos | licence as stated |", "|---|--:|---|"]
        lines += [f"| {row['source']} | {row['photos'] or ''} | {row['licence']} |" for row in about["data"]["sources"]]
    if credited := about["data"].get("credits"):
        lines += [
            "",
            f"{_learnt(about['training'])} on these photos and no others, which are not part of this package:",
        ]
        lines += ["", "| source | photos | licence | credit |", "|---|--:|---|---|"]
        lines += [
            f"| {r['source']} | {r['photos']} | {r['licence']} | {r['credit'] or 'not stated'} |" for r in credited
        ]
    lines += ["", f"Generated from `{about['name']}.json` by `python -m eval ship`.", ""]
    return "\n".join(lines)


def _learnt(training: dict[str, Any]) -> str:
    if not training["config"].get("lambda_frames"):
        return "Trained"
    trunk = training["trunk"]["name"] if "trunk" in training else shipped_name(training["config"]["start"])
    return f"The codes are those of [`{trunk}`]({trunk}.md), see there; their frame network was trained"


def steps_taken(about: dict[str, Any]) -> str:
    """Say how many steps of what the stages of a recipe took."""
    stages = about.get("stages") or [about["training"]["config"]]
    return ", then ".join(f"{s['steps']:,} of {s['batch_size']:,} {unit(about)}, seed {s['seed']}" for s in stages)


def unit(about: dict[str, Any]) -> str:
    """Name what a batch holds."""
    return "pictures" if about["network"] in PICTURE_NETWORKS else "keypoints"


def validated(about: dict[str, Any]) -> list[str]:
    """Give the last validation beside the first one, as a table of one row."""
    first, last = about["validation"][0], about["validation"][-1]
    if unit(about) == "pictures":
        header = ["mAP@1000 codes", "mAP@1000, median threshold"]
        scores = [f"{last[key]:.2f} % ({first[key]:.2f} %)" for key in ("map", "map_median")]
    else:
        header = ["FPR@95 codes", "FPR@95 descriptors"]
        scores = [f"{last[key]:.2f} % ({first[key]:.1f} %)" for key in ("fpr95", "fpr95_descriptor")]
    ones = f"{last['ones_mean']:.2f}, {last['ones_min']:.2f}, {last['ones_max']:.2f}"
    header += ["ones (mean, least, most)", "stuck bits"]
    return [
        f"| {' | '.join(header)} |",
        "|--:|--:|---|--:|",
        f"| {' | '.join([*scores, ones, str(last['stuck_bits'])])} |",
    ]


def measured_results(about: dict[str, Any]) -> list[str]:
    """Give the rows of M95 that were measured with just these weights, by split."""
    rows = []
    for path in sorted(RESULTS.glob("m95-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["peers"].get(about["name"], {}).get("sha256") != about["sha256"]:
            continue
        for total in record["totals"]:
            if total["descriptor"] == about["name"] and total["times_rootsift"] is not None:
                low, high = total["times_rootsift_interval"]
                data = ", ".join(total["data"])
                rows.append(
                    f"| {path.stem.removeprefix('m95-')}: {data} | {total['m95']:,} | {total['times_rootsift']:.3f} "
                    f"({low:.3f} to {high:.3f}) | {total['least_times_rootsift']:.3f} |"
                )
    if not rows:
        return []
    header = [
        "",
        "Correct matches at 95 % precision (M95, `python -m eval m95`), all results in `docs/results/`:",
        "",
    ]
    looks = json.loads((RESULTS / "heldout-looks.json").read_text(encoding="utf-8"))
    told = [f"{number}. {look['date']}: {look['why']}." for number, look in enumerate(looks, 1)]
    said = ["", "Looks that were taken at the held-out data up to now:", "", *told]
    table = [*header, "| data | M95 | x RootSIFT (95 % interval) | least of one set |", "|---|--:|--:|--:|", *rows]
    return [*table, *(said if any(row.startswith("| heldout") for row in rows) else [])]


def contents(training: dict[str, Any]) -> str:
    """Say what a run learnt from."""
    if "pictures" in training:
        config = training["config"]
        seen = config["steps"] * config["batch_size"]
        return f"{training['pictures']:,} pictures without their labels; {seen:,} seen, repeats counted"
    if "photos" in training:
        return f"{training['photos']:,} photos, {training['keypoints']:,} keypoints"
    seen = training["config"]["steps"] * training["config"]["batch_size"]
    share = 100 * seen / PUBLISHED_PATCHES
    return (
        f"patch set {training['config']['train']} of {training['patches']:,} patches; {seen:,} patches seen, "
        f"{share:.2g} % of the 40 million of the published training"
    )


def validated_on(config: dict[str, Any]) -> str:
    """Say what validation measured."""
    if config["network"] in PICTURE_NETWORKS:
        if config.get("queries_aside"):
            return "Pictures of the training set that were kept aside, as queries among some that were learnt from"
        return "Some of the training pictures (their labels score only), the first of them as queries"
    return (
        f"Pairs of the patch set {config['validate']}"
        if config.get("validate")
        else "Jittered views of photos kept aside"
    )
