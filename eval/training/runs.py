"""Training runs side by side: what their folders hold, what one changed of another, and the record of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.harness.columns import Column, text_of
from eval.harness.records import write_json
from kornia_bingan.errors import UsageError
from kornia_bingan.train.config import TrainConfig, describe_config

NOT_SETTINGS = ("data", "out", "preset", "time_limit", "checkpoint_every", "log_every", "validate_every", "threads")

Row = dict[str, Any]


def read_log(folder: Path) -> tuple[Row, list[Row], list[Row]]:
    """Read a run folder: ``run.json``, and what ``log.jsonl`` says of validations and of steps.

    Raises:
        OSError, ValueError, KeyError: it is no run folder.
    """
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    validations, steps = ([line for line in log if line["kind"] == kind] for kind in ("validation", "train"))
    return about, validations, steps


def idea_of(folder: Path) -> dict[str, str]:
    """Give the idea of a run and what was predicted of it, if that was written down."""
    path = folder / "idea.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"idea": "", "predicted": ""}


def settings_of(about: Row) -> Row:
    """Give the settings of a run that can change its result; weights in a run folder have the name of that folder."""
    settings = {key: value for key, value in about["config"].items() if key not in NOT_SETTINGS}
    start = Path(settings.get("start") or "")
    if start.name == "weights.safetensors":
        settings["start"] = start.parent.name
    return settings


def rows_of_runs(paths: Sequence[Path], protocol: str, read_run: Callable[[Path], Row]) -> list[Row]:
    """Read run folders, and JSON files of a protocol that compares runs for all of their rows.

    Raises:
        UsageError: a file is no result of the protocol, or two runs have one name.
    """
    rows: list[Row] = []
    for path in paths:
        if not path.is_file():
            rows.append(read_run(path))
            continue
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path} is no JSON file: {error}") from error
        if stored.get("protocol") != protocol:
            raise UsageError(f"{path} is no result of 'python -m eval {protocol}'; give run folders or such a file")
        rows += stored["results"]
    names = [row["run"] for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two runs are called {twice[0]}; rename a folder")
    return rows


def changes(row: Row, reference: Row) -> Row:
    """Give the settings of a run that differ from those of the reference, nested ones by their dotted name.

    A setting that is younger than the reference counts as having had its default.
    """
    found = {}
    defaults = describe_config(TrainConfig(Path(), Path()))
    for key, value in row["config"].items():
        before = reference["config"].get(key, defaults.get(key))
        if isinstance(value, dict) and isinstance(before, dict):
            younger = defaults.get(key, {})
            found.update({f"{key}.{n}": v for n, v in value.items() if v != before.get(n, younger.get(n))})
        elif value != before and not (before is None and not value):
            found[key] = value
    return found


def search(
    protocol: str,
    rows: list[Row],
    same: Callable[[Row], Any],
    otherwise: str,
    columns: Callable[[list[Row]], Sequence[Column]],
    out: Path | None,
) -> int:
    """Compare runs with the first one, print their table, and write the record.

    Args:
        protocol: name of the command.
        rows: of the runs.
        same: what must be equal in all rows.
        otherwise: what is said of a run where it is not, such as "was measured on other data".
        columns: of the table, from the rows with their changes.
        out: record, or None.

    Raises:
        UsageError: see ``same``.
    """
    for row in rows:
        if same(row) != same(rows[0]):
            raise UsageError(f"{row['run']} {otherwise} than {rows[0]['run']}")
        row["changes"] = changes(row, rows[0])
    print(text_of(columns(rows), rows))
    write_runs(protocol, rows, out, provenance=rows[-1]["provenance"])
    return 0


def write_runs(protocol: str, rows: list[Row], out: Path | None, **more: Any) -> None:
    """Write the record of a comparison of runs, if a place is given."""
    if out is not None:
        command = f"python -m eval {protocol} " + " ".join(row["run"] for row in rows)
        write_json(out, {"protocol": protocol, "command": command, "results": rows, **more})
