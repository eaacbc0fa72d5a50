import os
import signal
import subprocess
import sys
import threading

import pytest

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work import isolated
from kornia_bingan.work.isolated import run_in_child
from tests.conftest import HEAR_CTRL_C, wait_for

JOBS = """
import os, signal, sys, time
from kornia_bingan.errors import JobError, UsageError

def add(report, a, b):
    print("not an answer")
    for value in range(3):
        report(value)
    return a + b

def die(report, signal_number):
    sys.stderr.write("so long\\n"); sys.stderr.flush()
    os.kill(os.getpid(), signal_number)

def wrong_use(report): raise UsageError("give another")
def cannot(report): raise JobError("it is too dark")
def library_error(report): raise RuntimeError("check failed")
def bug(report): raise KeyError("x")
def sleep(report, mark):
    open(mark, "w").write(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A module that only this test's import path finds: the child must get the caller's path."""
    (tmp_path / "child_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(name, **kwargs):
    arguments = kwargs.pop("arguments", {})
    return run_in_child(f"child_jobs:{name}", arguments, stage="adding", **kwargs)


def test_result_progress_and_log(jobs):
    seen = []
    log = jobs / "log" / "adding.txt"
    assert run("add", arguments={"a": 2, "b": 3}, progress=seen.append, log=log) == 5
    assert seen == [0, 1, 2]
    assert log.read_text() == "not an answer\n"  # what a library prints to stdout is no answer


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_dying_child_is_a_sentence(jobs, number):
    with pytest.raises(JobError, match=f"^adding was killed by {number.name}.*its last words: so long$"):
        run("die", arguments={"signal_number": int(number)})
    log = jobs / "adding.txt"
    with pytest.raises(JobError, match=r"the end of its log is in .*adding.txt$"):
        run("die", arguments={"signal_number": int(number)}, log=log)
    assert "so long" in log.read_text()


def test_errors_keep_their_kind(jobs):
    with pytest.raises(UsageError, match=r"^give another$"):
        run("wrong_use")
    with pytest.raises(JobError, match=r"^adding failed: it is too dark$"):
        run("cannot")
    with pytest.raises(JobError, match=r"^adding failed: check failed$"):
        run("library_error")
    with pytest.raises(
        JobError, match=r"^adding ended with exit status 1 and no answer; its last words: KeyError: 'x'$"
    ):
        run("bug")


def test_time_limit_kills_the_child(jobs, monkeypatch):
    mark, seconds = jobs / "pid", []

    class Timer(threading.Timer):
        """Ends when the child is at work, however long its start takes."""

        def run(self):
            seconds.append(self.interval)
            wait_for(lambda: mark.exists() and mark.read_text())
            self.function()

    with monkeypatch.context() as patch:
        patch.setattr(isolated.threading, "Timer", Timer)
        with pytest.raises(JobError, match=r"adding was stopped at the time limit \(7 s were left"):
            run("sleep", arguments={"mark": str(mark)}, time_limit_s=7)
    assert seconds == [7]
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    with pytest.raises(JobError, match="before adding"):
        run("sleep", arguments={"mark": str(mark)}, time_limit_s=0)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_child_ends_with_its_caller(jobs, number):
    mark = jobs / "pid"
    code = (
        f"import sys; sys.path.insert(0, {str(jobs)!r}); from kornia_bingan.work.isolated import run_in_child;"
        f"run_in_child('child_jobs:sleep', dict(mark={str(mark)!r}), stage='sleeping')"
    )
    caller = subprocess.Popen([sys.executable, "-c", HEAR_CTRL_C + code], stderr=subprocess.DEVNULL)
    wait_for(lambda: mark.exists() and mark.read_text())
    pid = int(mark.read_text())
    assert is_running(pid)
    caller.send_signal(number)
    caller.wait()
    wait_for(lambda: not is_running(pid))
