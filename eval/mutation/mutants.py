"""Do the tests notice a change? Single changes to a file, each against the tests of that file.

    python -m eval mutants [FILE[:N] ...] [--sample N] [--seed 0] [--out FILE.json]

Protocol. The operators of cosmic-ray change one place of a file: an operator, a comparison, a number by one, True and
False, and/or, a condition, a loop that is not entered, break and continue, the exception that is caught, a decorator.
At each place one change of each kind is drawn; ``--sample``, or a number behind the name of a file, draws so many of
them. Left out are type annotations, which nothing executes, assertions, and what stands in a ``raise``: the numbers and
conditions of a message. Strings are not changed. A change is caught when a test of the file's own test files fails or
cannot be imported, or runs for ten times the processor time of all. The tests that execute the line are run first, and
the first failure ends the run. The interval is Wilson's at 95 %, over the places that were drawn.

Outcomes are kept in ``bench/mutants``: run a killed command again to resume. They hold for one content of the file;
what survived is tried again when its tests have changed. All runs are forks of one process that has loaded the
libraries but none of this repository, on a copy of the working tree.

Survivors that no test can or need notice have their reason in ``eval/mutation/mutants.toml``; they count as survivors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tomllib
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tyro

from eval.harness.command import GIVEN, OptionalOut, command_line
from eval.harness.records import write_json
from eval.mutation.changes import COUNTS, find_mutants
from eval.mutation.trials import copied_tree, measure, try_mutant
from kornia_bingan.errors import UsageError
from kornia_bingan.report.text import text_table
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.provenance import provenance

FILES = (
    "kornia_bingan/losses.py",
    "kornia_bingan/train/metrics.py",
    "kornia_bingan/matching/hamming.py",
    "kornia_bingan/matching/context.py",
    "kornia_bingan/bits.py",
    "kornia_bingan/patches.py",
    "kornia_bingan/keypoints.py",
    "kornia_bingan/reconstruct/pairs.py",
    "kornia_bingan/reconstruct/matches.py",
    "kornia_bingan/images/exif.py",
    "kornia_bingan/colmap/half_pixel.py",
    "kornia_bingan/colmap/database.py",
    "kornia_bingan/colmap/mapping.py",
    "kornia_bingan/colmap/model.py",
    "kornia_bingan/network/layers.py",
    "kornia_bingan/network/published.py",
    "kornia_bingan/network/frames.py",
    "kornia_bingan/train/frames.py",
    "kornia_bingan/reconstruct/cameras.py",
    "kornia_bingan/search/faiss_store.py",
    "kornia_bingan/search/index.py",
    "kornia_bingan/search/lance_store.py",
    "eval/harness/metrics.py",
    "eval/harness/bootstrap.py",
    "eval/harness/problems.py",
    "eval/quality/m95.py",
    "eval/harness/peers.py",
    "eval/harness/ours.py",
    "eval/harness/peer_rows.py",
    "eval/quality/thresholds.py",
    "eval/quality/cifar10.py",
)
TESTS = {
    "kornia_bingan/network/layers.py": ("tests/network/test_published.py",),
    "kornia_bingan/reconstruct/matches.py": ("tests/reconstruct/test_pairs.py", "tests/matching/test_context.py"),
    "kornia_bingan/colmap/half_pixel.py": ("tests/colmap/test_colmap.py", "tests/colmap/test_database.py"),
    "kornia_bingan/colmap/database.py": ("tests/colmap/test_colmap.py",),
    "kornia_bingan/colmap/mapping.py": ("tests/colmap/test_colmap.py",),
    "kornia_bingan/colmap/model.py": ("tests/colmap/test_colmap.py",),
    "kornia_bingan/search/faiss_store.py": ("tests/search/test_stores.py",),
    "kornia_bingan/search/index.py": ("tests/search/test_stores.py",),
    "kornia_bingan/search/lance_store.py": ("tests/search/test_stores.py",),
    "eval/harness/ours.py": ("tests/eval/test_peers.py",),
    "eval/harness/bootstrap.py": ("tests/eval/test_metrics.py",),
    "eval/harness/problems.py": ("tests/eval/test_m95.py",),
    "eval/harness/peer_rows.py": ("tests/eval/test_peers.py", "tests/eval/test_protocols.py"),
}
"""Test files beside the one that is named after the file."""

# OpenCV before pycolmap, see half_pixel; lancedb starts threads when it is imported, which a fork would lose
LIBRARIES = (
    *("torch", "kornia.feature", "cv2", "pycolmap", "faiss", "PIL.Image", "coverage"),
    *("_hypothesis_pytestplugin", "hypothesis.core"),  # pytest would go through all of the latter in each fork
)
KEPT = Path("bench/mutants")
REASONS = Path(__file__).with_suffix(".toml")


def wilson(caught: int, tried: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in percent.

    Args:
        caught: successes.
        tried: trials; 0 gives 0 to 100.
    """
    if not tried:
        return 0.0, 100.0
    z, share = 1.959964, caught / tried
    middle = share + z * z / (2 * tried)
    half = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried))
    scale = 1 + z * z / tried
    return 100 * max(0.0, (middle - half) / scale), 100 * min(1.0, (middle + half) / scale)


