from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.cost import cluster
from eval.show import speed_tables
from kornia_bingan.errors import UsageError
from tests.helpers.photos import write_photos


@pytest.mark.usefixtures("_workers_are_forked")
def test_costs_and_a_killed_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "EMPTY_UNITS", 20)
    photos, out = write_photos(tmp_path / "photos", 6), tmp_path / "cluster.json"
    words = [str(photos), "--workers", "2", "--ours", "bingan256-lite", "--threads", "1", "--out", str(out)]
    assert cluster.main(words) == 0
    record = json.loads(out.read_text())
    alone, shared = record["results"]
    assert (alone["workers"], shared["workers"], alone["units"], shared["units"]) == (0, 2, 7, 7)
    assert alone["same_bytes"]
    assert shared["same_bytes"]
    assert shared["start_bytes"] >= 2 * record["weights_bytes"]
    assert alone["empty_unit_ms"] > 0
    assert shared["empty_unit_ms"] > 0
    assert record["fault"]["same_bytes"]
    monkeypatch.setattr("eval.show.markdown.RESULTS", tmp_path)
    table = speed_tables.TABLES["cluster"]()
    assert "| none, in process |" in table
    assert "| 2, one killed |" in table
    assert "OTHER" not in table
    with pytest.raises(UsageError, match="two are needed"):
        cluster.main([str(photos), "--photos", "1"])
    with pytest.raises(UsageError, match="give numbers from 1"):
        cluster.main([str(photos), "--workers", "0"])
