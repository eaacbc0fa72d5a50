"""Tables of training runs, of whole pictures, of what files are read, and figures of articles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from eval.harness.columns import plain_columns
from eval.inputs import fuzz
from eval.quality import cifar10, duplicates, hosts, loops, opensfm, overlap
from eval.show.markdown import best_first, markdown, read_record, table
from eval.training import ablation, adapt, picture_search, recipe_search

READ, CITED, RECALLED = "read in the source", "read in notes on the source", "recalled, not read"
"""How sure a published figure is; a recalled one is not to be quoted before it is read again."""

_PUBLISHED = (
    ("SH", "hand-made features", 12.95, 14.09, 13.89, "rerun of Lin et al., CVPR 2016", READ),
    ("LSH", "hand-made features", 12.55, 13.76, 15.07, "rerun of Lin et al., CVPR 2016", READ),
    ("PCA-ITQ", "hand-made features", 15.67, 16.20, 16.64, "rerun of Lin et al., CVPR 2016", READ),
    ("DeepBit", "network pretrained with labels", 19.43, 24.86, 27.73, "Lin et al., CVPR 2016", READ),
    ("DBD-MQ", "network pretrained with labels", 21.53, 26.50, 31.85, "Duan et al., CVPR 2017", CITED),
    ("BinGAN", "from scratch, no labels", 30.05, 34.65, 36.77, "Zieba et al., NIPS 2018", RECALLED),
    ("GraphBit", "network pretrained with labels", 32.15, 36.74, 39.90, "Duan et al., CVPR 2018", RECALLED),
    ("CIBHash", "network pretrained with labels", 59.0, 62.2, 64.1, "Qiu et al., IJCAI 2021", RECALLED),
)
"""Method, class, mAP@1000 in percent at 16, 32 and 64 bits, source, how sure; their routines differ."""

PUBLISHED_BROWN = (
    ("BRIEF", 54.57, 59.15, 54.96, 59.15, 54.57, 54.96, "tables of the four below", RECALLED),
    ("DeepBit", 29.60, 34.41, 63.68, 32.06, 26.66, 57.61, "Lin et al., CVPR 2016, in Yang et al., ICCV 2017", READ),
    ("DBD-MQ", 27.20, 33.11, 57.24, 31.10, 25.78, 57.15, "Duan et al., CVPR 2017", f"{RECALLED}; the mean {CITED}"),
    ("BinGAN", 16.88, 26.08, 40.80, 25.76, 27.84, 47.64, "Zieba et al., NIPS 2018", RECALLED),
    ("GraphBit", 17.78, 24.72, 49.94, 21.18, 15.25, 49.64, "Duan et al., CVPR 2018", RECALLED),
)
"""Method, FPR@95 in percent of 256 bits without labels for six pairs of training and test set, source, how sure."""


def published_retrieval() -> str:
    """What articles state; figures that were not read carry their mark."""
    rows = [
        [name, kind, *(mark(v, sure) for v in values), source, sure] for name, kind, *values, source, sure in _PUBLISHED
    ]
    return markdown(["published", "class", "16 bits", "32 bits", "64 bits", "source", "how sure"], rows)


def published_verification() -> str:
    """What articles state of Brown's sets; figures that were not read carry their mark."""
    rows = []
    for name, *values, source, sure in PUBLISHED_BROWN:
        mean = sum(values) / len(values)
        rows.append([name, *(mark(value, sure) for value in (*values, mean)), source, sure])
    pairs = ("Y to N", "Y to L", "N to Y", "N to L", "L to N", "L to Y")
    return markdown(["published, FPR@95 %", *pairs, "mean", "source", "how sure"], rows)


def mark(value: float, sure: str) -> str:
    """Write a published figure, with a question mark if it was recalled."""
    return f"{value:.1f}{' ?' if sure.startswith(RECALLED) else ''}"


