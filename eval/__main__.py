"""``python -m eval NAME ...`` runs a protocol or tool; without a name they are listed."""

from __future__ import annotations

import sys
from importlib import import_module

from eval.harness.records import DIRTY
from kornia_bingan.errors import JobError, UsageError

COMMANDS = {
    "ablation": ("eval.training.ablation", "training runs side by side: what each term of the objective brings"),
    "adapt": ("eval.training.adapt", "what adaptation to the photos of one place gains, on them and elsewhere"),
    "brown": ("eval.quality.brown", "patch verification on sets in Brown's layout: FPR@95"),
    "bundle": ("eval.training.bundle", "pack a training run for a bare machine with a GPU"),
    "calibrate": ("eval.quality.calibrate", "how likely a match is right, from its distance and ratio"),
    "context": ("eval.training.context", "how likely a match is right, from its neighbours too"),
    "cifar10": ("eval.quality.cifar10", "retrieval of CIFAR-10 pictures by short codes"),
    "cluster": ("eval.cost.cluster", "what work by several processes costs, and whether it gives the same files"),
    "defaults": ("eval.quality.defaults", "default against default: photos through programs without any option"),
    "duplicates": ("eval.quality.duplicates", "near duplicates of small pictures: codes against perceptual hashes"),
    "front": ("eval.show.front_pictures", "the pictures of the README: matches, and the report of a demo"),
    "fuzz": ("eval.inputs.fuzz", "mutated files through everything that reads files"),
    "hosts": ("eval.quality.hosts", "our codes in other people's programs: lines to write, matches that are right"),
    "hpatches": ("eval.quality.hpatches", "matching on image sequences with homographies"),
    "loops": ("eval.quality.loops", "which vocabulary knows a place again: of our codes, or of ORB's"),
    "m95": ("eval.quality.m95", "correct matches while 95 % of all matches are correct"),
    "mutants": ("eval.mutation.mutants", "single changes to a file that its tests must notice"),
    "opensfm": ("eval.quality.opensfm", "our codes in OpenSfM beside its own features: from photos to a model"),
    "overlap": ("eval.quality.overlap", "which code of a whole photo finds the photos of the same place"),
    "pairs": ("eval.quality.pairs", "two-view pose on picture pairs with known relative pose"),
    "patch_tasks": ("eval.quality.patch_tasks", "the three patch tasks of HPatches"),
    "peer_support": ("eval.quality.peer_support", "which support region suits each of the others"),
    "picture_search": ("eval.training.picture_search", "the recipe search for networks of pictures"),
    "pictures": ("eval.show.pictures", "match pictures: correct matches green, wrong ones red"),
    "pipelines": ("eval.quality.pipelines", "whole pipelines, each with its own detector and matcher"),
    "reads": ("eval.inputs.reads", "which formats and kinds of pixels are read"),
    "recipe_search": ("eval.training.recipe_search", "the recipe search: one row for each training run"),
    "report": ("eval.show.report", "one page of all results"),
    "retrieval_pairs": ("eval.cost.retrieval_pairs", "what pairs by retrieval cost and save against all pairs"),
    "revisited": ("eval.quality.revisited", "Brown's sets revisited: how well the ratio tells right from wrong"),
    "robustness": ("eval.quality.robustness", "how much of a change each descriptor bears"),
    "scale": ("eval.cost.scale", "what more photos cost, stage by stage"),
    "scale_search": ("eval.cost.scale_search", "what an index of up to ten million codes costs and finds"),
    "sfm": ("eval.quality.sfm", "COLMAP reconstructions with different descriptors"),
    "sfm_check": ("eval.quality.sfm_check", "whether SIFT through this harness is SIFT through plain pycolmap"),
    "ship": ("eval.training.ship", "ship a finished training run: weights, certificate and card"),
    "site": ("eval.show.site", "the documentation as a site, with every option and the API"),
    "six_cells": ("eval.training.six_cells", "the six cells of the article's table"),
    "speed": ("eval.cost.speed", "how fast everything is, against others and against the machine"),
    "support": ("eval.quality.support", "which support region suits the keypoints of each detector"),
    "tables": ("eval.show.tables", "write the tables and plots of README.md and docs/ from the results"),
    "thresholds": ("eval.quality.thresholds", "the ratio of each descriptor's test that gives 95 % precision"),
    "train_speed": ("eval.cost.train_speed", "speed of a training step of the published recipe"),
}
"""Module and line of help of each."""


def main(argv: list[str]) -> int:
    """Run what the first argument names; exit status 2 for wrong use, 1 for a job that could not be done."""
    if not argv or argv[0] not in COMMANDS:
        lines = [f"  {name:<16} {line}" for name, (_, line) in COMMANDS.items()]
        print("usage: python -m eval NAME ..., where NAME is one of", *lines, sep="\n", file=sys.stderr)
        return 2
    asked = DIRTY.set("--dirty" in argv)
    argv = [word for word in argv if word != "--dirty"]
    try:
        status: int = import_module(COMMANDS[argv[0]][0]).main(argv[1:])
    except SystemExit as error:  # of the argument parser: 0 after --help, 2 for wrong arguments
        return error.code if isinstance(error.code, int) else 2
    except (UsageError, JobError) as error:
        print(f"eval {argv[0]}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    finally:
        DIRTY.reset(asked)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
