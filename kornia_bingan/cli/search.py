"""The commands of ``bingan`` that find photos, or prepare others to do so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from kornia_bingan.cli.arguments import Index, Json, Photos, Picture, TextFile
from kornia_bingan.cli.results import print_result
from kornia_bingan.errors import UsageError
from kornia_bingan.work.memory import keep_freed_memory
from kornia_bingan.work.options import DescribeOptions, WeightsOptions, WorkersOptions

THOUSAND_KEYPOINTS = DescribeOptions(max_keypoints=1000)
OF_PICTURES = "bingan64-pictures"


def index(
    folder: Photos,
    index: Index,
    weights: WeightsOptions,
    work: WorkersOptions,
    code: Literal["keypoints", "patch", "picture"] | None = None,
    json: Json = False,
) -> int:
    """Index a folder of photos, to be searched by bingan search; run it again to bring the index up to date.

    Args:
        folder: folder of photos, searched recursively, or a URL such as s3://BUCKET/PHOTOS, fetched to INDEX.photos/.
        index: folder of the index, or lancedb://PATH-or-URL to scale out (lancedb://s3://bucket/index); run the
            command again to resume after a kill.
        code: keypoints for photos of one place; patch for small pictures that are nearly the same, such as icons,
            thumbnails and products, each described as one patch; picture for small pictures that show the same kind of
            thing, by bingan64-pictures. None is keypoints, or picture if the weights are of pictures.
    """
    from kornia_bingan.images.fetch import local_photos
    from kornia_bingan.report.text import skipped_lines, text_table
    from kornia_bingan.search.index import LANCEDB, update_index

    keep_freed_memory()
    place = index.removeprefix(LANCEDB)
    if "://" in place and "://" in folder:
        raise UsageError(
            f"photos of a URL are fetched beside the index, but {index} is no folder; give a folder of photos"
        )
    photos = local_photos(folder, Path(place))
    whole = code == "picture" and weights == WeightsOptions()
    descriptor = OF_PICTURES if whole else weights.descriptor
    summary = update_index(photos, index, descriptor, kind=code, **vars(work))
    values = dataclasses.asdict(summary)
    skipped = [{"name": item.name, "reason": item.reason} for item in summary.skipped]
    rows = [[name, f"{value:,}"] for name, value in values.items() if name != "skipped"]
    rows.append(["skipped", f"{len(skipped):,}"])
    print_result({**values, "skipped": skipped}, text_table(["", "count"], rows) + skipped_lines(skipped), json)
    return 0


def search(
    index: Index,
    picture: Picture,
    top: int = 20,
    out: Path | None = None,
    descriptor: str | None = None,
    json: Json = False,
) -> int:
    """Find the photos of an index that are most similar to a picture.

    Args:
        index: what bingan index was given.
        picture: any picture.
        top: how many photos.
        out: HTML page with their thumbnails.
        descriptor: weights file, if the index was made with weights that are not shipped.
    """
    from kornia_bingan.report.text import text_table
    from kornia_bingan.search.index import search_index

    keep_freed_memory()
    found = search_index(index, picture, top, descriptor)
    if out is not None:
        from kornia_bingan.search.page import write_search_page

        write_search_page(out, picture, index, found)
    rows = [[one.name, str(one.distance)] for one in found]
    values = {"found": [dataclasses.asdict(one) for one in found]}
    print_result(values, text_table(["photo", "distance (bits)"], rows), json)
    return 0


def duplicates(
    index: Index,
    most: int | None = None,
    out: Path | None = None,
    json: Json = False,
) -> int:
    """Find groups of near duplicates among the pictures of an index, best one of bingan index --code patch.

    Args:
        index: what bingan index was given.
        most: bits in which the codes of two photos may differ; each photo of a group is so near to one other of it.
            None takes what suits --code patch.
        out: HTML page with the groups.
    """
    from kornia_bingan.report.text import text_table
    from kornia_bingan.search.duplicates import find_duplicates

    groups = find_duplicates(index, most)
    if out is not None:
        from kornia_bingan.search.page import write_duplicates_page

        write_duplicates_page(out, index, groups)
    rows = [
        [str(number), name, str(distance)]
        for number, group in enumerate(groups, 1)
        for name, distance in zip(group.names, group.distances, strict=True)
    ]
    values = {"groups": [dataclasses.asdict(group) for group in groups]}
    print_result(values, text_table(["group", "photo", "bits from the first"], rows), json)
    return 0


def vocabulary(
    photos: Photos,
    out: TextFile,
    work: WorkersOptions,
    features: DescribeOptions = THOUSAND_KEYPOINTS,
    branches: int = 10,
    levels: int = 5,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Make a vocabulary of binary words for DBoW2, as ORB-SLAM reads it, of the photos of a folder.

    Args:
        photos: folder of photos, searched recursively, or a URL such as s3://BUCKET/PHOTOS, fetched to OUT.photos/.
        out: text file, in the place of ORBvoc.txt.
        branches: into how many groups codes are divided, and each group again; 2 to 20.
        levels: how often, 1 to 10; there are at most branches ^ levels words, about one for 5 to 10 codes is good.
        seed: of the first medians.
    """
    from kornia_bingan.images.fetch import local_photos
    from kornia_bingan.report.text import skipped_lines, text_table
    from kornia_bingan.search.photo_words import make_vocabulary

    keep_freed_memory()
    done = make_vocabulary(local_photos(photos, out), out, features, work, branches=branches, levels=levels, seed=seed)
    values = dataclasses.asdict(done)
    rows = [[name, f"{value:,}"] for name, value in values.items() if name != "skipped"]
    rows.append(["skipped", f"{len(done.skipped):,}"])
    print_result(values, text_table(["", "count"], rows) + skipped_lines(values["skipped"]), json)
    return 0
