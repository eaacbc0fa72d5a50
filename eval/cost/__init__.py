"""Protocols that say what things cost: seconds and memory."""
