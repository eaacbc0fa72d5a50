"""Patch sets and picture sets on disk, and the rendered scene with known cameras."""
