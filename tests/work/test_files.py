from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from kornia_bingan.work.files import atomic_folder, atomic_path, file_name, partial_path, sha256_of, write_json


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.bin"]


def test_a_finished_block_replaces_and_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
    assert (tmp_path / "a.png").read_bytes() == b"new"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_folder(tmp_path / "set") as temporary:
            (temporary / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "set").mkdir()
    with atomic_folder(tmp_path / "set") as temporary:
        (temporary / "whole").write_text("whole")
        assert not (tmp_path / "set" / "whole").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "whole"]


def test_json_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": [1, 2.5]})
    assert json.loads(path.read_text()) == {"x": [1, 2.5]}
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": [1, 2.5]}


@pytest.mark.parametrize("name", ["a" * 231 + ".jpg", "a" * 251 + ".jpg", "é" * 127, "x." + "b" * 250])
def test_a_name_as_long_as_a_file_system_allows_gets_a_temporary_one(name: str, tmp_path: Path) -> None:
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_temporary_names_of_names_with_one_beginning_differ(tmp_path: Path) -> None:
    names = ["a" * 231 + ".jpg", "a" * 230 + "b.jpg", "a" * 231 + ".png"]
    assert len({partial_path(tmp_path / name) for name in names}) == 3


def test_names_are_cut_only_where_they_get_too_long() -> None:
    assert file_name("a" * 251, ".npz") == "a" * 251 + ".npz"
    long = [file_name(name, ".npz") for name in ("a" * 252, "a" * 251 + "b", "é" * 126, os.fsdecode(b"\xe9" * 252))]
    assert len(set(long)) == 4
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".npz") for name in long)
