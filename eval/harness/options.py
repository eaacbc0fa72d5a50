"""Options that the matching protocols share, and what they stand for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from eval.harness.ours import load_ours, name_of_weights
from eval.harness.peers import PEERS, Peer, load_peers
from eval.harness.records import check_clean
from kornia_bingan import BinGAN
from kornia_bingan.errors import UsageError
from kornia_bingan.network.weights import find_weights
from kornia_bingan.work.memory import keep_freed_memory
from kornia_bingan.work.provenance import provenance

RESULTS = Path("eval/results")
CACHE = Path("bench/cache")
PEER_SUPPORT = RESULTS / "peer-support.json"
"""Record of ``python -m eval peer_support``: the support region that suits each peer on the validation scenes."""
REGIONS = ("both", "usual")


@dataclass(frozen=True, eq=False)
class Setup:
    """What a run compares, and where it keeps things.

    Attributes:
        data: folder of the data.
        only: names of scenes or sequences; empty for all.
        peers: descriptors that can run here, ours last.
        absent: name and reason of those that cannot.
        cache: folder, or None.
        out: JSON file to write.
        command: the options after ``python -m eval NAME DATA`` that decide the numbers.
        ours: names and paths of our weights.
    """

    data: Path
    only: tuple[str, ...]
    peers: tuple[Peer, ...]
    absent: dict[str, str]
    cache: Path | None
    out: Path
    command: str
    ours: tuple[str, ...]

    def record(self, protocol: str, seed: int | None = None) -> dict[str, Any]:
        """Give the part of a result file that is the same in every protocol."""
        about = {peer.name: {**peer.identity(), "num_bytes": peer.num_bytes} for peer in self.peers}
        for row in about.values():
            del row["versions"]  # in the provenance
        weights = find_weights(self.ours[0]) if self.ours else None
        return {
            "protocol": protocol,
            "command": f"python -m eval {protocol} DATA/{self.data.name} {self.command}".rstrip(),
            "peers": about,
            "absent": self.absent,
            "provenance": provenance(weights, seed),
        }


def parser(protocol: str, description: str) -> argparse.ArgumentParser:
    """Build the parser of a protocol with the shared options."""
    built = argparse.ArgumentParser(prog=f"python -m eval {protocol}", description=description)
    built.add_argument("data", type=Path, help="folder of a split, such as DATA/validate")
    built.add_argument("--only", default="", help="names of scenes and sequences, separated by commas; all by default")
    built.add_argument("--peers", default=",".join(PEERS), help="separated by commas; all by default, none for none")
    built.add_argument("--peer-weights", type=Path, help="folder; peers/ beside or above the data by default")
    add_regions(built)
    built.add_argument("--ours", default="bingan256", help="shipped names or weights files, separated by commas")
    built.add_argument("--cache", type=Path, default=CACHE)
    built.add_argument("--no-cache", action="store_true", help="compute everything anew and keep nothing")
    built.add_argument("--threads", type=int, default=1)
    built.add_argument("--out", type=Path, help=f"JSON file; {RESULTS}/{protocol}-SPLIT.json by default")
    return built


def add_regions(built: argparse.ArgumentParser) -> None:
    """Add the options that say with which support regions peers are measured."""
    text = "support regions of peers: as people use them and at their best on the validation scenes, or the first only"
    built.add_argument("--regions", choices=REGIONS, default="both", help=text)
    built.add_argument("--support", type=Path, default=PEER_SUPPORT, help="record of python -m eval peer_support")


def regions_words(arguments: argparse.Namespace) -> str:
    """Give what a command says about support regions, with a space before it; nothing by default."""
    return "" if arguments.regions == "both" else f" --regions {arguments.regions}"


def best_sides(path: Path) -> dict[str, float]:
    """Read the best side, in sigma, of those peers for which it is not the one that people use.

    Raises:
        UsageError: the record is absent or is none.
    """
    if not path.is_file():
        raise UsageError(
            f"{path} is not there; python -m eval peer_support DATA/validate makes it, --regions usual does without"
        )
    try:
        chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"]
        return {n: float(about["best"]) for n, about in chosen.items() if about["best"] != about["usual"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no record of python -m eval peer_support ({error}); make it again") from error


def with_regions(names: Sequence[str], regions: str, support: Path) -> list[str]:
    """Name each peer as people use it and, after it, at its best; a name with a side stays as it is.

    Raises:
        UsageError: the record of support regions is needed and cannot be read.
    """
    if regions == "usual" or all("@" in name for name in names):
        return list(names)
    best = best_sides(support)
    built: list[str] = []
    for name in names:
        built += [name, f"{name}@{best[name]:g}"] if name in best else [name]
    return list(dict.fromkeys(built))


def setup(protocol: str, arguments: argparse.Namespace) -> Setup:
    """Check the shared options and load the peers.

    Raises:
        UsageError: the data folder does not exist, a name is unknown or given twice, or weights are unusable.
    """
    data: Path = arguments.data
    if not data.is_dir():
        raise UsageError(f"{data} is no folder; give the folder of a split, such as DATA/validate")
    use_threads(arguments.threads)
    names = [] if arguments.peers == "none" else _words(arguments.peers)
    names = with_regions(names, arguments.regions, arguments.support)
    found, absent = load_peers(names, arguments.peer_weights or peer_folder(data))
    mine = tuple(_words(arguments.ours))
    for name in mine:
        found += load_ours(name)
    known = [peer.name for peer in found]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise UsageError(f"two descriptors are called {twice[0]}; rename a weights file or its folder")
    if not found:
        raise UsageError("no descriptor is left to measure; give --peers or --ours")
    out = arguments.out or RESULTS / f"{protocol}-{data.resolve().name}.json"
    check_clean(out)
    cache = None if arguments.no_cache else arguments.cache
    only = tuple(_words(arguments.only))
    asked = {
        "--only": arguments.only,
        "--peers": arguments.peers,
        "--regions": arguments.regions if names else "",
        "--ours": ",".join(Path(name).name for name in mine),
    }
    defaults = parser(protocol, "").parse_args([str(data)])
    words = [f"{k} {v}" for k, v in asked.items() if v and v != getattr(defaults, k.removeprefix("--"))]
    return Setup(data, only, tuple(found), absent, cache, out, " ".join(words), mine)


def use_threads(count: int) -> None:
    """Let torch and OpenCV use so many threads, and keep freed memory.

    Raises:
        UsageError: the count is below 1.
    """
    if count < 1:
        raise UsageError(f"--threads is {count}; give 1 or more")
    keep_freed_memory()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def load_models(names: Sequence[str]) -> dict[str, BinGAN]:
    """Load our descriptors, named by :func:`name_of_weights`.

    Raises:
        UsageError: there are no such weights.
    """
    models = {}
    for given in names:
        model = BinGAN.from_pretrained(given)
        models[name_of_weights(find_weights(given))] = model
    return models


def rows_of_runs(
    paths: Sequence[Path], protocol: str, read_run: Callable[[Path], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Read run folders, and JSON files of a protocol that compares runs for all of their rows.

    Raises:
        UsageError: a file is no result of the protocol, or two runs have one name.
    """
    rows: list[dict[str, Any]] = []
    for path in paths:
        if not path.is_file():
            rows.append(read_run(path))
            continue
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path} is no JSON file: {error}") from error
        if stored.get("protocol") != protocol:
            raise UsageError(f"{path} is no result of 'python -m eval {protocol}'; give run folders or such a file")
        rows += stored["results"]
    names = [row["run"] for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two runs are called {twice[0]}; rename a folder")
    return rows


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def peer_folder(data: Path) -> Path:
    """The nearest folder ``peers`` beside the data or above; where there is none, its first place."""
    places = [parent / "peers" for parent in [data.resolve(), *data.resolve().parents][:4]]
    return next((place for place in places if place.is_dir()), places[1])
