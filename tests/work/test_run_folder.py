from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work import run_folder
from kornia_bingan.work.identity import read_identity, write_identity
from kornia_bingan.work.run_folder import Stopwatch, TimeLimit, alone_in, checksums, open_run

IDENTITY: dict[str, Any] = {"ratio": 0.8, "photos": {"a.jpg": "1", "b.jpg": "2"}}


def test_a_folder_is_made_and_continued(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with open_run(out, IDENTITY):
        (out / "result").write_text("1")
        (out / ".x.12.partial.npz").write_text("half")
    with open_run(out, IDENTITY):
        assert (out / "result").read_text() == "1"
        assert not (out / ".x.12.partial.npz").exists()
        (out / ".y.13.partial.npz").write_text("half of a worker that died")
    assert not (out / ".y.13.partial.npz").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ratio": 0.7}, r"ratio 0.8, now 0.7"),
        ({"photos": {"a.jpg": "1"}}, "gone photo b.jpg"),
        ({"photos": {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3", "d.jpg": "4"}}, "new photo c.jpg and 1 more"),
        ({"photos": {"a.jpg": "9", "b.jpg": "2"}}, "changed photo a.jpg"),
    ],
)
def test_another_run_is_refused_with_the_difference(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with open_run(tmp_path / "out", IDENTITY):
        pass
    with pytest.raises(UsageError, match=sentence), open_run(tmp_path / "out", {**IDENTITY, **change}):
        pass


MASKED: dict[str, Any] = {**IDENTITY, "masks": {"a.jpg": "8"}, "pairs": "a list with SHA-256 1"}


def test_other_photos_go_on_where_they_may(tmp_path: Path) -> None:
    """With them, other masks and listed pairs; the record is left to the caller."""
    with open_run(tmp_path / "out", MASKED):
        pass
    other = {"photos": {"a.jpg": "1", "c.jpg": "3"}, "masks": {"a.jpg": "8", "c.jpg": "9"}}
    with open_run(tmp_path / "out", {**MASKED, **other, "pairs": "a list with SHA-256 2"}, other_photos=True):
        assert read_identity(tmp_path / "out") == MASKED
    changed = {"photos": {"a.jpg": "2", "b.jpg": "2"}}
    with open_run(tmp_path / "out", {**MASKED, **changed}, other_photos=True):
        pass
    for change, sentence in (
        ({**other, "ratio": 0.7}, r"ratio 0\.8, now 0\.7"),
        ({"pairs": "a list with SHA-256 2"}, "pairs a list with SHA-256 1, now a list with SHA-256 2"),
        ({**other, "pairs": "exhaustive"}, "now exhaustive"),
        ({**other, "masks": {}}, "another mask of photo a.jpg"),
        ({"masks": {"a.jpg": "8", "b.jpg": "1"}}, "another mask of photo b.jpg"),
    ):
        refused = pytest.raises(UsageError, match=sentence)
        with refused, open_run(tmp_path / "out", {**MASKED, **change}, other_photos=True):
            pass
    write_identity(tmp_path / "out", {**MASKED, **other})
    assert read_identity(tmp_path / "out") == {**MASKED, **other}
    with pytest.raises(UsageError, match="was not written by this command"):
        read_identity(tmp_path)


def test_foreign_folders_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds no run \(notes\.txt\)"), open_run(tmp_path, IDENTITY):
        pass
    with pytest.raises(UsageError, match="is a file"), open_run(tmp_path / "notes.txt", IDENTITY):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text("[]")
    with pytest.raises(UsageError, match="was not written by this command"), open_run(tmp_path / "other", IDENTITY):
        pass
    with pytest.raises(UsageError, match="cannot be written"), open_run(tmp_path / "notes.txt" / "x", IDENTITY):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "other"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such lock")
def test_a_second_process_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kornia_bingan.work.run_folder import open_run\n"
        f"with open_run(Path({str(tmp_path / 'out')!r}), {IDENTITY!r}):\n"
        "    print('in', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    with pytest.raises(UsageError, match="another process works in"), open_run(tmp_path / "out", IDENTITY):
        pass
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with open_run(tmp_path / "out", IDENTITY):
        pass


def test_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    TimeLimit(0).check("nothing")
    assert TimeLimit(0).left_s() is None
    now = [1000.0]
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.time, "monotonic", lambda: now[0])
        limit = TimeLimit(100)
        now[0] += 30
        assert limit.left_s() == 70
        limit.check("2 of 4 done")
        now[0] += 70
        with pytest.raises(JobError, match="the time limit of 100 s was reached, 2 of 4 done"):
            limit.check("2 of 4 done")
    with pytest.raises(JobError, match="the time limit of 1e-09 s was reached, 3 of 4 done; run it again to resume"):
        TimeLimit(1e-9).check("3 of 4 done")
    for bad in (-1, float("nan")):
        with pytest.raises(UsageError, match="the time limit is"):
            TimeLimit(bad)


def test_stopwatch_adds_up_over_attempts(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    with Stopwatch(path).stage("match"):
        pass
    watch = Stopwatch(path)
    watch.seconds["match"] = 5.0
    with pytest.raises(RuntimeError, match="stop"), watch.stage("match"):
        raise RuntimeError("stop")
    assert Stopwatch(path).seconds["match"] >= 5.0


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    os.mkdir(tmp_path / "b.jpg")
    found = checksums(tmp_path, ["a.jpg", "b.jpg"])
    assert found["a.jpg"].startswith("e3b0c442")
    assert found["b.jpg"] == "unreadable"


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows has no flock")
    number = getattr(request, "param", errno.ENOSYS)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("no_flock", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], indirect=True)
@pytest.mark.usefixtures("no_flock")
def test_a_file_system_without_flock_gets_another_lock_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with open_run(out, IDENTITY):
        assert "its file system has no locks" in caplog.text
        with pytest.raises(UsageError, match=rf"process {os.getpid()} of .* works in .*out; wait for it, or delete"):
            open_run(out, IDENTITY).__enter__()
    assert sorted(path.name for path in out.iterdir()) == [".lock", "run.json"]
    with open_run(out, IDENTITY):
        pass


@pytest.mark.usefixtures("no_flock")
def test_the_lock_of_a_dead_process_is_taken_over_without_flock(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = tmp_path / ".lock-owner"
    owner.write_text(json.dumps({"machine": platform.node(), "process": dead.pid}))
    with open_run(tmp_path, IDENTITY):
        assert json.loads(owner.read_text())["process"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir() if "owner" in path.name] == []


@pytest.mark.parametrize("text", ['{"machine": "elsewhere", "process": 999999999}', "", "[]"])
@pytest.mark.usefixtures("no_flock")
def test_a_lock_that_may_be_alive_is_kept_without_flock(text: str, tmp_path: Path) -> None:
    (tmp_path / ".lock-owner").write_text(text)
    with pytest.raises(UsageError, match=r"works in .*, or delete .*\.lock-owner if it does not run any more"):
        alone_in(tmp_path).__enter__()
    assert (tmp_path / ".lock-owner").read_text() == text


def test_a_lock_that_fails_for_another_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows has no flock")

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UsageError, match="cannot be written: Input/output error"):
        alone_in(tmp_path / "out").__enter__()
