"""The tests that compute, under the processors of others: ``python -m tests.cpus [SETTING ...] [-- ARGUMENTS]``.

The libraries choose their code by the processor, and other code rounds otherwise. Each setting limits what they may
use, and changes the number of threads, the hashes of strings and the order of the tests as well. With names of
settings only those are tried; what follows ``--`` goes to pytest.

What a processor lacks cannot be tried on it: forced there, it ends the process. So a setting is limited to what the
processor has, and the closing table says what was in force.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

LEVELS = ("default", "avx2", "avx512")
"""Of torch, from what every processor has upwards."""
NEW = ("SSE4.1", "SSE4.2", "AVX", "FP16", "AVX2", "AVX512-SKX")
"""What OpenCV has code for beyond what every processor has."""


@dataclass(frozen=True)
class Setting:
    """What the libraries may use, and what else is changed with it.

    Attributes:
        torch: ``ATEN_CPU_CAPABILITY``, one of :data:`LEVELS`.
        onednn: ``ONEDNN_MAX_CPU_ISA``, for convolutions.
        threads: of torch and OpenCV.
        seed: of the order of the tests and of the hashes of strings.
        without: of :data:`NEW`, ``OPENCV_CPU_DISABLE``.
        other: further variables of the environment.
    """

    torch: str
    onednn: str
    threads: int
    seed: int
    without: tuple[str, ...] = ()
    other: dict[str, str] = field(default_factory=dict)

    def environment(self, machine: Machine) -> dict[str, str]:
        """Give the variables that stand for the setting on a machine."""
        # Libraries differ in what they make of a feature that is not there: torch crashes on code that it is told to
        # use, OpenCV writes to stderr, oneDNN takes it as the limit that it is.
        variables = {
            "ATEN_CPU_CAPABILITY": min(self.torch, machine.level, key=LEVELS.index),
            "ONEDNN_MAX_CPU_ISA": self.onednn,
            "OPENCV_CPU_DISABLE": ",".join(name for name in self.without if name in machine.features),
            "TEST_THREADS": str(self.threads),
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "passive",  # several workers share the cores, and waiting threads would spin on them
            "PYTHONHASHSEED": str(self.seed),
            "TEST_ORDER": str(self.seed),
            **self.other,
        }
        return {name: value for name, value in variables.items() if value}


@dataclass(frozen=True)
class Machine:
    """What the libraries use in an environment.

    Attributes:
        level: of torch, one of :data:`LEVELS`.
        features: of OpenCV, with :data:`NEW`.
    """

    level: str
    features: tuple[str, ...]


SETTINGS = {
    "oldest": Setting(
        "default",
        "SSE41",
        threads=1,
        seed=1,
        without=NEW,
        other={
            "OPENCV_IPP": "sse42",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "OPENBLAS_CORETYPE": "Nehalem",
            "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
        },
    ),
    "avx2": Setting("avx2", "AVX2", threads=2, seed=2, without=("AVX512-SKX",), other={"OPENCV_IPP": "sse42"}),
    "avx512": Setting("avx512", "AVX512_CORE", threads=1, seed=3),
    "mixed": Setting("default", "ALL", threads=2, seed=4, without=("AVX2", "AVX512-SKX")),
    "whole": Setting("avx512", "ALL", threads=2, seed=5),
}

LEFT_OUT = {
    "the files of the project": ["whole/test_habits", "whole/test_import_order", "whole/test_readme"],
    "files, decoders and names": [
        "images/test_containers",
        "eval/test_fuzz",
        "images/test_exif",
        "work/test_files",
        "images/test_read",
        "whole/test_odd_folders",
        "images/test_fetch",
    ],
    "records and pages of what was computed elsewhere": (
        [
            "eval/test_bundle",
            "eval/test_cache",
            "eval/test_reads",
            "eval/test_report",
            "reconstruct/test_page",
            "work/test_provenance",
            "report/test_text",
            "train/test_plots",
            "work/test_run_folder",
        ]
    ),
    "processes": ["work/test_isolated", "eval/test_cluster", "eval/test_speed"],
    "whole numbers alone": ["eval/test_scale_search", "search/test_stores"],
}
"""Test modules, without their ``.py``, in which no setting can change anything, by what they test."""


def modules() -> list[str]:
    """Give the files of the tests that compute."""
    left_out = {f"tests/{name}.py" for names in LEFT_OUT.values() for name in names}
    return [path for path in sorted(map(str, Path("tests").rglob("test_*.py"))) if path not in left_out]


def look(environment: dict[str, str]) -> Machine:
    """Ask the libraries what they use in an environment."""
    program = "import cv2, torch; print(torch.backends.cpu.get_cpu_capability()); print(cv2.getCPUFeaturesLine())"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    level, features = done.stdout.splitlines()
    # "SSE SSE2 *AVX *AVX2?": with a star what is not always used, with a question mark what is not used here
    found = (word.removeprefix("*") for word in features.split())
    return Machine(level.lower(), tuple(word for word in found if not word.endswith("?")))


def main(arguments: list[str]) -> int:
    """Try settings one after the other; gives 1 if one of them failed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    wanted, given = arguments[:end] or list(SETTINGS), arguments[end + 1 :]
    if unknown := set(wanted) - set(SETTINGS):
        print(f"there is no setting {min(unknown)}; choose of {', '.join(SETTINGS)}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pytest", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile"]
    command += ["--no-loadscope-reorder", *(given or modules())]
    machine = look({})
    rows = []
    for name in wanted:
        environment = SETTINGS[name].environment(machine)
        print(f"\n{name}: {' '.join(f'{key}={value}' for key, value in environment.items())}", flush=True)
        started, found = time.monotonic(), look(environment)
        status = subprocess.run(command, check=False, env={**os.environ, **environment}).returncode
        rows.append((name, found, SETTINGS[name], status, time.monotonic() - started))
    print("\nsetting  in force: torch, OpenCV, threads, order  outcome")
    for name, found, setting, status, seconds in rows:
        newest = next((feature for feature in reversed(found.features) if feature in NEW), "none")
        outcome = "passed" if status == 0 else f"FAILED (exit status {status})"
        print(f"{name:7}  {found.level:7}  {newest:10}  {setting.threads}  {setting.seed}  {outcome}, {seconds:.0f} s")
    return int(any(status for *_, status, _ in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
