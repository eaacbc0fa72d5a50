"""Which support region suits each peer: M95 on the validation scenes against the side in sigma of the DoG keypoint.

    python -m eval peer_support DATA/validate [--peers rootsift,orb] [--sides 8,12,16,20,24] [--out FILE.json]

Protocol. As ``m95`` on scenes with cameras, the sum over the scenes: every peer with the support region that people
use, and with squares (SIFT's window, ORB's pattern, a network's patch ...) of every side of ``--sides``. Each peer's
largest sum is its best; of equal ones the usual, then the smaller. Every other protocol reads the record
and measures each peer twice: as people use it, and as ``NAME@SIDE`` at its best, where that is another side. ``at_end``
says that the best is the first or last side that was tried, so that a better one may lie beyond. Ours are trained for
one support region and keep it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eval.harness.columns import Column, Row, text_of
from eval.harness.command import Split, command_line, words_of
from eval.harness.metrics import matches_at_precision
from eval.harness.options import PEER_SUPPORT, MatchingOptions, setup
from eval.harness.peers import PEERS
from eval.harness.problems import MAX_KEYPOINTS, load_problems
from eval.harness.records import write_json
from eval.quality.m95 import PRECISION, THRESHOLD_PX, cached_evaluate
from kornia_bingan.errors import UsageError

SIDES = "8,10,12,14,16,18,20,24,28"
PEERS_ALONE = MatchingOptions(ours=(), regions="usual", out=PEER_SUPPORT)


def read_sides(text: str) -> list[float]:
    """Read sides in sigma, ascending.

    Raises:
        UsageError: one is no positive number.
    """
    try:
        sides = sorted({float(word) for word in words_of(text)})
    except ValueError as error:
        raise UsageError(f"--sides {text}: {error}; give numbers separated by commas") from error
    if not sides or sides[0] <= 0:
        raise UsageError(f"--sides {text}: give positive numbers separated by commas")
    return sides


def choose(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Choose the best row of one peer.

    Args:
        rows: with ``side_sigma`` (None for a window of fixed size), ``usual`` and ``sum``; one is usual.

    Returns:
        ``usual`` and ``best`` (a side or None), the sum of each, and ``at_end``: the best is the first or last side.
    """
    usual = next(row for row in rows if row["usual"])
    best = max(rows, key=lambda row: (row["sum"], row["usual"], -(row["side_sigma"] or 0)))
    sides = [row["side_sigma"] for row in rows if row["side_sigma"] is not None]
    return {
        "usual": usual["side_sigma"],
        "usual_sum": usual["sum"],
        "best": best["side_sigma"],
        "best_sum": best["sum"],
        "at_end": best["side_sigma"] in (min(sides), max(sides)),
    }


def rows_of(record: Row) -> list[dict[str, Any]]:
    """Give a row for each peer: what was chosen, ``sums`` by side, and the side that people use."""
    rows: dict[str, dict[str, Any]] = {}
    for result in record["results"]:
        row = rows.setdefault(result["descriptor"], {"descriptor": result["descriptor"], "sums": {}})
        row["sums"][result["side_sigma"]] = result["sum"]
        if result["usual"]:
            row |= record["chosen"][result["descriptor"]] | {"side": result["side_sigma"]}
    return list(rows.values())


def columns(record: Row) -> list[Column]:
    """Give M95 of a peer as people use it and with each side, the best in bold."""

    def of_side(sigma: float) -> Column:
        def text(row: Row) -> str:
            value = f"{row['sums'][sigma]:,}"
            return f"**{value}**" if sigma == row["best"] else value

        return Column(f"{sigma:g}", lambda row: row["sums"].get(sigma), text)

    def best(row: Row) -> str:
        side = "as used" if row["best"] == row["usual"] else f"{row['best']:g}"
        return f"{side}, the last tried" if row["at_end"] else side

    return [
        Column("descriptor", "descriptor"),
        Column("as people use it, sigma", lambda row: "fixed" if row["side"] is None else f"{row['side']:g}"),
        Column("M95", "usual_sum", ","),
        *map(of_side, record["sides"]),
        Column("best", best),
        Column("gain", lambda row: row["best_sum"] / max(1, row["usual_sum"]), ".3f"),
    ]


@command_line("peer_support")
def main(data: Split, shared: MatchingOptions = PEERS_ALONE, sides: str = SIDES) -> int:
    """Measure every peer with every support region.

    Args:
        sides: of support regions, in sigma of the keypoint, separated by commas.
    """
    tried, asked = read_sides(sides), shared.peers
    if sided := [name for name in asked if "@" in name]:
        raise UsageError(f"--peers {sided[0]}: give names without a side; --sides says which are tried")
    every = (*asked, *(f"{name}@{side:g}" for name in asked for side in tried))
    run = setup("peer_support", data, replace(shared, peers=every))
    problems = list(load_problems(run.data, run.only, run.cache, with_sequences=False))
    rows: list[dict[str, Any]] = []
    for base in asked:
        mine = [peer for peer in run.peers if peer.name.partition("@")[0] == base]
        for peer in mine:
            if peer.name != base and peer.side_sigma == mine[0].side_sigma:
                continue  # the usual side stands there already
            counts = {}
            for problem in problems:
                result = cached_evaluate(peer, problem, run.cache)
                found = matches_at_precision(result.ratio, result.correct, PRECISION, ties="in order")
                counts[problem.name] = int(found.num_correct)
            row = {"descriptor": base, "side_sigma": peer.side_sigma, "usual": peer.name == base, "m95": counts}
            rows.append({**row, "sum": sum(counts.values())})
            print(f"{peer.name} {rows[-1]['sum']:,}", file=sys.stderr, flush=True)
    chosen = {
        base: choose([row for row in rows if row["descriptor"] == base])
        for base in dict.fromkeys(row["descriptor"] for row in rows)
    }
    words = [f"--only {','.join(shared.only)}"] if shared.only else []
    words += [f"--peers {','.join(asked)}"] if asked != tuple(PEERS) else []
    words += [f"--sides {sides}"] if sides != SIDES else []
    about = run.record("peer_support")
    about["peers"] = {name: peer for name, peer in about["peers"].items() if "@" not in name}
    record = {
        **about,
        "command": " ".join([f"python -m eval peer_support DATA/{run.data.name}", *words]),
        "threshold_px": THRESHOLD_PX,
        "max_keypoints": MAX_KEYPOINTS,
        "sides": tried,
        "results": rows,
        "chosen": chosen,
    }
    run.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(run.out, record)
    print(text_of(columns(record), rows_of(record)))
    for name, about in chosen.items():
        if about["at_end"]:
            print(f"{name}: the best side is at the end of --sides; try sides beyond {about['best']:g} sigma")
    for name, reason in run.absent.items():
        if "@" not in name:
            print(f"absent: {name}: {reason}")
    return 0
