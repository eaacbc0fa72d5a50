"""Units in this process and on Dask's workers: the same bytes, whatever dies meanwhile."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from distributed import Client
from distributed.system import MEMORY_LIMIT

from kornia_bingan import cli
from kornia_bingan.descriptor import BinGAN, describe
from kornia_bingan.errors import JobError, UsageError
from kornia_bingan.keypoints import detect
from kornia_bingan.network.weights import find_weights
from kornia_bingan.reconstruct.describe import describe_photos
from kornia_bingan.reconstruct.features import Features
from kornia_bingan.reconstruct.matches import Block, match_photos
from kornia_bingan.search import index
from kornia_bingan.search.index import update_index
from kornia_bingan.work import workers as cluster
from kornia_bingan.work.engine import Engine, open_engine, run_units
from kornia_bingan.work.files import atomic_path, sha256_of
from kornia_bingan.work.options import FeatureOptions
from kornia_bingan.work.run_folder import TimeLimit
from kornia_bingan.work.unit import Failed, Unit, local_file
from tests.conftest import HEAR_CTRL_C, wait_for
from tests.helpers.photos import texture, write_photos
from tests.helpers.programs import run_program, start_program

LITE = ("--descriptor", "bingan256-lite")
FEW = ("--max-keypoints", "300")
NO_WORKERS = SimpleNamespace(ncores=dict, cancel=lambda futures: None)
"""A client of a scheduler whose workers have all gone."""
LETTER = [Unit("0", ("0", ""))]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_photos(tmp_path_factory.mktemp("engine") / "photos", 12)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "sub").mkdir()
    cv2.imwrite(str(folder / "sub" / "photo0.png"), texture(150, 200, 99))
    return folder


@pytest.fixture(scope="module")
def engine(photos: Path, _workers_are_forked: None) -> Iterator[Engine]:
    """Two workers for all tests that do not end them for good."""
    with open_engine(find_weights("bingan256-lite"), [photos], workers=2) as engine:
        yield engine


def work(engine: Engine, photos: Path, out: Path) -> dict[str, str]:
    """Describe and match all photos; gives the checksums of all files."""
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    few = FeatureOptions(max_keypoints=300)
    skipped = describe_photos(photos, names, out / "features", engine, few, limit=TimeLimit(0))
    assert [item.name for item in skipped] == ["broken.png"]
    assert "is not a JPEG" in skipped[0].reason
    usable = [name for name in names if name != "broken.png"]
    pairs = [(a, b) for i, a in enumerate(usable) for b in usable[i + 1 :]]
    match_photos(pairs, out / "features", out / "matches", 0.8, engine, TimeLimit(0), photos=(photos, {}))
    return {path.relative_to(out).as_posix(): sha256_of(path) for path in out.rglob("[!.]*.npz")}


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder that one process makes, and the checksums of its files."""
    folder = tmp_path_factory.mktemp("alone")
    with open_engine(find_weights("bingan256-lite"), []) as engine:
        files = work(engine, photos, folder)
    assert len(files) == 13 + 2
    return folder, files


