"""The two ways a command can fail, and nothing else."""

from __future__ import annotations


class UsageError(ValueError):
    """The caller asked for something that cannot be: a wrong path, option, shape or file. Exit code 2."""


class JobError(RuntimeError):
    """The request was right and the job could not be done on this data. Exit code 1."""
