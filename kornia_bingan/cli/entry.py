"""The command ``bingan``: which command is asked for, what its arguments mean, and how it ends.

Exit status 0: done; 1: the job could not be done; 2: wrong use. Results go to stdout, messages to stderr.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import tyro

import kornia_bingan
from kornia_bingan.cli.arguments import ARGUMENTS
from kornia_bingan.cli.commands import COMMANDS
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.work.files import printable
from kornia_bingan.work.run_folder import QUIET


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(arguments)
    except SystemExit as error:  # of the argument parser: 0 or none after --help and completion, 2 for wrong use
        return (error.code or 0) if isinstance(error.code, int | None) else 2
    except (UsageError, JobError) as error:
        print(f"bingan: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("bingan: interrupted; run it again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left at exit
        return 0
    except (ImportError, OSError) as error:
        print(f"bingan: {_in_words(error)}", file=sys.stderr)
        return 1


def _in_words(error: ImportError | OSError) -> str:
    """Say what of the machine failed: a library, a full disk, a folder that may not be written."""
    if isinstance(error, ImportError):
        if (error.name or "").startswith("kornia_bingan"):
            raise error
        return f"a library is missing or broken ({error}); pip install --force-reinstall 'kornia_bingan[opencv]'"
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return printable(place + (error.strerror or str(error)))


def overview() -> str:
    """List the commands, each with the first line of what it says of itself."""
    commands = {name: (command.__doc__ or "").partition("\n")[0] for name, command in COMMANDS.items()}
    commands["train"] = "Train codes on photos, patches or pictures, without labels."
    indent, width = 4 + max(map(len, commands)), min(100, shutil.get_terminal_size().columns)
    lines = ["usage: bingan COMMAND ...", "", "Learned 256-bit local descriptors.", ""]
    for name, line in commands.items():
        lines += textwrap.wrap(f"  {name:{indent - 2}}{line}", width, subsequent_indent=" " * indent)
    end = "bingan COMMAND --help explains its options. With --quiet, no command shows progress."
    return "\n".join([*lines, "", *textwrap.wrap(end, width)])


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"bingan {kornia_bingan.__version__}")
        return 0
    if "" in arguments:  # a variable of the shell that was not set; as a path it would be the current folder
        raise UsageError(f"argument {1 + arguments.index('')} is empty; give a path, '.' for the current folder")
    if "--quiet" in arguments:
        arguments = [word for word in arguments if word != "--quiet"]
        os.environ[QUIET] = "1"
    if arguments[:1] == ["train"]:
        from kornia_bingan.cli.train import train  # its defaults depend on its arguments

        return train(arguments[1:])
    if arguments[:1] in (["--help"], ["-h"]):
        print(overview())
        return 0
    how: dict[str, Any] = {"config": (tyro.conf.OmitArgPrefixes,), "registry": ARGUMENTS}
    name = arguments[0] if arguments else ""
    # Of one command only its own options are looked at; all of them are for completion, and for what is no command.
    if name in COMMANDS:
        status = tyro.cli(COMMANDS[name], prog=f"bingan {name}", args=arguments[1:], **how)
    else:
        status = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="bingan", args=arguments, **how)
    sys.stdout.flush()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
