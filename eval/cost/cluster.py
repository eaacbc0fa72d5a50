"""What does work by several processes cost, and does it give the same files?

    python -m eval cluster PHOTOS [--photos 40] [--workers 1,2] [--out FILE.json]

Protocol. The first photos of a folder are described and matched, all pairs, in this process and by Dask's workers on
this machine, which share its cores. Seconds of starting the workers, describing and matching; the wall time of a unit
that does nothing, many of them in a row; bytes over the loopback device, whatever they are (messages of Dask's own, and
what other programs send meanwhile); and whether every file has the bytes that this process writes. Last, with the most
workers, one is killed after the first photo is described, and the files are compared again.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, sized, text_of
from eval.harness.command import Data, Out, command_line
from eval.harness.options import RESULTS, use_threads
from eval.harness.records import write_json
from kornia_bingan.errors import UsageError
from kornia_bingan.images.folders import list_images
from kornia_bingan.network.weights import find_weights
from kornia_bingan.reconstruct.describe import describe_photos
from kornia_bingan.reconstruct.matches import match_photos
from kornia_bingan.reconstruct.options import DEFAULT_RATIO
from kornia_bingan.work.engine import Engine, open_engine, run_units
from kornia_bingan.work.files import sha256_of
from kornia_bingan.work.options import FeatureOptions
from kornia_bingan.work.provenance import provenance, usable_cores
from kornia_bingan.work.run_folder import TimeLimit
from kornia_bingan.work.unit import Unit

EMPTY_UNITS = 500
MAX_KEYPOINTS = 4096


COLUMNS = (
    Column("workers", "name"),
    sized("start, s", "start_s"),
    sized("describe, s", "describe_s"),
    sized("match, s", "match_s"),
    sized("an empty unit, ms", "empty_unit_ms"),
    sized("kB to start", lambda r: r["start_bytes"] / 1000 if r["workers"] and "units" in r else None),
    sized("kB per unit", lambda r: r["bytes"] / r["units"] / 1000 if r["workers"] and "units" in r else None),
    Column("files", lambda r: "same bytes" if r["same_bytes"] else "OTHER BYTES"),
)


def rows_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the rows of a table: each number of workers, and the run in which one was killed."""
    rows = [{"name": str(row["workers"] or "none, in process"), **row} for row in record["results"]]
    fault = record["fault"]
    name = f"{fault['workers']}, one killed"
    return [*rows, {**fault, "name": name, "describe_s": fault["describe"], "match_s": fault["match"]}]


def nothing(number: int) -> int:
    """Do no work."""
    return number


def empty_unit_ms(engine: Engine, count: int) -> float:
    """Measure the wall time of one of many units that do nothing, milliseconds."""
    units = (Unit(str(number), (number,)) for number in range(count))
    started = time.perf_counter()
    for _ in run_units(engine, nothing, units, count, description="nothing", done="done", word="unit"):
        pass
    return 1000 * (time.perf_counter() - started) / count


def describe_and_match(engine: Engine, photos: Path, names: list[str], out: Path, max_size: int) -> dict[str, Any]:
    """Give seconds of both stages, bytes over the loopback device, and the checksum of each file."""
    seconds, before = {}, loopback_bytes()
    started = time.perf_counter()
    features = FeatureOptions(max_keypoints=MAX_KEYPOINTS, max_size=max_size)
    unread = describe_photos(photos, names, out / "features", engine, features, limit=TimeLimit(0))
    seconds["describe"] = round(time.perf_counter() - started, 2)
    used = [name for name in names if name not in {item.name for item in unread}]
    pairs = [(a, b) for i, a in enumerate(used) for b in used[i + 1 :]]
    started = time.perf_counter()
    match_photos(pairs, out / "features", out / "matches", DEFAULT_RATIO, engine, TimeLimit(0))
    seconds["match"] = round(time.perf_counter() - started, 2)
    # Hidden are the halves that a killed worker leaves, which the commands remove at their end.
    found = [path for path in out.rglob("*.npz") if not path.name.startswith(".")]
    files = {path.relative_to(out).as_posix(): sha256_of(path) for path in found}
    return {"seconds": seconds, "bytes": loopback_bytes() - before, "files": files}


def loopback_bytes() -> int:
    """Count the bytes that were sent over the loopback device since the machine started; 0 where nobody counts."""
    path = Path("/proc/net/dev")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return sum(int(line.split()[9]) for line in lines if line.split()[0] == "lo:")


def kill_one(engine: Engine, out: Path) -> threading.Thread:
    """Kill a worker as soon as a photo is described."""
    process = min(engine.client.run(os.getpid).values())

    def wait_and_kill() -> None:
        while not any(out.rglob("[!.]*.npz")):
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


@command_line("cluster")
def main(
    data: Data,
    photos: int = 40,
    workers: str = "1,2",
    ours: str = "bingan256",
    max_size: int = 0,
    threads: int | None = None,
    out: Out = RESULTS / "cluster.json",
) -> int:
    """Describe and match with each number of workers.

    Args:
        photos: how many of them.
        workers: numbers of processes, separated by commas.
        max_size: as of bingan describe.
        threads: of this process; all cores by default.
    """
    use_threads(usable_cores() if threads is None else threads)
    names = list_images(data)[0][:photos]
    if len(names) < 2:
        raise UsageError(f"{data} has {len(names)} photos for this; two are needed")
    weights = find_weights(ours)
    if not all(word.isdecimal() and int(word) for word in workers.split(",")):
        raise UsageError(f"--workers is '{workers}'; give numbers from 1 with commas between")
    counts = [0, *sorted(map(int, workers.split(",")))]
    rows: list[dict[str, Any]] = []
    fault: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        expected: dict[str, str] = {}
        for count in counts:
            before, started = loopback_bytes(), time.perf_counter()
            with open_engine(weights, [data, Path(folder)], count) as engine:
                start = {"start_s": round(time.perf_counter() - started, 2), "start_bytes": loopback_bytes() - before}
                of_empty = round(empty_unit_ms(engine, EMPTY_UNITS), 3)
                done = describe_and_match(engine, data, names, Path(folder) / str(count), max_size)
                expected = expected or done["files"]
                rows.append(
                    {
                        "workers": count,
                        **start,
                        **{f"{stage}_s": value for stage, value in done["seconds"].items()},
                        "empty_unit_ms": of_empty,
                        "bytes": done["bytes"],
                        "units": len(done["files"]),
                        "same_bytes": done["files"] == expected,
                    }
                )
                print(rows[-1], file=sys.stderr, flush=True)
                if count == counts[-1]:
                    killed = Path(folder) / "killed"
                    killer = kill_one(engine, killed)
                    done = describe_and_match(engine, data, names, killed, max_size)
                    killer.join()
                    fault = {"workers": count, "killed": 1, **done["seconds"], "same_bytes": done["files"] == expected}
    size = f" --max-size {max_size}" if max_size else ""
    about = f"--photos {len(names)} --workers {workers} --ours {weights.stem}{size}"
    record = {
        "protocol": "cluster",
        "command": f"python -m eval cluster {data.name} {about}",
        "photos": len(names),
        "max_keypoints": MAX_KEYPOINTS,
        "weights_bytes": weights.stat().st_size,
        "results": rows,
        "fault": fault,
        "provenance": provenance(weights),
    }
    write_json(out, record)
    print(text_of(COLUMNS, rows_of(record)))
    return int(not fault["same_bytes"] or not all(row["same_bytes"] for row in rows))
