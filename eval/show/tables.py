"""Write the tables and plots of README.md and docs/ from the JSON files of ``eval/results`` and ``weights``.

python -m eval tables            # rewrites what stands between the markers of all pages, and the plots
python -m eval tables --check    # exit status 1 if something is not what the files say
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from eval.harness.command import command_line
from eval.harness.known_pairs import WIDE
from eval.mutation import changes
from eval.show import descriptor_tables as of_descriptors
from eval.show import front_tables as of_front
from eval.show import pipeline_tables, scale_tables, speed_tables
from eval.show import training_tables as of_training
from eval.show.markdown import ROOT
from kornia_bingan.work.files import atomic_path

START = "<!-- table "


def pages() -> list[str]:
    """Name the files that hold generated tables, relative to the repository."""
    paths = [ROOT / "README.md", ROOT / "weights" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in paths if START in path.read_text(encoding="utf-8")]


TABLES: dict[str, Callable[[], str]] = {
    "models": of_descriptors.models,
    "caption": of_front.caption,
    "looks": of_front.looks,
    "verdict": lambda: of_front.verdict("heldout"),
    "five": lambda: of_front.front_table("heldout", 5),
    "six": lambda: of_front.front_table("heldout", 6),
    "worst": lambda: of_front.worst("heldout"),
    "brown": lambda: of_descriptors.verification("brown"),
    "revisited": lambda: of_descriptors.revisited("revisited"),
    "speed": lambda: of_descriptors.speed("speed"),
    speed_tables.FLOAT32: lambda: of_descriptors.speed(speed_tables.FLOAT32),
    "ablation": lambda: of_training.ablation("ablation"),
    "cifar10": lambda: of_training.cifar10("cifar10"),
    "cifar10-published": of_training.published_retrieval,
    "brown-published": of_training.published_verification,
    "peer-support": lambda: of_descriptors.peer_support("peer-support"),
    "cifar10-terms": lambda: of_training.ablation("cifar10-terms"),
    "overlap": lambda: of_training.overlap("overlap"),
    "retrieval-pairs": lambda: of_training.retrieval_pairs("retrieval-pairs"),
    "scale-search": lambda: of_training.scale_search("scale-search"),
    "adapt": lambda: of_training.adapt("adapt"),
    "train-speed": lambda: of_training.train_speed("train-speed"),
    "recipe-search": lambda: of_training.recipe_search("recipe-search"),
    "support": lambda: of_descriptors.support("support"),
    "calibration": lambda: of_descriptors.calibration("calibration-bingan256"),
    "context": lambda: of_descriptors.context("context-bingan256", "context-bingan256-lite"),
    "mutants": lambda: changes.table("mutants"),
    "mutants-package": lambda: changes.table("mutants-package"),
    "mutants-eval": lambda: changes.table("mutants-eval"),
    "robustness": lambda: of_descriptors.robustness("robustness-validate"),
}
TABLES |= speed_tables.TABLES | scale_tables.TABLES
for _split in ("validate", "heldout"):
    TABLES |= {
        f"summary-{_split}": partial(of_descriptors.summary, _split),
        f"m95-{_split}": partial(of_descriptors.m95, f"m95-{_split}", "scene"),
        f"m95-homographies-{_split}": partial(of_descriptors.m95, f"m95-{_split}", "homography"),
        f"hpatches-{_split}": partial(of_descriptors.homographies, f"hpatches-{_split}"),
        f"brown-{_split}": partial(of_descriptors.verification, f"brown-{_split}"),
        f"patch-tasks-{_split}": partial(of_descriptors.patch_tasks, f"patch-tasks-{_split}"),
        f"pairs-{_split}": partial(of_descriptors.pose, f"pairs-{_split}"),
        f"pipelines-scenes-{_split}": partial(pipeline_tables.of_part, f"pipelines-{_split}", "scenes"),
        f"pipelines-wide-{_split}": partial(pipeline_tables.of_part, f"pipelines-{_split}", WIDE),
        f"pipelines-homographies-{_split}": partial(
            pipeline_tables.of_part, f"pipelines-{_split}", "homographies", "evd"
        ),
        f"pipelines-colmap-{_split}": partial(pipeline_tables.colmap, f"pipelines-{_split}"),
        f"losses-{_split}": partial(of_front.losses_table, _split),
        f"sfm-all-{_split}": partial(of_descriptors.sfm_all, f"sfm-{_split}"),
        f"sfm-{_split}": partial(of_descriptors.sfm, f"sfm-{_split}"),
        f"sfm-own-{_split}": partial(of_descriptors.own_detector, f"sfm-{_split}"),
        f"sfm-check-{_split}": partial(of_descriptors.sfm_check, f"sfm-check-{_split}"),
    }


def fill(text: str) -> str:
    """Replace what stands between the markers of each table."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def contents() -> dict[str, str]:
    """Give what every page and plot should hold, by its name relative to the repository."""
    texts = {name: fill((ROOT / name).read_text(encoding="utf-8")) for name in pages()}
    return texts | {name: of_front.plot("heldout", over) for name, over in of_front.PLOTS.items()}


@command_line("tables")
def main(check: bool = False) -> int:
    stale = []
    for name, after in contents().items():
        path = ROOT / name
        if not path.is_file() or path.read_text(encoding="utf-8") != after:
            stale.append(name)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as temporary:
                    temporary.write_text(after, encoding="utf-8")
    if check:
        print(f"{', '.join(stale)}: stale, run python -m eval tables" if stale else "all tables are up to date")
    return int(bool(stale) and check)
