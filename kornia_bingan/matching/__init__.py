"""Two sets of codes become matches: by Hamming distance alone, or by what the neighbours of a match say too."""

from kornia_bingan.matching.context import ContextModel, match_in_context
from kornia_bingan.matching.hamming import Calibration, HammingMatcher, MatchMode, match, match_probability

__all__ = [
    "Calibration",
    "ContextModel",
    "HammingMatcher",
    "MatchMode",
    "match",
    "match_in_context",
    "match_probability",
]
