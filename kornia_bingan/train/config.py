"""What decides a training run: its settings, and the named presets.

Source of the published values: Zieba et al., "BinGAN", NIPS 2018, settings of the published code.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kornia_bingan import losses
from kornia_bingan.errors import UsageError
from kornia_bingan.train.jitter import NO_JITTER, Jitter
from kornia_bingan.train.picture_jitter import NO_PICTURE_JITTER, PictureJitter

PICTURE_NETWORKS = ("ImageDiscriminator", "PictureNetwork")
"""Networks that learn from a set of small pictures."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Presets are differences from these defaults, see :data:`PRESETS`.

    Attributes:
        data: folder of photos, searched recursively; or the folder that holds the patch sets named next.
        out: run folder; made if absent, continued if it holds the same run.
        preset: name of the preset that the other values started from.
        start: weights to start from (``--from`` too), a shipped name or a file; they decide network, layers and bits.
        train: patch set in Brown's layout to learn from, a folder in ``data``; empty takes ``data`` as photos.
        train_pairs: learn only from the patches of that set's list of so many pairs, each as often as it is listed;
            50000 is published, 0 takes all patches.
        validate: patch set in Brown's layout to validate on, a folder in ``data`` or its whole path; without one, views
            of photos that are kept aside.
        initialise_on: what the published networks are initialised on: 500 random patches, or the first 500 of the
            patch set or of its list of pairs (published).
        network: PatchTrunk (for real use), PatchDiscriminator (as published), or one that takes ``data`` as a set of
            small pictures, such as CIFAR-10: ImageDiscriminator (as published) or PictureNetwork (for real use).
        layers: (channels, stride) of the convolutions of PatchTrunk.
        stages: (channels, layers) of the stages of PictureNetwork.
        bits: width of the code.
        nested: further widths; the first so many bits are trained to be a good code by themselves.
        normalise: normalise the values of ImageDiscriminator over the batch before their sign; the networks
            for real use always do.
        neighbours: from the step on at which the rate of the trapezoid falls, or from the first one if the run starts
            from weights, the second view of a picture is one of another, drawn among so many that PictureNetwork finds
            most like it by then; 0 keeps views of one picture to the end.
        only_codes: of PictureNetwork, only the layer of the codes learns; its features stay as they are.
        queries_aside: do not learn from the pictures that are queries in validation.
        steps: optimiser steps of the whole run.
        batch_size: keypoints per step.
        photos_per_batch: photos that a batch is drawn from.
        max_keypoints: strongest keypoints of a photo that are used.
        tracks: patch sets in Brown's layout, folders beside or outside ``data``, whose matching patches are real
            views to learn from beside the photos.
        tracks_share: share of a batch that is drawn from them.
        optimiser: adam, or orthogonal: momentum with orthogonal steps, for PictureNetwork.
        learning_rate: peak value; of orthogonal steps, relative to the length of the weights.
        schedule: cosine to 0 after a warm-up of 2 % of the steps; constant; or trapezoid: a warm-up of 50 steps,
            constant, and linear to 0 over the last quarter of the steps, whose number may change before.
        weight_decay: decoupled weight decay, for AdamW (the optimiser of adam if the schedule is not constant).
        lambda_gan: weight of the GAN loss; 0 trains without a generator.
        lambda_dmr: weight of the distance matching regulariser.
        lambda_bre: weight of the binarised-representation-entropy regulariser.
        bre: form of BRE: as in the published code; normalised, divided by the sum of the pair weights (Z of the
            article); or original, that of Cao et al. 2018, which needs no wide features.
        lambda_two_view: weight of the two-view term.
        lambda_descriptor: weight of the two-view term of the descriptors before their sign.
        lambda_projection: weight of the two-view term of PictureNetwork's projection.
        lambda_frames: weight of the agreement of corrected support regions: trains the frame network of the PatchTrunk
            that the run starts from, which stays as it is; the two-view term is then a margin to the nearest other.
        lambda_second_order: weight of the second-order similarity of the codes of two views.
        lambda_quantisation: weight of the squared distance of descriptors from their codes.
        lambda_bit_correlation: weight of the squared correlation between bits.
        gamma: constant of the soft sign in DMR and BRE.
        beta: constant of the pair weights in BRE.
        temperature: temperature of the two-view term.
        projection_temperature: temperature of the two-view term of the projection.
        code_noise: deviation of the noise that the two-view term adds to descriptors before their sign.
        shared_pass: one dropout pass for GAN, low and high features instead of one each (published).
        dropout: dropout in PatchDiscriminator, 0.2 on its input and 0.5 twice (published); PatchTrunk has none.
        standardise: give PatchDiscriminator patches of mean 0 and deviation 1; PatchTrunk always does.
        centre_high: subtract the batch mean from the high features before their sign in DMR and BRE.
        moving_average: decay per step of an average of the weights, such as 0.999; 0 saves the last ones (published).
        jitter: random changes of the two views of a patch.
        picture_jitter: random changes of the two views of a picture.
        precision: auto is bfloat16 where the processor computes in it, else float32.
        device: auto is CUDA if present, else cpu.
        seed: seed of all random choices.
        threads: threads of torch; 0 is all cores but one, which cuts the patches.
        log_every: steps between lines of the log.
        validate_every: steps between validations.
        validation_pairs: pairs of views of photos kept aside, or most pairs of a patch set, that validation measures.
        checkpoint_every: steps between checkpoints.
        time_limit: seconds after which the run stops with a checkpoint, or, if its learning rate is constant and it
            started from weights, with finished weights; 0 is no limit.
        tensorboard: write the log and pictures for TensorBoard too.
    """

    data: Path
    out: Path
    preset: str = "photos"
    start: str = ""
    train: str = ""
    train_pairs: int = 0
    validate: str = ""
    initialise_on: Literal["random", "first"] = "random"
    network: Literal["PatchTrunk", "PatchDiscriminator", "ImageDiscriminator", "PictureNetwork"] = "PatchTrunk"
    layers: tuple[tuple[int, int], ...] = ((32, 2), (64, 1), (64, 1), (128, 2), (128, 1))
    stages: tuple[tuple[int, int], ...] = ((48, 1), (96, 2), (192, 1))
    bits: int = 256
    nested: tuple[int, ...] = ()
    normalise: bool = False
    neighbours: int = 0
    only_codes: bool = False
    queries_aside: bool = False
    steps: int = 3600
    batch_size: int = 1024
    photos_per_batch: int = 12
    max_keypoints: int = 1500
    tracks: tuple[Path, ...] = ()
    tracks_share: float = 0.25
    optimiser: Literal["adam", "orthogonal"] = "adam"
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "constant", "trapezoid"] = "cosine"
    weight_decay: float = 1e-4
    lambda_gan: float = 0.0
    lambda_dmr: float = 0.0
    lambda_bre: float = 0.0
    bre: Literal["published", "normalised", "original"] = "published"
    lambda_two_view: float = 1.0
    lambda_descriptor: float = 0.0
    lambda_projection: float = 0.0
    lambda_frames: float = 0.0
    lambda_second_order: float = 0.0
    lambda_quantisation: float = 0.0
    lambda_bit_correlation: float = 0.1
    gamma: float = losses.GAMMA
    beta: float = losses.BETA
    temperature: float = 0.06
    projection_temperature: float = 0.2
    code_noise: float = 0.0
    shared_pass: bool = True
    dropout: bool = True
    standardise: bool = False
    centre_high: bool = False
    moving_average: float = 0.0
    jitter: Jitter = field(default_factory=Jitter)
    picture_jitter: PictureJitter = field(default_factory=PictureJitter)
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    device: str = "auto"
    seed: int = 1
    threads: int = 0
    log_every: int = 10
    validate_every: int = 200
    validation_pairs: int = 1000
    checkpoint_every: int = 100
    time_limit: float = 0.0
    tensorboard: bool = False

    @property
    def can_stop_anywhere(self) -> bool:
        """Whether the weights of any step are finished ones."""
        return bool(self.start) and self.schedule == "constant"

    @property
    def falls_from(self) -> int:
        """The step from which the rate of the trapezoid falls."""
        return 3 * self.steps // 4

    @property
    def neighbours_from(self) -> int:
        """The step from which neighbours are views of each other."""
        return 0 if self.start else self.falls_from

    @property
    def needs_two_views(self) -> bool:
        """Whether a term of the loss compares two views of a keypoint."""
        of_codes = (self.lambda_two_view, self.lambda_descriptor, self.lambda_second_order)
        terms = (*of_codes, self.lambda_projection, self.lambda_frames)
        return max(terms) > 0


_PUBLISHED: dict[str, Any] = {
    "batch_size": 25,
    "learning_rate": 3e-4,
    "schedule": "constant",
    "weight_decay": 0.0,
    "lambda_gan": 1.0,
    "lambda_dmr": 0.05,
    "lambda_bre": 0.01,
    "lambda_two_view": 0.0,
    "lambda_bit_correlation": 0.0,
    "shared_pass": False,
}

# Chosen by eval/recipe_search on validation scenes: views that differ more than detectors make them differ, many
# negatives from the same photo, and a softmax that sees the hardest of them.
_PHOTOS: dict[str, Any] = {
    "steps": 3400,
    "photos_per_batch": 4,
    "temperature": 0.03,
    "jitter": Jitter(log2_scale=0.22, rotation_deg=12.0, shift=0.06, log2_stretch=0.3),
}

PRESETS: dict[str, dict[str, Any]] = {
    "photos": _PHOTOS,
    # From shipped weights to those of a place, a camera or a kind of picture: small steps, averaged, to stop anywhere.
    "adapt": {
        **_PHOTOS,
        "start": "bingan256",
        "steps": 2000,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "moving_average": 0.99,
        "validate_every": 100,
    },
    # The network that turns and stretches support regions, for weights that exist; views of tilts up to 4 and beyond.
    "frames": {
        "start": "bingan256-lite",
        "steps": 1600,
        "batch_size": 512,
        "photos_per_batch": 16,
        "lambda_frames": 1.0,
        "lambda_bit_correlation": 0.0,
        "jitter": Jitter(rotation_deg=20.0, log2_stretch=1.0, occlusion=0.0),
    },
    # The published recipe; what differs from it is listed in docs/article.md. 400 epochs of 100,000 patches.
    "brown": {
        "network": "PatchDiscriminator",
        **_PUBLISHED,
        "steps": 1_600_000,
        "photos_per_batch": 25,
        "jitter": NO_JITTER,
    },
    # The published network where it learns to match: standardised patches, two views, no dropout, larger batches.
    "brown-two-view": {
        "network": "PatchDiscriminator",
        "standardise": True,
        "dropout": False,
        "batch_size": 128,
        "photos_per_batch": 8,
        "learning_rate": 1e-3,
        "lambda_gan": 0.1,
        "lambda_dmr": 0.05,
        "lambda_bre": 0.01,
    },
    # The published recipe for whole pictures; 32 bits, or --bits 16 and --bits 64. 400 epochs of 50,000 pictures.
    "cifar10": {
        "network": "ImageDiscriminator",
        "bits": 32,
        **_PUBLISHED,
        "lambda_bre": 0.001,
        "picture_jitter": NO_PICTURE_JITTER,
        "steps": 800_000,
    },
    # The published network for pictures with two views; 16, 32 and 64 bits from one run.
    "cifar10-two-view": {
        "network": "ImageDiscriminator",
        "bits": 64,
        "nested": (16, 32),
        "normalise": True,
        "dropout": False,
        "batch_size": 256,
        "learning_rate": 5e-4,
        "temperature": 0.2,
        "steps": 2000,
    },
    # The same with a network that trains far in an hour of a processor; its rate stays large until the last quarter, in
    # which pictures that it finds alike by then are views of each other. Chosen by eval/picture_search.
    "pictures": {
        "network": "PictureNetwork",
        "stages": ((64, 1), (128, 1), (256, 1)),
        "bits": 64,
        "nested": (16, 32),
        "neighbours": 100,
        "queries_aside": True,
        "batch_size": 512,
        "steps": 8000,
        "optimiser": "orthogonal",
        "learning_rate": 0.03,
        "schedule": "trapezoid",
        "moving_average": 0.998,
        "temperature": 0.5,
        "projection_temperature": 0.5,
        "lambda_projection": 1.0,
        "picture_jitter": PictureJitter(side=24),
        "log_every": 20,
        "validate_every": 400,
    },
    # Codes of features that are learnt: pictures that are most like each other, as they are, get equal bits.
    "picture-codes": {
        "start": "bingan64-pictures",
        "network": "PictureNetwork",
        "only_codes": True,
        "neighbours": 100,
        "queries_aside": True,
        "batch_size": 1024,
        "steps": 400,
        "learning_rate": 3e-3,
        "temperature": 0.5,
        "nested": (16, 32),
        "picture_jitter": replace(NO_PICTURE_JITTER, mirror=0.5),
        "log_every": 20,
        "validate_every": 100,
    },
}


def preset_config(preset: str, data: Path, out: Path, **changes: Any) -> TrainConfig:
    """Build the configuration of a preset with named changes.

    Raises:
        UsageError: the preset is unknown.
    """
    if preset not in PRESETS:
        raise UsageError(f"the preset is '{preset}'; choose one of {', '.join(PRESETS)}")
    return TrainConfig(data=data, out=out, preset=preset, **{**PRESETS[preset], **changes})


def describe_config(config: TrainConfig) -> dict[str, Any]:
    """Turn settings into what JSON can hold."""
    values = dataclasses.asdict(config)
    return json.loads(json.dumps(values, default=str))  # type: ignore[no-any-return]


def check_config(config: TrainConfig) -> None:
    """Raise UsageError if the settings contradict each other."""
    for name, value in describe_config(config).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name} is {value}; give a finite number")
    if config.seed < 0:
        raise UsageError(f"seed is {config.seed}; give 0 or more")
    if config.steps < 1 or config.batch_size < 2:
        raise UsageError(f"steps is {config.steps} and batch_size {config.batch_size}; give at least 1 and 2")
    terms = [name for name in describe_config(config) if name.startswith("lambda_")]
    if all(getattr(config, term) == 0 for term in terms) or any(getattr(config, term) < 0 for term in terms):
        raise UsageError(f"the weights of the loss are {[getattr(config, t) for t in terms]}; some must be above 0")
    if config.lambda_frames > 0 and not (config.start and config.network == "PatchTrunk"):
        raise UsageError("lambda_frames needs weights to start from (--from), of the network PatchTrunk")
    if config.lambda_frames > 0 and (config.train or config.tracks or config.lambda_gan > 0):
        raise UsageError("lambda_frames learns from photos, without tracks, patch sets and generator; leave them out")
    if any(not 8 <= width < config.bits for width in config.nested):
        raise UsageError(f"nested is {config.nested}; give widths from 8 to below the {config.bits} bits of the code")
    if not 0 <= config.tracks_share <= 1:
        raise UsageError(f"tracks_share is {config.tracks_share}; give a share between 0 and 1")
    _check_neighbours(config)
    if config.train_pairs and not config.train:
        raise UsageError(f"train_pairs is {config.train_pairs}; it goes with --train, the patch set that has the list")
    if config.initialise_on == "first" and not config.train:
        raise UsageError("initialise_on is first, but photos and pictures are learnt from in a random order; leave it")
    if config.tracks and config.train:
        raise UsageError("tracks go with photos; with --train, name their set there")


def _check_neighbours(config: TrainConfig) -> None:
    if config.neighbours < 0:
        raise UsageError(f"neighbours is {config.neighbours}; give 0 or more")
    if config.neighbours and config.network != "PictureNetwork":
        raise UsageError(f"neighbours are for the network PictureNetwork, not {config.network}")
    if config.only_codes and not (config.start and config.network == "PictureNetwork" and config.lambda_gan == 0):
        raise UsageError("only_codes needs weights of PictureNetwork to start from (--from), and no generator")
    if config.neighbours and not config.start and config.schedule != "trapezoid":
        raise UsageError(
            "neighbours need weights to start from (--from), or the schedule trapezoid, whose fall they await"
        )
