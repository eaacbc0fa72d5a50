"""The command ``bingan``: which command is asked for, what its arguments mean, and how it ends.

Exit status 0: done; 1: the job could not be done; 2: wrong use. Results go to stdout, messages to stderr.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

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
    except SystemExit as error:  # of the argument parser: 0 after --help, 2 for wrong arguments
        return error.code if isinstance(error.code, int) else 2
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
    words = ", ".join([*COMMANDS, "train"])
    description = f"Learned 256-bit local descriptors. bingan COMMAND --help explains each of: {words}. "
    description += "With --quiet, no command shows progress."
    status = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="bingan",
        description=description,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
        registry=ARGUMENTS,
    )
    sys.stdout.flush()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
