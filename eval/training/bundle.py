"""Pack a training run for a bare machine with a GPU.

    python -m eval bundle RUN.tar.gz --data PHOTOS [--preset photos] [--set steps=20000 --set batch_size=4096 ...]

The archive holds the package's sources and commit, the data, ``config.json`` and ``run.py``. The machine needs torch,
numpy, opencv, safetensors and tqdm, nothing else and no network:

    tar xzf RUN.tar.gz && cd run && python run.py          # or: torchrun --nproc-per-node 8 run.py

Run ``run.py`` again to resume after a kill. It leaves the run folder in ``run/out``; bring it
back for ``python -m eval ship``.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

import kornia_bingan
from eval.harness.command import Place, command_line
from kornia_bingan.errors import UsageError
from kornia_bingan.train.config import TrainConfig, check_config, preset_config
from kornia_bingan.work.files import atomic_path
from kornia_bingan.work.provenance import COMMIT_FILE, commit

PROGRAM = '''"""Continue or start the training of config.json; the result is in out/."""

import json
from pathlib import Path

from kornia_bingan.train.config import preset_config
from kornia_bingan.train.loop import train

config = json.loads(Path("config.json").read_text())
print(train(preset_config(config["preset"], Path("data"), Path("out"), **config["changes"])))
'''


Settings = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set", metavar="NAME=VALUE")]


def parse_changes(words: Sequence[str]) -> dict[str, object]:
    """Turn ``name=value`` words into settings; values are JSON, or text.

    Raises:
        UsageError: a word has no ``=``, or there is no such setting.
    """
    known = {field.name for field in dataclasses.fields(TrainConfig)} - {"data", "out", "preset", "jitter"}
    changes: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            raise UsageError(f"--set {word}: give name=value, with a name of {', '.join(sorted(known))}")
        try:
            changes[name] = json.loads(text)
        except json.JSONDecodeError:
            changes[name] = text
    return changes


@command_line("bundle")
def main(archive: Place, data: Path, preset: str = "photos", settings: Settings = ()) -> int:
    """Write the archive.

    Args:
        data: folder that is learnt from.
        settings: each differs from that of the preset.
    """
    changes = parse_changes(settings)
    check_config(preset_config(preset, data, Path("out"), **changes))
    if not data.is_dir():
        raise UsageError(f"{data} is no folder")
    package = Path(kornia_bingan.__file__).parent
    sources = sorted(package.rglob("*.py"))
    config = json.dumps({"preset": preset, "changes": changes}, indent=1)
    texts = {"run.py": PROGRAM, "config.json": config, COMMIT_FILE: commit() or ""}
    with atomic_path(archive) as temporary, tarfile.open(temporary, "w:gz") as packed:
        for path in sources:
            packed.add(path, f"run/kornia_bingan/{path.relative_to(package)}")
        for name, text in texts.items():
            entry = tarfile.TarInfo(f"run/{name}")
            entry.size = len(text.encode())
            packed.addfile(entry, io.BytesIO(text.encode()))
        packed.add(data, "run/data")
    print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB")
    return 0
