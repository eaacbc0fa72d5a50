"""Options that the matching protocols share, and what they stand for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import torch

from eval.harness.command import Names
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
PEER_DATA = Path("../shared/data/peers")


@dataclass(frozen=True)
class RegionOptions:
    """With which support regions peers are measured.

    Attributes:
        regions: support regions of peers: as people use them and at their best on the validation scenes, or the first
            only.
        support: record of python -m eval peer_support.
    """

    regions: Literal["both", "usual"] = "both"
    support: Path = PEER_SUPPORT

    def words(self) -> str:
        """Give what a command says about support regions, with a space before it; nothing by default."""
        return "" if self.regions == "both" else f" --regions {self.regions}"

    def best_sides(self) -> dict[str, float]:
        """Give the best sides, see :func:`best_sides`; none where peers are measured as people use them only."""
        return {} if self.regions == "usual" else best_sides(self.support)


@dataclass(frozen=True)
class CacheOptions:
    """What is kept.

    Attributes:
        cache: folder of what was computed before.
        no_cache: compute everything anew and keep nothing.
    """

    cache: Path = CACHE
    no_cache: bool = False

    def place(self) -> Path | None:
        """Give the folder, or None."""
        return None if self.no_cache else self.cache


@dataclass(frozen=True)
class WorkOptions(CacheOptions):
    """How the work is done.

    Attributes:
        threads: of torch and OpenCV.
    """

    threads: int = 1

    def begin(self) -> Path | None:
        """Use the threads, and give the folder of the cache, or None.

        Raises:
            UsageError: the number of threads is below 1.
        """
        use_threads(self.threads)
        return self.place()


@dataclass(frozen=True)
class PatchOptions(RegionOptions, WorkOptions):
    """What the protocols on patches share.

    Attributes:
        ours: shipped names or weights files.
        out: JSON file.
    """

    ours: tuple[str, ...] = ("bingan256",)
    out: Path | None = None


@dataclass(frozen=True)
class PeerOptions:
    """Which descriptors are compared.

    Attributes:
        peers: names in eval/harness/peers.py, separated by commas.
        peer_weights: folder; peers/ beside or above the data by default.
        ours: shipped names or weights files, separated by commas.
    """

    peers: Names = tuple(PEERS)
    peer_weights: Path | None = None
    ours: Names = ("bingan256",)


@dataclass(frozen=True)
class MatchingOptions(PeerOptions, RegionOptions, WorkOptions):
    """What the protocols on pictures share.

    Attributes:
        only: names of scenes and sequences, separated by commas; all by default.
        out: JSON file; eval/results/NAME-SPLIT.json by default.
    """

    only: Names = ()
    out: Path | None = None


OURS_ALONE = MatchingOptions(peers=("none",))


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


def setup(protocol: str, data: Path, options: MatchingOptions) -> Setup:
    """Check the shared options and load the peers.

    Raises:
        UsageError: the data folder does not exist, a name is unknown or given twice, or weights are unusable.
    """
    if not data.is_dir():
        raise UsageError(f"{data} is no folder; give the folder of a split, such as DATA/validate")
    cache = options.begin()
    names = () if options.peers == ("none",) else options.peers
    found, absent = load_peers(
        with_regions(names, options.regions, options.support), options.peer_weights or peer_folder(data)
    )
    for name in options.ours:
        found += load_ours(name)
    known = [peer.name for peer in found]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise UsageError(f"two descriptors are called {twice[0]}; rename a weights file or its folder")
    if not found:
        raise UsageError("no descriptor is left to measure; give --peers or --ours")
    out = options.out or RESULTS / f"{protocol}-{data.resolve().name}.json"
    check_clean(out)
    words = []
    for name, value, default in (
        ("only", options.only, ()),
        ("peers", options.peers, MatchingOptions.peers),
        ("regions", (options.regions,) if names else (), (MatchingOptions.regions,)),
        ("ours", tuple(Path(given).name for given in options.ours), MatchingOptions.ours),
    ):
        words += [f"--{name} {','.join(value)}"] if value and value != default else []
    return Setup(data, options.only, tuple(found), absent, cache, out, " ".join(words), options.ours)


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


def peer_folder(data: Path) -> Path:
    """The nearest folder ``peers`` beside the data or above; where there is none, its first place."""
    places = [parent / "peers" for parent in [data.resolve(), *data.resolve().parents][:4]]
    return next((place for place in places if place.is_dir()), places[1])
