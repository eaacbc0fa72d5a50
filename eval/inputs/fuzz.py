"""Mutated files through everything that reads files: no crash, no hang, nothing half-written.

    python -m eval fuzz [--count 20000] [--seed 0] [--keep FOLDER] [--out FILE.json]

Protocol. Small valid files of each kind (JPEG, PNG, TIFF, WebP, BMP, PPM, AVIF, weights, a COLMAP database, features)
are mutated at random: bytes flipped, set, removed, repeated, cut off, numbers made extreme. A reader must return or
raise the package's own errors within ``LIMIT_S`` seconds; its folder must then hold the files that it held before. All
run in one process, so that an abort of a library would end the run.
"""

from __future__ import annotations

import io
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from eval.harness.columns import numbers, text_of
from eval.harness.command import Out, command_line
from eval.harness.options import RESULTS
from eval.harness.records import write_json
from kornia_bingan import PatchTrunk, colmap
from kornia_bingan.datasets.rendered import draw_texture
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.images.exif import read_exif
from kornia_bingan.images.read import image_size, read_image
from kornia_bingan.keypoints import detect
from kornia_bingan.network.weights import load_weights, save_weights
from kornia_bingan.reconstruct.features import Features
from kornia_bingan.work.provenance import provenance

LIMIT_S = 20.0
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80")

Reader = Callable[[Path], object]


COLUMNS = numbers(kind="kind", files="files", read="read", refused="refused", faults="faults")


class _TooSlowError(Exception):
    pass


def seeds(folder: Path) -> dict[str, tuple[bytes, str, list[Reader]]]:
    """Make a valid file of each kind: its bytes, its extension and what reads it."""
    picture = draw_texture(48, 64, np.random.default_rng(0))
    colour = np.dstack([picture, picture[::-1], picture[:, ::-1]])
    found: dict[str, tuple[bytes, str, list[Reader]]] = {}
    pictures: list[Reader] = [read_image, image_size, read_exif]
    for extension in (".jpg", ".png", ".tif", ".webp", ".bmp", ".ppm"):
        found[extension[1:]] = (cv2.imencode(extension, colour)[1].tobytes(), extension, pictures)
    exif = Image.Exif()
    exif[274] = 6
    exif.get_ifd(0x8769)[0xA405] = 28
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (2.0, 0.0, 36.0)})
    for kind, name in (("JPEG", "exif"), ("AVIF", "avif")):
        buffer = io.BytesIO()
        Image.fromarray(colour).save(buffer, kind, exif=exif)
        found[name] = (buffer.getvalue(), f".{name}" if name == "avif" else ".jpg", pictures)
    weights, features, database = folder / "w.safetensors", folder / "f.npz", folder / "d.db"
    save_weights(weights, PatchTrunk(layers=((2, 2), (2, 2))), {})
    found["weights"] = (weights.read_bytes(), ".safetensors", [load_weights])
    keypoints = detect(draw_texture(160, 200, np.random.default_rng(0)), "dog", 40)
    Features((200, 160), keypoints, np.zeros((len(keypoints), 32), np.uint8)).write(features)
    found["features"] = (features.read_bytes(), ".npz", [Features.read])
    colmap.write_features(database, {"a": keypoints, "b": keypoints}, colmap.Camera(200, 160))
    rows = np.repeat(np.arange(len(keypoints), dtype=np.uint32)[:, None], 2, 1)
    colmap.write_matches(database, {("a", "b"): rows}, verification=False)
    found["database"] = (database.read_bytes(), ".db", [colmap.read_features, colmap.read_verification])
    return found


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a file at one to eight places."""
    mutated = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not mutated:
            break
        # Headers stand in front: half of the changes go there.
        reach = len(mutated) if rng.random() < 0.5 else min(len(mutated), 256)
        place, length = int(rng.integers(reach)), int(rng.integers(1, 17))
        kind = int(rng.integers(6))
        if kind == 0:
            mutated[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            mutated[place] = int(rng.integers(256))
        elif kind == 2:
            del mutated[place : place + length]
        elif kind == 3:
            mutated[place:place] = mutated[place : place + length]
        elif kind == 4:
            mutated[place : place + 4] = EXTREMES[int(rng.integers(len(EXTREMES)))]
        elif rng.random() < 0.3:
            del mutated[place:]
    return bytes(mutated)


def outcome(read: Reader, path: Path) -> str:
    """Say how a reader took a file: read, refused, or what went wrong."""
    before = sorted(path.parent.iterdir())
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        read(path)
        result = "read"
    except (UsageError, JobError):
        result = "refused"
    except _TooSlowError:
        result = f"hang: more than {LIMIT_S:g} s"
    except Exception as error:
        result = f"crash: {type(error).__name__}: {error}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    left = [other.name for other in sorted(path.parent.iterdir()) if other not in before]
    return f"left behind: {', '.join(left)}" if left else result


@command_line("fuzz")
def main(count: int = 20_000, seed: int = 0, keep: Path | None = None, out: Out = RESULTS / "fuzz.json") -> int:
    """Read mutated files.

    Args:
        keep: folder for the files that were not taken well.
    """
    if count < 1:
        raise UsageError(f"--count is {count}; give 1 or more")

    def too_slow(_signal: int, _frame: FrameType | None) -> None:
        raise _TooSlowError

    signal.signal(signal.SIGALRM, too_slow)
    started = time.monotonic()
    counts: dict[str, dict[str, int]] = {}
    faults: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        kinds = seeds(Path(folder))
        place = Path(folder) / "fuzz"
        place.mkdir()
        for number in range(count):
            kind = list(kinds)[number % len(kinds)]
            data, extension, readers = kinds[kind]
            rng = np.random.default_rng([seed, number])
            path = place / f"mutated{extension}"
            path.write_bytes(mutate(data, rng))
            of_kind = counts.setdefault(kind, {"files": 0, "read": 0, "refused": 0, "faults": 0})
            of_kind["files"] += 1
            outcomes = [outcome(read, path) for read in readers]
            bad = [what for what in outcomes if what not in ("read", "refused")]
            of_kind["faults" if bad else outcomes[0]] += 1
            if bad:
                faults.append({"kind": kind, "number": number, "what": bad[0]})
                print(json.dumps(faults[-1]), file=sys.stderr, flush=True)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{number}{extension}").write_bytes(path.read_bytes())
            for other in place.iterdir():
                other.unlink()
    results = [{"kind": kind, **numbers} for kind, numbers in counts.items()]
    print(text_of(COLUMNS, results))
    record = {
        "protocol": "fuzz",
        "command": f"python -m eval fuzz --count {count} --seed {seed}",
        "results": results,
        "faults": faults,
        "seconds": round(time.monotonic() - started, 1),
        "provenance": provenance(seed=seed),
    }
    write_json(out, record)
    return int(bool(faults))
