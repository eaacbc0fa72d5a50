"""Tables of training runs, of whole pictures, of what files are read, and figures of articles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from eval.harness.columns import plain_columns
from eval.inputs import fuzz
from eval.quality import cifar10, hosts, loops, opensfm, overlap
from eval.show.markdown import best_first, markdown, table
from eval.training import ablation, adapt, recipe_search

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


TABLES: dict[str, Callable[[], str]] = {
    **{name: partial(table, name, ablation.columns) for name in ("ablation", "cifar10-terms")},
    "cifar10": partial(table, "cifar10", cifar10.COLUMNS, best_first(lambda r: (r["bits"], -r["exact"]))),
    "cifar10-published": published_retrieval,
    "brown-published": published_verification,
    "overlap": partial(table, "overlap", overlap.COLUMNS),
    "adapt": partial(table, "adapt", adapt.COLUMNS),
    "recipe-search": partial(table, "recipe-search", recipe_search.COLUMNS),
    "fuzz": partial(table, "fuzz", fuzz.COLUMNS),
    "hosts": partial(table, "hosts", hosts.COLUMNS),
    "opensfm": partial(table, "opensfm", opensfm.COLUMNS),
    "loops": partial(table, "loops", loops.COLUMNS),
    "loops-wrong": partial(table, "loops", loops.WRONG_COLUMNS, loops.wrong_answers),
    "reads": partial(table, "reads", plain_columns),
}
