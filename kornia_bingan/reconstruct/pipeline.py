"""A folder of photos becomes a sparse model: describe, match, verify, map.

Every stage reads files and writes files, each of which appears whole or not at all, so a run that is killed at any
moment is resumed by the same command and ends with the same model:

    OUT/run.json              what was asked: options, checksums of the weights and of the photos
    OUT/features/PHOTO.npz    one per photo: keypoints and codes
    OUT/matches/000000.npz    one for 64 pairs of photos
    OUT/unverified.db         COLMAP's database while pairs are verified, then
    OUT/database.db
    OUT/model/                COLMAP's binary files of the largest model
    OUT/points.ply            its points
    OUT/models/1/             those of the second largest, where photos show several places; and so on
    OUT/summary.json          the numbers; the run is finished
    OUT/next/                 results with photos that were added since, until they are finished
    OUT/log/                  bingan.txt: stages, skipped files, warnings; the others: the end of what COLMAP said
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kornia_bingan.colmap.types import Model
from kornia_bingan.errors import JobError
from kornia_bingan.images.exif import read_exif
from kornia_bingan.images.folders import Skipped, list_images, log_skipped, no_photos, without_copies
from kornia_bingan.images.masks import find_masks
from kornia_bingan.images.read import image_header, sample_ranges
from kornia_bingan.reconstruct.cameras import check_names, check_sizes, poses_checksum, with_poses, without_base
from kornia_bingan.reconstruct.describe import describe_photos
from kornia_bingan.reconstruct.features import Features, features_path
from kornia_bingan.reconstruct.matches import match_photos
from kornia_bingan.reconstruct.models import LARGEST, in_no_model, log_models, map_photos, photos_of_models, place_of
from kornia_bingan.reconstruct.options import ReconstructOptions, check_options, context_for, words_for
from kornia_bingan.reconstruct.pairs import Pair, Way, choose_pairs, parse_choice, read_pairs
from kornia_bingan.reconstruct.run import Matched, Run
from kornia_bingan.reconstruct.summary import ModelPhotos, PairStatistics, Summary
from kornia_bingan.reconstruct.update import finish, matched_pairs, place_for
from kornia_bingan.reconstruct.verify import verify_pairs
from kornia_bingan.work.engine import open_engine
from kornia_bingan.work.files import printable, sha256_of
from kornia_bingan.work.provenance import versions
from kornia_bingan.work.run_folder import LOG, LOG_FILE, Stopwatch, TimeLimit, checksums, log_to, open_run


def reconstruct_photos(photos: Path, out: Path, options: ReconstructOptions | None = None) -> Summary:
    """Reconstruct the photos of a folder.

    Args:
        photos: folder of photos, searched recursively; what cannot be read is skipped and listed.
        out: folder of the results (see the module's docstring), absent or empty, or a run with the same options, which
            is resumed; a finished one of the same photos gives its summary again, of other photos it goes on with them
            (see :mod:`kornia_bingan.reconstruct.update`).
        options: see :class:`ReconstructOptions`.

    Returns:
        What ``summary.json`` holds.

    Raises:
        UsageError: there are no photos, an option is impossible, or ``out`` holds something else.
        JobError: fewer than two photos are usable, they do not give a model (with what matching found), the time limit
            was reached, or COLMAP crashed.
    """
    from kornia_bingan.network.weights import find_weights

    options = options or ReconstructOptions()
    photos, out = Path(photos), Path(out)
    limit = TimeLimit(options.work.time_limit)
    check_options(options)
    names, passed_over = list_images(photos, options.features.masks)
    if not names:
        raise no_photos(photos, passed_over)
    check_names(names, options.cameras)
    weights = find_weights(options.features.descriptor)
    masks = {} if options.features.masks is None else find_masks(photos, names, options.features.masks)
    sums = checksums(photos, names)
    told = {path.resolve() for path in (options.cameras.cameras, options.cameras.rig) if path is not None}
    passed_over = [item for item in passed_over if (photos / item.name).resolve() not in told]
    ways = parse_choice(options.pairs)
    posed, poseless = with_poses(names, options.cameras)
    names, copies = without_copies(posed, sums)
    check_sizes(photos, names, options.cameras)
    listed = read_pairs(options.pairs, [*names, *(item.name for item in poseless)]) if ways is None else []
    identity = _identity(options, weights, listed, sums, masks)
    with open_run(out, identity, other_photos=True), log_to(out / LOG_FILE):
        place, base = place_for(out, identity, names)
        if options.cameras.rig is not None:  # a rig with more photos is no longer that of the older database
            base = None
        if (place / "summary.json").exists():
            return Summary.read(place / "summary.json")
        run = Run(photos, out, place, base, options, weights, masks, limit, Stopwatch(place / "seconds.json"))
        matched = _describe_and_match(run, names, [*passed_over, *poseless, *copies], ways, listed)
        with run.watch.stage("verify"):
            verification = verify_pairs(run, matched)
        statistics = PairStatistics(
            tried=len(matched.pairs),
            matched=verification.pairs,
            verified=verification.verified,
            rejected=verification.rejected,
            matches=verification.matches,
            inliers=sum(verification.inliers.values()),
        )
        with run.watch.stage("map"):
            model = map_photos(run, len(matched.features), statistics)
            models = photos_of_models(place, model)
            unregistered = in_no_model(matched.features, models, matched.pairs, verification)
        log_models(models, unregistered)
        summary = _summary(run, matched, statistics, model, models, unregistered)
        finish(summary, place, out)
        return summary


def _identity(
    options: ReconstructOptions,
    weights: Path,
    pairs: Sequence[Pair],
    photos: Mapping[str, str],
    masks: Mapping[str, Path],
) -> dict[str, Any]:
    values = asdict(options)
    values |= values.pop("features") | values.pop("cameras") | values.pop("matches")
    for name in ("descriptor", "work"):
        del values[name]
    values["masks"] = {name: sha256_of(path) for name, path in masks.items()}
    values["cameras"] = None if options.cameras.cameras is None else sha256_of(options.cameras.cameras)
    values["rig"] = None if options.cameras.rig is None else sha256_of(options.cameras.rig)
    values["poses"] = poses_checksum(options.cameras)
    if parse_choice(options.pairs) is None:
        lines = "\n".join("\t".join(pair) for pair in pairs)
        values["pairs"] = f"a list with SHA-256 {hashlib.sha256(lines.encode()).hexdigest()[:16]}"
    return {"format": 1, **values, "weights_sha256": sha256_of(weights), "photos": photos}


def _summary(
    run: Run,
    matched: Matched,
    statistics: PairStatistics,
    model: Model,
    models: list[ModelPhotos],
    unregistered: Sequence[Skipped],
) -> Summary:
    usable = matched.features
    return Summary(
        images=len(usable),
        registered=len(model.names),
        points=len(model.xyz),
        observations=model.observations,
        mean_track_length=round(model.mean_track_length, 4),
        mean_reprojection_error_px=round(model.mean_reprojection_error_px, 4),
        seconds=run.watch.seconds,
        descriptor=run.weights.stem,
        sha256=sha256_of(run.weights),
        versions=versions(),
        skipped=[asdict(item) for item in matched.skipped],
        pairs=statistics,
        unreadable=matched.unreadable,
        masked=sum(name in run.masks for name in usable),
        chosen=matched.chosen,
        turned=sum(image_header(run.photos / name).orientation != 1 for name in usable),
        photos=str(run.photos.resolve()),
        unplaced=matched.unplaced,
        matcher=words_for(run.options.matches, context_for(run.options.matches, run.weights)),
        models=models,
        unregistered=[asdict(item) for item in unregistered],
        place=place_of(run.out / LARGEST),
    )


def _describe_and_match(
    run: Run, names: Sequence[str], passed_over: Sequence[Skipped], ways: Sequence[Way] | None, listed: Sequence[Pair]
) -> Matched:
    photos, home, options = run.photos, run.home, run.options
    with ExitStack() as until_matched:
        with run.watch.stage("describe"):
            shared = [photos, home / "run.json", *([options.features.masks] if options.features.masks else [])]
            engine = until_matched.enter_context(
                open_engine(run.weights, shared, options.work.workers, options.work.scheduler)
            )
            unread = describe_photos(
                photos, names, home / "features", engine, options.features, limit=run.limit, masks=run.masks
            )
        usable, skipped = _usable(names, [*passed_over, *unread], home / "features")
        log_skipped(skipped)
        if len(usable) < 2:
            why = "".join(f"; {item.name}: {item.reason}" for item in skipped[:3])
            why += f"; {len(skipped) - 3} others are named in {home / LOG_FILE}" if len(skipped) > 3 else ""
            why += run.kept()
            raise JobError(f"{photos} has {len(usable)} usable photos, two that overlap are needed{why}")
        with run.watch.stage("match"):
            pairs, chosen, unplaced = _choose(ways, listed, photos, usable)
            pairs = without_base(pairs, options.cameras)
            known = set() if run.base is None else matched_pairs(run.base / "database.db")
            new = [pair for pair in pairs if frozenset(pair) not in known]
            match_photos(
                *(new, home / "features", home / "matches", options.matches.ratio, engine, run.limit),
                context=context_for(options.matches, run.weights),
                photos=(photos, sample_ranges(photos, names, say=False)) if options.matches.align else None,
            )
    kept = known - {frozenset(pair) for pair in pairs}  # by other photos beside them no longer chosen
    return Matched(usable, skipped, len(unread), [*pairs, *sorted(map(_pair, kept))], chosen, unplaced)


def _pair(pair: frozenset[str]) -> Pair:
    first, second = sorted(pair)
    return first, second


def _usable(names: Sequence[str], unread: Sequence[Skipped], folder: Path) -> tuple[dict[str, Features], list[Skipped]]:
    """Read the features of all photos that have keypoints; the other photos join what was skipped."""
    without = {item.name for item in unread}
    features = {name: Features.read(features_path(folder, name)) for name in names if name not in without}
    empty = [Skipped(name, "no keypoints were found") for name, found in features.items() if len(found.keypoints) == 0]
    usable = {name: found for name, found in features.items() if len(found.keypoints)}
    return usable, sorted([*unread, *empty], key=lambda item: item.name)


def _choose(
    ways: Sequence[Way] | None, listed: Sequence[Pair], photos: Path, usable: Mapping[str, Features]
) -> tuple[list[Pair], dict[str, int], list[str]]:
    """Give the pairs, their numbers by the way they were chosen, and the photos in which gps misses a position."""
    if ways is None:
        pairs = [pair for pair in listed if pair[0] in usable and pair[1] in usable]
        return pairs, {"listed": len(pairs)}, []
    with_gps = usable if any(kind == "gps" for kind, _ in ways) else {}
    said = {name: read_exif(photos / name).position for name in with_gps}
    positions = {name: position for name, position in said.items() if position is not None}
    chosen, by_way = choose_pairs(ways, {name: found.codes for name, found in usable.items()}, positions)
    unplaced = [name for name in with_gps if name not in positions]
    for name in unplaced:
        LOG.warning("%s does not say where it was taken: paired with similar photos instead", printable(name))
    if level := sum(position[2] is None for position in positions.values()):
        LOG.warning("%d photos say no altitude: their distances are those on the ground", level)
    return chosen, by_way, unplaced
