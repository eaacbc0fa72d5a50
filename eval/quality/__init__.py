"""Protocols that say how good descriptors are."""
