"""Run a function in a process of its own, so that a library that aborts takes the job with it and not the caller.

The child gets the caller's import path and its arguments as one line of JSON, gives its result as another, and ends
when the caller dies, however it dies.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.files import atomic_path

_TAIL_BYTES = 64 * 1024
_START = "import json,sys; job=json.loads(sys.stdin.readline()); sys.path[:]=job['path']; "
_START += "from kornia_bingan.work.isolated import serve; serve(job)"

Report = Callable[[Any], None]


def run_in_child(
    function: str,
    arguments: dict[str, Any],
    *,
    stage: str,
    log: Path | None = None,
    time_limit_s: float | None = None,
    progress: Report | None = None,
) -> Any:
    """Call ``function(report=..., **arguments)`` in a child process and give back what it returns.

    Args:
        function: ``module:name``; its arguments and its result are what JSON can hold. It may call ``report(value)``.
        arguments: keyword arguments.
        stage: what the child does, for messages.
        log: file that keeps the end (64 KiB) of what the child wrote to stderr and stdout; None keeps nothing.
        time_limit_s: the child is killed after so many seconds; None waits for ever.
        progress: called in this process with each value that the child reports.

    Raises:
        UsageError: the child raised it.
        JobError: the child raised anything else, was killed, crashed, or reached the time limit.
    """
    if time_limit_s is not None and time_limit_s <= 0:
        raise JobError(f"the time limit was reached before {stage}; run it again to resume")
    out_of_time = threading.Event()
    with tempfile.TemporaryFile() as stderr:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the child.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )

        def stop() -> None:
            out_of_time.set()
            process.kill()

        timer = threading.Timer(time_limit_s if time_limit_s is not None else threading.TIMEOUT_MAX, stop)
        timer.daemon = True
        try:
            with process:
                timer.start()
                answer = _talk(process, {"path": sys.path, "function": function, "arguments": arguments}, progress)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        tail = _tail(stderr)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(log) as temporary:
            temporary.write_bytes(tail)
    if "result" in answer:
        return answer["result"]
    if out_of_time.is_set():
        raise JobError(
            f"{stage} was stopped at the time limit ({time_limit_s:.0f} s were left for it); run it again to "
            "resume, with a longer limit if it stops here again"
        )
    if answer.get("kind") == "UsageError":
        raise UsageError(answer["error"])
    if "error" in answer:
        raise JobError(f"{stage} failed: {answer['error']}")
    last = tail.decode("utf-8", "replace").strip().rpartition("\n")[2]
    where = f"the end of its log is in {log}" if log is not None else f"its last words: {last or 'none'}"
    raise JobError(f"{stage} {_how_it_ended(process.returncode)}; {where}")


def _talk(process: subprocess.Popen[bytes], job: dict[str, Any], progress: Report | None) -> dict[str, Any]:
    """Send the job, pass on what is reported, and give the answer; an empty one if the child ended without."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()  # and stays open: its end tells the child that this process is gone
    except BrokenPipeError:
        return {}
    for line in process.stdout:
        if not line.endswith(b"\n"):
            break
        message: dict[str, Any] = json.loads(line)
        if "progress" not in message:
            return message
        if progress is not None:
            progress(message["progress"])
    return {}


def _tail(file: IO[bytes]) -> bytes:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    return file.read()


def _how_it_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit status {returncode} and no answer"
    name = signal.Signals(-returncode).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def serve(job: dict[str, Any]) -> None:
    """Do one job; this runs in the child."""
    # Libraries may print: what they write to stdout goes to the log, the answers go through a copy of it.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        threading.Thread(target=_end_with_the_caller, daemon=True).start()

        def send(message: dict[str, Any]) -> None:
            answers.write(json.dumps(message).encode() + b"\n")
            answers.flush()

        module, _, name = job["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        try:
            result = function(report=lambda value: send({"progress": value}), **job["arguments"])
        except (UsageError, JobError, RuntimeError, ValueError, OSError) as error:  # pycolmap raises the last three
            send({"error": str(error) or type(error).__name__, "kind": type(error).__name__})
        except BaseException:
            # Said before the answers end: then the caller ends, and with it this process.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        else:
            send({"result": result})


def _end_with_the_caller() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock the interpreter wants back when it ends
    os._exit(1)
