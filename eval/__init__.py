"""Measurements of the descriptor and of its peers; run as ``python -m eval NAME``."""
