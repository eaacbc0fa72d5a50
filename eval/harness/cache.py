"""Arrays that were computed once are kept in a folder, under a key that says everything they depend on.

A key is a JSON object; it names the step, the content of the inputs by checksum, and the code and parameters that made
the arrays. It is stored with them and compared when they are read, so that a file never stands for something else.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.errors import UsageError
from kornia_bingan.work.files import atomic_path

Arrays = dict[str, NDArray[Any]]
Key = Mapping[str, Any]

_KEY = "__key__"


def cached(folder: Path | None, key: Key, make: Callable[[], Arrays]) -> Arrays:
    """Give the arrays of a key: read them if they were kept, else make and keep them.

    Args:
        folder: the cache; None makes them anew and keeps nothing.
        key: JSON object with an entry ``step``, which names the sub-folder.
        make: computes the arrays; names of arrays are Python identifiers.

    Raises:
        UsageError: a kept file is damaged or belongs to another key.
    """
    if folder is None:
        return make()
    text = json.dumps(key, sort_keys=True)
    path = folder / str(key["step"]) / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"
    if path.is_file():
        return _read(path, text)
    arrays = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **{_KEY: np.array(text)}, **arrays)  # type: ignore[arg-type]
    return arrays


def _read(path: Path, text: str) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it to compute it again") from error
    if _KEY not in arrays or str(arrays.pop(_KEY)) != text:
        raise UsageError(f"{path} holds the arrays of another key; delete it to compute them again")
    return arrays


def digest(*arrays: NDArray[Any]) -> str:
    """Give the SHA-256 of arrays: dtype, shape and content of each, in order."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def code_digest(*modules: ModuleType) -> str:
    """Give the SHA-256 of the sources of modules, so that arrays of older code are not taken for those of newer."""
    return hashlib.sha256("".join(inspect.getsource(module) for module in modules).encode()).hexdigest()