@pytest.fixture(scope="module")
def expected(alone: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return alone[1]


def test_threads_change_no_bit() -> None:
    image = texture(240, 320)
    for name, precision in (("bingan256", "float32"), ("bingan256-lite", "bfloat16")):
        found = set()
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            keypoints = detect(image, "dog", 300)
            model = BinGAN.from_pretrained(name, precision=precision)  # type: ignore[arg-type]
            found.add(describe(model, image, keypoints).tobytes() + keypoints.xy.tobytes())
        assert len(found) == 1, name


def test_dask_is_not_loaded_where_it_is_not_used(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    program = (
        "import sys; from kornia_bingan import cli\n"
        f"assert cli.main(['describe', {str(photos)!r}, {str(tmp_path / 'out')!r}, *{[*LITE, *FEW]}]) == 0\n"
        "assert not {'dask', 'distributed'} & set(sys.modules)"
    )
    done = run_program(program)
    assert done.returncode == 0, done.stderr


def test_without_dask_there_is_one_sentence(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for command in ("describe", "reconstruct", "index"):
        assert cli.main([command, str(photos), str(tmp_path / command), "--workers", "2"]) == 2
        assert "need Dask: pip install 'kornia_bingan[cluster]'" in capsys.readouterr().err
        assert not (tmp_path / command).exists()


def test_impossible_options(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers is -1"), open_engine(photos, [], -1):
        pass
    with pytest.raises(UsageError, match="not both"), open_engine(photos, [], 1, "tcp://127.0.0.1:1"):
        pass


def test_no_scheduler_at_the_address(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited = []

    def impatient(address: str, timeout: float) -> object:
        waited.append(timeout)
        return Client(address, timeout=0.2)

    monkeypatch.setattr(cluster, "Client", impatient)
    words = ["describe", str(photos), str(tmp_path / "out"), *LITE, *FEW]
    assert cli.main([*words, "--scheduler", "tcp://127.0.0.1:9"]) == 1
    said = capsys.readouterr().err
    assert "no Dask scheduler answers at tcp://127.0.0.1:9; start" in said
    assert len(said.splitlines()) == 1
    assert cli.main([*words, "--scheduler", "nowhere"]) == 1
    assert waited == [cluster.CONNECT_S] * 2
    assert cli.main(words) == 0


def test_workers_write_the_bytes_of_one_process(
    engine: Engine, photos: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    assert work(engine, photos, tmp_path) == expected


def die_if(name: str, killer: str) -> str:
    if name == killer:
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


def test_a_killed_worker_changes_nothing(
    engine: Engine, photos: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = engine.client.run(os.getpid)
    real, killed = cluster._collect, []

    def kill_after_the_first(running: dict[object, Unit], results: dict[int, object]) -> list[Unit]:
        if not killed and list(tmp_path.rglob("photo*.npz")):
            killed.append(min(workers.values()))
            os.kill(killed[0], signal.SIGKILL)
        return real(running, results)  # type: ignore[arg-type]

    monkeypatch.setattr(cluster, "_collect", kill_after_the_first)
    assert work(engine, photos, tmp_path) == expected
    assert killed


def test_a_unit_that_kills_its_process_is_named_and_the_others_are_done(engine: Engine) -> None:
    names = list("abcdefgh")
    units = [Unit(name, (name, "c")) for name in names]
    words = {"description": "try", "done": "tried", "word": "letter"}
    found = list(run_units(engine, die_if, units, 8, **words))  # type: ignore[arg-type]
    assert [name for name, _ in found] == names
    results = dict(found)
    assert isinstance(results["c"], Failed)
    assert "needs more memory than a worker has, or a library crashes" in results.pop("c").reason
    assert list(results.values()) == list("ABDEFGH")


def test_a_photo_that_kills_its_worker_is_skipped_with_the_reason(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Failed("the process that worked on it died")
    monkeypatch.setattr(
        "kornia_bingan.reconstruct.describe.run_units",
        lambda *arguments, **_: ((unit.name, failed if unit.name == "b.png" else "") for unit in arguments[2]),
    )
    with open_engine(find_weights("bingan256-lite"), []) as engine:
        few = FeatureOptions(max_keypoints=9)
        skipped = describe_photos(photos, ["a.png", "b.png"], tmp_path, engine, few, limit=TimeLimit(0))
    assert [(item.name, item.reason) for item in skipped] == [("b.png", failed.reason)]


def test_few_units_are_in_work_at_a_time_and_the_limit_is_kept(engine: Engine) -> None:
    taken = []

    def many() -> Iterator[Unit]:
        for number in range(10**9):
            taken.append(number)
            yield Unit(str(number), (str(number), ""))

    words = {"description": "try", "done": "tried", "word": "number"}
    results = run_units(engine, die_if, many(), 10**9, **words)  # type: ignore[arg-type]
    assert [next(results)[1] for _ in range(5)] == list("01234")
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 100
    with pytest.raises(JobError, match=r"the time limit of 0\.3 s was reached, \d+ of 1000000000 numbers are tried"):
        list(run_units(engine, die_if, many(), 10**9, limit=TimeLimit(0.3), **words))  # type: ignore[arg-type]


def what_a_worker_has(sha256: str) -> tuple[str, str]:
    path = local_file(sha256)
    return str(path), sha256_of(path)


def test_the_weights_travel(engine: Engine) -> None:
    words = {"description": "ask", "done": "asked", "word": "worker"}
    units = [Unit("0", (engine.sha256,))]
    ((_, (path, sha256)),) = run_units(engine, what_a_worker_has, units, 1, **words)  # type: ignore[arg-type]
    assert sha256 == engine.sha256 == sha256_of(find_weights("bingan256-lite"))
    assert path != str(find_weights("bingan256-lite"))
    with pytest.raises(JobError, match="was not given the weights"):
        list(run_units(engine, what_a_worker_has, [Unit("0", ("other",))], 1, **words))  # type: ignore[arg-type]


def fill_the_disk(target: str) -> None:
    with atomic_path(Path(target)) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_sentence_from_a_worker_too(engine: Engine, tmp_path: Path) -> None:
    units = [Unit("0", (str(tmp_path / "a.npz"),))]
    with pytest.raises(JobError, match=r"a\.npz cannot be written: no space left on device; make room and run it"):
        list(run_units(engine, fill_the_disk, units, 1, description="fill", done="filled", word="disk"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_command(photos: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writing fails in the middle of a file."""
    out = tmp_path / "out"
    words = ["describe", str(photos), str(out), *LITE, *FEW]
    done = run_program(
        "from resource import RLIMIT_FSIZE, getrlimit, setrlimit\nfrom kornia_bingan.cli import main\n"
        "before = getrlimit(RLIMIT_FSIZE)\nsetrlimit(RLIMIT_FSIZE, (6000, before[1]))\n"
        f"status = main({words!r})\n"
        "setrlimit(RLIMIT_FSIZE, before)\nraise SystemExit(status)"
    )
    assert done.returncode == 1
    assert re.fullmatch(r"bingan: \S*photo0\.png\.npz cannot be written: file too large; make room .*\n", done.stderr)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "log", "run.json"]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        return repr(read(path))
    except UsageError as error:
        return str(error)


def test_a_flipped_byte_is_noticed_wherever_it_is(alone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """In the arrays every flip is; in what zip says around them, a flip is noticed or changes nothing."""
    shutil.copytree(alone[0], tmp_path, dirs_exist_ok=True)
    for path, read in (
        (tmp_path / "features" / "photo1.png.npz", Features.read),
        (tmp_path / "matches" / "000001.npz", Block.read),
    ):
        whole = path.read_bytes()
        wanted = repr(read(path))
        arrays = [match.end() for match in re.finditer(rb"\x93NUMPY", whole)]
        noticed = 0
        for position in range(0, len(whole), max(1, len(whole) // 300)):
            flip(path, position)
            found = outcome(read, path)
            assert found in (wanted, f"{path} is no file of {path.parent.name}; run the command again to make it anew")
            noticed += found != wanted
            path.write_bytes(whole)
        assert noticed > 250
        for start in arrays:
            flip(path, start + 130)
            with pytest.raises(UsageError):
                read(path)
            path.write_bytes(whole)


def test_damaged_files_are_made_again(photos: Path, alone: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    shutil.copytree(alone[0], tmp_path, dirs_exist_ok=True)
    with open_engine(find_weights("bingan256-lite"), []) as engine:
        flip(tmp_path / "features" / "photo1.png.npz", 3000)
        flip(tmp_path / "matches" / "000001.npz", 2000)
        (tmp_path / "matches" / "000000.npz").write_bytes(b"PK")
        assert work(engine, photos, tmp_path) == alone[1]


def test_an_index_by_workers_is_the_same(
    engine: Engine, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, tmp_path / "photos", ignore=shutil.ignore_patterns("photo[4-9]*", "photo1?.png"))
    shutil.copy(photos / "photo3.png", tmp_path / "photos" / "copy.png")
    alone = update_index(tmp_path / "photos", tmp_path / "alone", "bingan256-lite")
    monkeypatch.setattr(index, "open_engine", lambda *_: nullcontext(engine))
    shared = update_index(tmp_path / "photos", tmp_path / "shared", "bingan256-lite")
    assert alone == shared
    assert {item.name for item in alone.skipped} == {"broken.png", "photo3.png"}
    for path in (tmp_path / "alone").rglob("*[!t]"):  # the log has the times
        if path.is_file():
            assert (tmp_path / "shared" / path.relative_to(tmp_path / "alone")).read_bytes() == path.read_bytes()


def test_ctrl_c_ends_the_workers_too(tmp_path: Path) -> None:
    """A terminal sends it to the command and its workers; here the command does, when the first photo is described."""
    photos, out = write_photos(tmp_path / "photos", 12), tmp_path / "out"
    words = ["describe", str(photos), str(out), *LITE, "--workers", "1"]
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom kornia_bingan import cli\n"
        "os.setsid()\nprint(os.getpid(), flush=True)\n"
        "from kornia_bingan.work import workers as cluster\n"
        "collect = cluster._collect\n"
        "def collect_and_interrupt(running, results):\n"
        f"    if list(Path({str(out)!r}).glob('photo*.npz')):\n"
        "        os.killpg(0, signal.SIGINT)\n"
        "    return collect(running, results)\n"
        "cluster._collect = collect_and_interrupt\n"
        f"sys.exit(cli.main({words!r}))"
    )
    done = run_program(HEAR_CTRL_C + program)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "bingan: interrupted; run it again to resume\n"
    assert 0 < len(list(out.glob("photo*.npz"))) < 12
    wait_for(lambda: not living(int(done.stdout.split()[0])))


@pytest.fixture
def sigint_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_as_before")
def test_a_command_in_the_background_does_not_HEAR_CTRL_C(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell without job control starts it with SIGINT ignored, which is how it stays."""
    monkeypatch.setattr(cluster, "WORKERLESS_S", 0.5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(JobError, match="all workers have been gone"):
        list(cluster.run(NO_WORKERS, die_if, LETTER, lambda: os.kill(os.getpid(), signal.SIGINT)))  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        list(cluster.run(NO_WORKERS, die_if, LETTER, lambda: os.kill(os.getpid(), signal.SIGINT)))  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def living(session: int) -> list[str]:
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if own == str(session) and state != "Z":
            found.append(path.parent.name)
    return found


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, BaseProcess]]:
    """A scheduler on this machine, without workers."""
    about = tmp_path / "scheduler.json"
    words = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(about)]
    process = start_dask(tmp_path, *words)
    wait_for(lambda: about.exists() and about.read_text().rstrip().endswith("}"))
    yield json.loads(about.read_text())["address"], process
    process.kill()
    process.join()


def start_dask(folder: Path, *words: str) -> BaseProcess:
    """Start a command of ``dask`` in a folder."""
    said = Path(os.devnull), Path(os.devnull)
    program = f"import sys; from dask.__main__ import main; sys.argv = {['dask', *words]}; main()"
    return start_program(program, said, folder)


def test_a_running_cluster(
    scheduler: tuple[str, BaseProcess],
    photos: Path,
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No workers, other versions, work done, and the scheduler's end in the middle."""
    address, process = scheduler
    words = ["describe", str(photos), str(tmp_path / "out"), *LITE, *FEW, "--scheduler", address]
    real, waited = Client.wait_for_workers, []

    def impatient(client: Client, n_workers: int, timeout: float) -> None:
        waited.append((n_workers, timeout))
        real(client, n_workers, timeout=0.2)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "wait_for_workers", impatient)
        assert cli.main(words) == 1
    assert waited == [(1, cluster.CONNECT_S)]
    assert f"the scheduler at {address} has no workers; start 'dask worker {address}'" in capsys.readouterr().err
    monkeypatch.setattr(cluster, "CONNECT_S", 300)  # a loaded machine starts a worker late
    worker = start_dask(tmp_path, "worker", address, "--nthreads", "2", "--no-dashboard", "--no-nanny")
    try:
        assert cli.main(words) == 0
        found = {path.name: sha256_of(path) for path in (tmp_path / "out").glob("photo*.npz")}
        assert len(found) == 12
        assert all(expected[f"features/{name}"] == sha256 for name, sha256 in found.items())
        with (
            pytest.raises(JobError, match=r"does not see .*elsewhere; photos and results must lie"),
            open_engine(find_weights("bingan256-lite"), [tmp_path / "elsewhere"], scheduler=address),
        ):
            pass
        with open_engine(find_weights("bingan256-lite"), [photos], scheduler=address) as engine:
            units = (Unit(str(number), (str(number), "")) for number in range(10**9))
            results = run_units(engine, die_if, units, 10**9, description="try", done="tried", word="number")
            assert next(results) == ("0", "0")
            process.kill()
            with pytest.raises(JobError, match=r"the Dask scheduler at tcp://127.* is gone; start it again"):
                list(results)
    finally:
        worker.kill()
        worker.join()


def test_workers_that_stay_away_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WORKERLESS_S", 0.5)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(JobError, match=r"all workers have been gone for 0\.5 s; run it again to resume"):
        list(cluster.run(NO_WORKERS, die_if, LETTER, lambda: None))  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) is before


def test_another_version_on_a_worker_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = cluster.versions()
    equipment = cluster.Equipment(b"weights", "0", "float32", [], 0)
    monkeypatch.setattr(cluster, "versions", lambda: {**here, "torch": "1.0"})
    with pytest.raises(JobError, match=rf"has torch 1\.0, the command {re.escape(str(here['torch']))}; install the sa"):
        equipment.setup(None)
    monkeypatch.undo()
    with pytest.raises(JobError, match="was given damaged weights"):
        equipment.setup(None)


def equipped(worker: Path, precision: str, workers: int) -> None:
    data = b"weights"
    sha256 = hashlib.sha256(data).hexdigest()
    cluster.Equipment(data, sha256, precision, [], workers).setup(SimpleNamespace(local_directory=str(worker)))
    assert (worker / f"{sha256}.safetensors").read_bytes() == data


@pytest.mark.usefixtures("sigint_as_before")
def test_processes_of_this_machine_share_its_cores_and_keep_freed_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(cluster, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(cluster, "usable_cores", lambda: 8)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    equipped(tmp_path, "float32", 0)  # another's worker: its threads do a unit each
    assert (torch.get_num_threads(), cv2.getNumThreads(), kept) == (1, 1, [])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for workers, threads in ((2, 4), (5, 1), (16, 1)):
        equipped(tmp_path, "float32", workers)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (threads, threads)
    assert kept == [True] * 3
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_worker_without_bfloat16_is_refused_where_the_command_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "has_bfloat16", lambda device: False)
    equipped(tmp_path, "float32", 0)
    with pytest.raises(JobError, match="does not compute in bfloat16, the machine of the command does"):
        equipped(tmp_path, "bfloat16", 0)
    monkeypatch.setattr(cluster, "has_bfloat16", lambda device: device == torch.device("cpu"))
    equipped(tmp_path, "bfloat16", 0)


@pytest.mark.parametrize(("able", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_workers_compute_in_the_precision_of_the_command(
    able: bool, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[object] = []
    weights = find_weights("bingan256-lite")
    monkeypatch.setattr("kornia_bingan.work.engine.has_bfloat16", lambda device: able and device == torch.device("cpu"))
    monkeypatch.setattr(cluster, "connect", lambda workers, scheduler: nullcontext("client"))
    monkeypatch.setattr(cluster, "equip", lambda *arguments: given.extend(arguments))
    with open_engine(weights, [tmp_path], workers=2) as engine:
        assert engine == Engine("client", sha256_of(weights), precision)  # type: ignore[arg-type]
    assert given == ["client", weights.read_bytes(), sha256_of(weights), precision, [tmp_path], 2]
    with open_engine(weights, []) as engine:
        assert engine.precision == precision


def memory_of(dask_worker: Any) -> tuple[object, ...]:
    """Limit in bytes; from which parts of it Dask moves results to files, and pauses the worker."""
    manager = dask_worker.memory_manager
    parts = manager.memory_target_fraction, manager.memory_spill_fraction, manager.memory_pause_fraction
    return manager.memory_limit, *parts


def test_workers_share_the_memory_and_are_never_paused_for_it(engine: Engine) -> None:
    """Freed memory is kept, so a worker that was paused for much of it would never go on."""
    found = engine.client.run(memory_of)
    assert list(found.values()) == [(MEMORY_LIMIT // 2, False, False, False)] * 2
    assert set(engine.client.ncores().values()) == {1}
