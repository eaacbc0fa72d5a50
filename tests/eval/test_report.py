from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.harness.columns import Column
from eval.show import report
from kornia_bingan.errors import UsageError
from tests.helpers.browser import BROWSER, ask

RESULTS = Path(__file__).parents[2] / "eval" / "results"


def test_the_best_of_a_column_is_marked_ties_included() -> None:
    rows = [{"n": "a", "x": 1.0, "y": 5}, {"n": "b", "x": 2.0, "y": 5}, {"n": "c", "x": 3.0, "y": None}]
    columns = [Column("name", "n"), Column("x", "x", ".1f", best="least"), Column("y", "y", best="most")]
    cells = report.cells_of(columns, rows)
    assert [[cell.best for cell in row] for row in cells] == [
        [False, True, False],
        [False, False, False],
        [False, False, False],
    ], "equal values are no best"
    assert cells[2][2].text == ""
    rows[1]["y"] = 6
    assert [row[2].best for row in report.cells_of(columns, [*rows, rows[1]])] == [False, True, False, True]


def test_every_committed_record_is_in_the_page(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert report.main(["--results", str(RESULTS), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8").split("</head>")[1]
    for path in RESULTS.glob("*.json"):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and record.get("results"):
            assert f"{path.name}: <code>{record['command']}" in text, path.name
    assert "bingan256" in text


def test_unknown_records_are_plain_tables(tmp_path: Path) -> None:
    record = {"protocol": "new", "command": "python -m eval new", "results": [{"a": "<x>", "b": 1.5}, {"a": "y"}]}
    (tmp_path / "new.json").write_text(json.dumps(record))
    assert report.main(["--results", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    assert "&lt;x&gt;" in (tmp_path / "r.html").read_text()
    with pytest.raises(UsageError, match="has no results"):
        report.main(["--results", str(tmp_path / "absent")])


def test_speed_stands_against_quality(tmp_path: Path) -> None:
    totals = [{"part": "scene", "descriptor": name, "m95": m95} for name, m95 in (("a", 10), ("b", 20), ("c", 5))]
    provenance = {"commit": "0"}
    m95 = {"protocol": "m95", "command": "m", "file": "m95-x.json", "totals": totals, "provenance": provenance}
    rows = [{"descriptor": name, "keypoints_per_second": rate} for name, rate in (("a", 100.0), ("b", 50.0))]
    speed = {"protocol": "speed", "command": "s", "file": "s.json", "threads": 1, "results": rows}
    (found,) = report.speed_against_quality([m95, speed])
    assert [[cell.text for cell in row] for row in found["rows"]] == [["a", "100", "10"], ["b", "50", "20"]]
    assert [[cell.best for cell in row[1:]] for row in found["rows"]] == [[True, False], [False, True]]
    assert found["figures"][0]["data"][0]["x"] == [100.0, 50.0]
    assert report.speed_against_quality([m95]) == []


def test_pictures_are_part_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    row = {"text": "room, <a>: 5 of 7 matches are correct", "file": "room.jpg"}
    about = {"title": "Matches", "note": "green", "results": [row]}
    (tmp_path / "pictures" / "pictures.json").write_text(json.dumps(about))
    (tmp_path / "pictures" / "room.jpg").write_bytes(b"picture")
    out = tmp_path / "r.html"
    words = ["--results", str(RESULTS), "--out", str(out), "--pictures", str(tmp_path / "pictures")]
    assert report.main(words) == 0
    text = out.read_text(encoding="utf-8")
    assert "room, &lt;a&gt;: 5 of 7 matches are correct" in text
    assert "data:image/jpeg;base64,cGljdHVyZQ==" in text
    assert report.read_pictures(tmp_path) == []


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_in_a_browser(tmp_path: Path) -> None:
    """No errors, all plots drawn, and a table that a click sorts by its numbers.

    One record of each protocol, with the curves of two places and one scene in space, which takes the browser longest.
    """
    out = tmp_path / "report.html"
    (tmp_path / "results").mkdir()
    shown: set[str] = set()
    for path in sorted(RESULTS.glob("*.json"), reverse=True):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and "heldout" not in path.name and record["protocol"] not in shown:
            shown.add(record["protocol"])
            record["figures"] = dict(list(record.get("figures", {}).items())[:1])
            for total in record.get("totals", []) if record["protocol"] == "m95" else []:
                total["data"] = total["data"][:2]
            (tmp_path / "results" / path.name).write_text(json.dumps(record))
    report.main(["--results", str(tmp_path / "results"), "--out", str(out)])
    script = """
    const title = [...document.querySelectorAll("h2")].find(h => h.textContent == "M95, scene");
    const table = title.nextElementSibling.querySelector("table");
    table.querySelectorAll("th button")[2].click();
    const values = [...table.tBodies[0].rows].map(r => Number(r.cells[2].dataset.value));
    return {values, plots: document.querySelectorAll(".plot").length,
            drawn: document.querySelectorAll(".plot svg.main-svg").length,
            best: document.querySelectorAll("td.best").length};
    """
    answer = ask(out, script, tmp_path)
    assert answer["problems"] == []
    assert answer["values"] == sorted(answer["values"])
    assert len(answer["values"]) > 10
    assert answer["drawn"] >= answer["plots"] > 5
    assert answer["best"] > 10
