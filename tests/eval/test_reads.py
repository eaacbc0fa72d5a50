from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.inputs import reads
from eval.show.markdown import RESULTS


def test_the_committed_table_says_what_is_read_today(tmp_path: Path) -> None:
    assert reads.main(["--out", str(tmp_path / "reads.json")]) == 0
    found = json.loads((tmp_path / "reads.json").read_text())["results"]
    assert found == json.loads((RESULTS / "reads.json").read_text())["results"]
    cells = [value for row in found for name, value in row.items() if name in reads.KINDS]
    assert {"yes", "turned", "-"} >= set(cells)
    assert cells.count("yes") + cells.count("turned") > 30


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    grey = np.zeros((4, 4), np.uint8)
    assert reads._verdict(tmp_path / "a.png", grey, False, "yes").startswith("no: is not a JPEG")
    data = reads.encode("PNG", "grey", reads.sample("grey"))
    assert data is not None
    (tmp_path / "a.png").write_bytes(data)
    assert reads._verdict(tmp_path / "a.png", grey, False, "yes") == "no: read as 64 x 48"
    assert "grey levels off" in reads._verdict(tmp_path / "a.png", np.zeros((48, 64), np.uint8), False, "yes")


@pytest.mark.parametrize(("name", "kind"), [("BMP", "orientation"), ("JPEG", "alpha"), ("AVIF", "grey 16 bits")])
def test_kinds_that_a_format_does_not_have(name: str, kind: str) -> None:
    assert reads.encode(name, kind, reads.sample(kind)) is None