def tests_of(file: str) -> list[str]:
    """Give the test files of a file: the one that is named after it, and those of ``TESTS``."""
    own = str(Path("tests") / Path(file.removeprefix("kornia_bingan/")).with_name(f"test_{Path(file).name}"))
    if file.startswith("eval/"):
        own = f"tests/eval/test_{Path(file).name}"
    names = [name for name in (own, *TESTS.get(file, ())) if Path(name).is_file()]
    if not names:
        raise UsageError(f"{file} has no {own}; give one of {', '.join(FILES)}")
    return names


def examine(file: str, sample: int | None, seed: int) -> dict[str, Any]:
    """Try the mutants of a file and give its row of the record, with its survivors.

    Raises:
        UsageError: there is no such file, or it has no tests.
        JobError: its tests fail without a change.
    """
    if not Path(file).is_file():
        raise UsageError(f"{file}: no such file; give one of {', '.join(FILES)}, from the root of the repository")
    source, tests = Path(file).read_text(encoding="utf-8"), tests_of(file)
    mutants, places = find_mutants(source, sample, [seed, zlib.crc32(file.encode())])
    source_sha256 = hashlib.sha256(source.encode()).hexdigest()
    tests_sha256 = hashlib.sha256(b"".join(Path(name).read_bytes() for name in tests)).hexdigest()
    kept = KEPT / f"{file.removesuffix('.py').replace('/', '-')}.json"
    stored = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    known = stored.get("outcomes", {}) if stored.get("source") == source_sha256 else {}
    outcomes = {key: each for key, each in known.items() if each[0] != "survived" or each[1] == tests_sha256}
    missing = [mutant for mutant in mutants if mutant.key not in outcomes]
    if missing:
        KEPT.mkdir(parents=True, exist_ok=True)
        with copied_tree() as tree:
            baseline = measure(tree, file, tests)
            for number, mutant in enumerate(missing, 1):
                outcome = try_mutant(tree, file, tests, baseline, mutant, number)
                outcomes[mutant.key] = [outcome, tests_sha256]
                with atomic_path(kept) as temporary:
                    temporary.write_text(json.dumps({"source": source_sha256, "outcomes": outcomes}), encoding="utf-8")
                print(f"{file}:{mutant.line} {outcome}: {mutant.after}" if outcome == "survived" else ".", flush=True)
    reasons = tomllib.loads(REASONS.read_text(encoding="utf-8")).get(file, {}) if REASONS.is_file() else {}
    survivors = [
        {"file": file, "line": m.line, "operator": m.operator, "before": m.before, "after": m.after}
        | {"reason": reasons.get(m.after, "")}
        for m in sorted(mutants, key=lambda m: (m.line, m.column))
        if outcomes[m.key][0] == "survived"
    ]
    caught = len(mutants) - len(survivors)
    return {
        "file": file,
        "tests": tests,
        "places": places,
        "tried": len(mutants),
        "caught": caught,
        "explained": sum(bool(one["reason"]) for one in survivors),
        "too_slow": sum(outcomes[m.key][0] == "too slow" for m in mutants),
        "percent": 100 * caught / max(1, len(mutants)),
        "interval": wilson(caught, len(mutants)),
        "source_sha256": source_sha256,
        "survivors": survivors,
    }


@command_line("mutants")
def main(
    files: tyro.conf.Positional[tuple[str, ...]] = FILES,
    sample: int | None = None,
    seed: int = 0,
    out: OptionalOut = None,
) -> int:
    """Try the mutants of files.

    Args:
        files: each perhaps with a colon and a number of places.
        sample: places of each file; all by default.
    """
    chosen: list[tuple[str, int | None]] = []
    for word in files:
        file, colon, number = word.partition(":")
        if colon and not number.isdecimal():
            raise UsageError(f"'{word}' has no number behind the colon; write {file}:30 for a sample of 30")
        chosen.append((file, int(number) if colon else sample))
    if any(places is not None and places < 1 for _, places in chosen):
        raise UsageError("a sample of no place tells nothing; give 1 or more")
    if find_spec("cosmic_ray") is None:
        raise UsageError("cosmic-ray is not installed: pip install -c constraints.txt -e '.[dev,mutation]'")
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    for name in LIBRARIES:
        if find_spec(name.partition(".")[0]) is not None:
            import_module(name)
    for file, places in chosen:
        rows.append(examine(file, places, seed))
    survivors = [survivor for row in rows for survivor in row.pop("survivors")]
    tried, caught = (sum(row[key] for row in rows) for key in ("tried", "caught"))
    total = {"file": "all", "places": sum(row["places"] for row in rows), "tried": tried, "caught": caught}
    total["explained"] = sum(row["explained"] for row in rows)
    total |= {"percent": 100 * caught / max(1, tried), "interval": wilson(caught, tried)}
    for one in survivors:
        print(
            f"{one['file']}:{one['line']}: {one['before']}\n    -> {one['after']}\n    {one['reason'] or 'no reason'}"
        )
    cells = [[row["file"], *(str(row[key]) for key in COUNTS), _share(row)] for row in [*rows, total]]
    print(text_table(["file", *COUNTS, "% (95 %)"], cells))
    if out is not None:
        record = {
            "protocol": "mutants",
            "command": " ".join(["python -m eval mutants", *GIVEN.get()]),
            "results": rows,
            "total": total,
            "survivors": survivors,
            "provenance": provenance(seed=seed),
        }
        write_json(out, record)
    return 0


def _share(row: dict[str, Any]) -> str:
    return f"{row['percent']:.1f} ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})"
