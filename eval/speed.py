"""How many keypoints a second each descriptor describes, all in one run.

    python -m eval speed PHOTO [--peers rootsift,orb] [--ours bingan256,bingan256-lite] [--threads 1]

Protocol. One picture, its strongest DoG keypoints (``MAX_KEYPOINTS``), whose detection is not counted. Every descriptor
describes them once to warm up, then ``REPEATS`` times in turn with all others, so that a slow moment of the machine
hits all of them; the median counts. Network peers are run as they are shipped, in float32.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from eval import options
from eval.options import peer_folder
from eval.peers import PEERS, load_peers, ours
from kornia_bingan.errors import UsageError
from kornia_bingan.files import write_json
from kornia_bingan.images import read_image
from kornia_bingan.keypoints import detect
from kornia_bingan.provenance import provenance
from kornia_bingan.report import text_table
from kornia_bingan.weights import find_weights

MAX_KEYPOINTS = 4000
REPEATS = 5


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m eval speed")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--peer-weights", type=Path, default=None)
    parser.add_argument("--ours", default="bingan256", help="shipped names or weights files, separated by commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=options.RESULTS / "speed.json")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        raise UsageError(f"--repeats is {arguments.repeats}; give 1 or more")
    options.use_threads(arguments.threads)
    image = read_image(arguments.photo)
    keypoints = detect(image, "dog", MAX_KEYPOINTS)
    if not len(keypoints):
        raise UsageError(f"{arguments.photo} has no keypoints; give a photo with some texture")
    names = [name for name in arguments.peers.split(",") if name]
    peers, absent = load_peers(names, arguments.peer_weights or peer_folder(arguments.photo.resolve().parent))
    for name in arguments.ours.split(","):
        peers.append(ours(name)[0])
    seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for turn in range(arguments.repeats + 1):
        for peer in peers:
            started = time.perf_counter()
            peer.describe(image, keypoints)
            if turn:
                seconds[peer.name].append(time.perf_counter() - started)
    results = []
    for peer in peers:
        median = float(np.median(seconds[peer.name]))
        results.append(
            {
                "descriptor": peer.name,
                "bytes": peer.num_bytes,
                "seconds": round(median, 5),
                "least_seconds": round(min(seconds[peer.name]), 5),
                "keypoints_per_second": round(len(keypoints) / median, 1),
            }
        )
    print(text_table(list(results[0]), [[str(value) for value in row.values()] for row in results]))
    words = f"--peers {arguments.peers} " if names != list(PEERS) else ""
    record = {
        "protocol": "speed",
        "command": f"python -m eval speed PHOTO {words}--ours {arguments.ours} --threads {arguments.threads}",
        "keypoints": len(keypoints),
        "image_size": [image.shape[1], image.shape[0]],
        "threads": arguments.threads,
        "results": results,
        "absent": absent,
        "provenance": provenance(find_weights(arguments.ours.split(",")[0])),
    }
    write_json(arguments.out, record)
    return 0
