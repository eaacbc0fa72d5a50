from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eval.cost import scale_search
from kornia_bingan.errors import UsageError
from tests.helpers.photos import texture


def test_search_of_many_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.cost import scale_indices  # lancedb takes seconds, here in one worker, above in all that collect

    def here(function: str, arguments: dict[str, Any], stage: str) -> Any:  # a process for each takes half a minute
        return getattr(scale_indices, function.partition(":")[2])(report=None, **arguments)

    monkeypatch.setattr(scale_search, "run_in_child", here)
    monkeypatch.setattr(scale_search, "QUERIES", 40)
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        cv2.imwrite(str(tmp_path / "photos" / f"{seed}.png"), texture(200, 260, seed))
    out = tmp_path / "scale.json"
    words = [str(tmp_path / "photos"), "--counts", "4000", "--out", str(out), "--cache", str(tmp_path / "cache")]
    assert scale_search.main(words) == 0
    record = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text()
    assert record["command"] == "python -m eval scale_search photos --counts 4000"
    assert 100 < record["described"] < 4000
    rows = {(r["codes"], r["index"], r["way"], r["probes"]): r for r in record["results"]}
    for codes in ("real", "random"):
        for exhaustive in (("faiss flat", "read"), ("faiss flat", "mapped"), ("lancedb", "exhaustive")):
            row = rows[codes, *exhaustive, 0]
            assert row["recall@1"] == row["recall@10"] == 1
        assert rows[codes, "faiss flat", "read", 0]["bytes_per_code"] == pytest.approx(32, abs=1)
        for index, way in (("faiss ivf", "read"), ("lancedb", "ivf")):
            shares = [rows[codes, index, way, probes]["recall@10"] for probes in scale_search.PROBES]
            assert shares == sorted(shares)
            assert shares[0] < shares[-1] == 1, "64 lists are all of them"
        assert rows[codes, "lancedb", "ivf", 64]["update_seconds"] > 0
        assert rows[codes, "faiss hnsw", "read", 0]["update_seconds"] is None
    assert all(row["queries_per_second"] > 0 for row in rows.values())
    assert out.with_suffix(".svg").read_text().count("real codes") == 1
    with pytest.raises(UsageError, match="at least"):
        scale_search.main([str(tmp_path / "photos"), "--counts", "10"])


def test_copies_differ_in_a_twentieth_of_their_bits() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (500, 32), np.uint8)
    more = scale_search.grown(codes, 2000, rng)
    np.testing.assert_array_equal(more[:500], codes)
    nearest = np.bitwise_count(more[500:, None] ^ codes[None]).sum(2, dtype=np.int64).min(1)
    assert nearest.mean() == pytest.approx(0.05 * 256, rel=0.05)
    assert len(scale_search.grown(codes, 100, rng)) == 100