def article_patches() -> str:
    """What articles state of Brown's sets, and what stands in for them here."""
    measured = read_record("brown")["results"]
    sets = list(dict.fromkeys(row["set"] for row in measured))
    ours = {(row["descriptor"], row["set"]): f"{row['fpr95']:.1f}" for row in measured}
    rows = []
    for name, *values, _, sure in PUBLISHED_BROWN:
        rows.append([f"{name}, as stated", mark(sum(values) / len(values), sure), *[""] * len(sets)])
    for name in ("bingan256-published", "untrained", "bingan256", "bingan256-lite", "brief"):
        if all((name, each) in ours for each in sets):
            rows.append([name, "", *(ours[name, each] for each in sets)])
    return markdown(["FPR@95 %", "mean of the six cells", *(f"`{each}`, of photos" for each in sets)], rows)


def article_pictures() -> str:
    """What the article states of CIFAR-10, and ours by the routines that its figures may be of."""
    stated = {name: (values, sure) for name, _, *values, _, sure in _PUBLISHED}
    before = stated["DBD-MQ"][0]
    widths = (16, 32, 64)

    def row(name: str, values: Sequence[float | None], sure: str = READ) -> list[str]:
        return [name, *("" if value is None else mark(value, sure) for value in values)]

    def over(name: str, values: Sequence[float | None]) -> list[str]:
        gains = [value and 100 * (value / base - 1) for value, base in zip(values, before, strict=True)]
        return [f"{name} over DBD-MQ, %", *("" if gain is None else f"{gain:+.0f}" for gain in gains)]

    measured = read_record("cifar10")["results"]

    def ours(weights: str, routine: str) -> list[float | None]:
        own = re.compile(rf"{weights}(, first \d+ of \d+ bits)?")  # thresholds as they were learnt
        learnt = {row["bits"]: row[routine] for row in measured if own.fullmatch(row["descriptor"])}
        return [learnt.get(width) for width in widths]

    pictures = {routine: ours("bingan64-pictures", routine) for routine in ("deepbit", "published", "exact")}
    rows = [
        row("DBD-MQ, as stated", *stated["DBD-MQ"]),
        row("BinGAN, as stated", *stated["BinGAN"]),
        over("BinGAN", stated["BinGAN"][0]),
        *(row(f"`bingan64-pictures`, {routine}", values) for routine, values in pictures.items()),
        over("`bingan64-pictures`, deepbit,", pictures["deepbit"]),
        *(row(f"`bingan32-cifar10`, {name}", ours("bingan32-cifar10", name)) for name in ("deepbit", "published")),
    ]
    return markdown(["mAP %", *(f"{width} bits" for width in widths)], rows)


TABLES: dict[str, Callable[[], str]] = {
    **{name: partial(table, name, ablation.columns) for name in ("ablation", "cifar10-terms")},
    "cifar10": partial(table, "cifar10", cifar10.COLUMNS, best_first(lambda r: (r["bits"], -r["exact"]))),
    "cifar10-published": published_retrieval,
    "brown-published": published_verification,
    "article-patches": article_patches,
    "article-pictures": article_pictures,
    "duplicates": partial(table, "duplicates", duplicates.COLUMNS),
    "overlap": partial(table, "overlap", overlap.COLUMNS),
    "adapt": partial(table, "adapt", adapt.COLUMNS),
    "picture-search": partial(table, "picture-search", picture_search.columns),
    "recipe-search": partial(table, "recipe-search", recipe_search.COLUMNS),
    "fuzz": partial(table, "fuzz", fuzz.COLUMNS),
    "hosts": partial(table, "hosts", hosts.COLUMNS),
    "opensfm": partial(table, "opensfm", opensfm.COLUMNS),
    "loops": partial(table, "loops", loops.COLUMNS),
    "loops-wrong": partial(table, "loops", loops.WRONG_COLUMNS, loops.wrong_answers),
    "reads": partial(table, "reads", plain_columns),
}
