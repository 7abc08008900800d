"""Verifiers broken on purpose: each ends in the right status, in time, alone, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status
from prunecert.verifiers.process.worker import Worker
from tests.verifiers import faulty, onnxnets

LIMIT_S = 0.4
GRACE_S = 1.0
#: A limit that only a hang reaches.
PATIENT_S = 60.0
#: What a loaded machine may add to a limit.
SLACK_S = 10.0

for _name, _class in [
    ("faulty", "Faulty"),
    ("faulty-attack", "FaultyAttack"),
    ("faulty-batch", "FaultyBatch"),
    ("faulty-incomplete", "FaultyIncomplete"),
    ("faulty-missing", "Missing"),
    ("faulty-recycled", "Recycled"),
    ("faulty-start", "Unstartable"),
]:
    VERIFIERS.register(_name, f"tests.verifiers.faulty:{_class}")

#: Fault, status, and what the reason must say.
FAULTS = [
    ("hang", Status.TIMEOUT, "took longer than the limit"),
    ("busy", Status.TIMEOUT, "took longer than the limit"),
    ("deaf", Status.TIMEOUT, "took longer than the limit"),
    ("forks", Status.TIMEOUT, "took longer than the limit"),
    ("half_message_and_hang", Status.TIMEOUT, "took longer than the limit"),
    ("orphans", Status.UNKNOWN, "left an orphan"),
    ("program", Status.ERROR, "SIGKILL"),
    ("garbage", Status.UNKNOWN, "after much noise"),
    ("killed", Status.ERROR, "SIGKILL"),
    ("segfault", Status.ERROR, "SIGSEGV"),
    ("abort", Status.MEMOUT, "std::bad_alloc"),
    ("eat", Status.MEMOUT, "MiB resident"),
    ("eat_in_child", Status.MEMOUT, "MiB resident"),
    ("memory_error", Status.MEMOUT, "MemoryError: no more"),
    ("cuda_memory", Status.MEMOUT, "CUDA out of memory"),
    ("outside", Status.ERROR, "outside the box"),
    ("harmless", Status.ERROR, "not unsafe"),
    ("wrong_shape", Status.ERROR, "5 values"),
    ("not_a_number", Status.ERROR, "no counterexample"),
    ("no_witness", Status.ERROR, "without a counterexample"),
    ("both", Status.ERROR, "unsat with a counterexample"),
    ("proof_and_witness", Status.ERROR, "bounds that prove unsat"),
    ("few_bounds", Status.ERROR, "1 bounds for 9 disjuncts"),
    ("nan_bound", Status.ERROR, "not a number"),
    ("infinite_bound", Status.ERROR, "infinite"),
    ("negative_time", Status.ERROR, "times that can't be"),
    ("raises", Status.ERROR, "ValueError: the verifier's own reason"),
    ("exits", Status.ERROR, "SystemExit"),
    ("exits_silently", Status.ERROR, "exit code 0"),
    ("unsupported", Status.UNSUPPORTED, "not this property"),
    ("half_message", Status.ERROR, "exit code 0"),
    ("stray_bytes", Status.ERROR, "makes no sense"),
    ("wrong_type", Status.ERROR, "str 'unsat' where a Verdict belongs"),
    ("wrong_status", Status.ERROR, "'verified', which is none"),
]
#: Faults of answers alone, which a process outlives.
ANSWERS = [
    "outside",
    "harmless",
    "wrong_shape",
    "not_a_number",
    "no_witness",
    "both",
    "proof_and_witness",
    "few_bounds",
    "nan_bound",
    "infinite_bound",
    "negative_time",
    "raises",
    "unsupported",
]


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of pids that must not survive; the test fails if one does, or if one of our own children does."""
    path = tmp_path / "pids"
    path.touch()
    monkeypatch.setenv(faulty.PIDS, str(path))
    before = set(psutil.Process().children(recursive=True))
    yield path
    left = [int(line) for line in path.read_text().split() if alive(int(line))]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    assert set(psutil.Process().children(recursive=True)) <= before


def alive(pid: int, patience_s: float = 30.0) -> bool:
    """Whether a process is still there, and no zombie, after a while."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.linear(tmp_path_factory.mktemp("faults") / "net.onnx")


def questions(network: Path, *names: str) -> list[Instance]:
    # Memory is eaten at the machine's pace: there the limit on memory must be the first to be met.
    limits = {name: PATIENT_S if name.startswith("eat") else LIMIT_S for name in names}
    return [onnxnets.instance(network, 0.01, name=name, timeout=limits[name]) for name in names]


def limit_s(fault: str) -> float:
    """A short limit for what ends at it; all else has time, however busy the machine is."""
    return LIMIT_S if fault in {name for name, status, _ in FAULTS if status is Status.TIMEOUT} else PATIENT_S


def worker(name: str, **options: object) -> Worker:
    return Worker(name, memory_limit_mb=250, grace_s=GRACE_S, threads=1, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lasting(network: Path) -> Iterator[Worker]:
    """A worker whose process is there before the tests' own, and outlives what they ask of it."""
    with worker("faulty") as subject:
        subject.verify(questions(network, "fine"))
        yield subject


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "status", "reason"), [row for row in FAULTS if row[0] not in ANSWERS])
def test_every_fault_has_its_status(fault: str, status: Status, reason: str, network: Path, pids: Path) -> None:
    with worker("faulty") as subject:
        check_fault(subject, fault, status, reason, network)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "status", "reason"), [row for row in FAULTS if row[0] in ANSWERS])
def test_every_fault_of_an_answer_has_its_status_and_spares_the_process(
    lasting: Worker, fault: str, status: Status, reason: str, network: Path, pids: Path
) -> None:
    process = lasting.pid
    check_fault(lasting, fault, status, reason, network)
    assert lasting.pid == process


def check_fault(subject: Worker, fault: str, status: Status, reason: str, network: Path) -> None:
    instances = [onnxnets.instance(network, 0.01, name=name, timeout=limit_s(name)) for name in ("fine", fault, "fine")]
    first, broken, last = subject.verify(instances)
    assert broken.status is status
    assert reason in broken.detail
    assert broken.witness is None
    assert first.status is last.status is Status.UNKNOWN
    assert first.detail == last.detail == "fine"
    assert broken.times.wall_s <= limit_s(fault) + GRACE_S + SLACK_S


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verifier", "fault", "reason"),
    [
        ("faulty-incomplete", "negative_bound", "lowest bound of -1"),
        ("faulty-incomplete", "outside", "incomplete verifier but answered sat"),
        ("faulty-attack", "both", "attack but answered unsat"),
    ],
)
def test_what_a_kind_of_verifier_can_not_say(verifier: str, fault: str, reason: str, network: Path, pids: Path) -> None:
    with worker(verifier) as subject:
        (verdict,) = subject.verify(questions(network, fault))
    assert verdict.status is Status.ERROR
    assert reason in verdict.detail
    assert verdict.bounds is None


@pytest.mark.slow
def test_all_faults_together_in_one_worker(network: Path, pids: Path) -> None:
    # Each that hangs takes seconds of waiting; two of them stand for all, which are tried alone above.
    faults = [(fault, status) for fault, status, _ in FAULTS if fault not in ("busy", "deaf", "half_message_and_hang")]
    names = [name for fault, _ in faults for name in ("fine", fault)]
    with worker("faulty-batch") as subject:
        verdicts = subject.verify(questions(network, *names))
    assert [verdict.status for verdict in verdicts[1::2]] == [status for _, status in faults]
    assert {verdict.detail for verdict in verdicts[::2]} == {"fine"}


@pytest.mark.parametrize("count", [1, -1])
def test_a_wrong_number_of_verdicts(count: int, network: Path, pids: Path) -> None:
    with worker("faulty-batch", settings={"count": max(count, 0)}) as subject:
        verdicts = subject.verify(questions(network, "fine", "fine", "fine"))
    expected = (Status.ERROR, "2 verdicts for 1 instances") if count > 0 else (Status.UNKNOWN, "fine")
    assert [(v.status, v.detail.removeprefix("ValueError: the verifier returned ")) for v in verdicts] == [expected] * 3


def test_a_crash_that_does_not_repeat_is_retried(network: Path, pids: Path) -> None:
    with worker("faulty") as subject:
        (verdict,) = subject.verify(questions(network, "crash once"))
    assert (verdict.status, verdict.detail) == (Status.UNKNOWN, "fine")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("unloadable", Status.ERROR, "can't read this one"),
        ("hanging", Status.TIMEOUT, "loading the network took longer"),
        ("crashing", Status.ERROR, "SIGSEGV while loading the network"),
    ],
)
def test_loading_fails(name: str, status: Status, reason: str, network: Path, tmp_path: Path, pids: Path) -> None:
    bad = onnxnets.linear(tmp_path / f"{name}.onnx", seed=1)
    with worker("faulty-batch", load_limit_s=LIMIT_S) as subject:
        instances = [*questions(network, "fine"), *questions(bad, "fine", "fine"), *questions(network, "fine")]
        verdicts = subject.verify(instances)
    assert [verdict.status for verdict in verdicts] == [Status.UNKNOWN, status, status, Status.UNKNOWN]
    assert all(reason in verdict.detail for verdict in verdicts[1:3])


def test_starting_fails(network: Path, pids: Path) -> None:
    with worker("faulty-start") as subject:
        verdicts = subject.verify(questions(network, "fine", "fine"))
    assert [verdict.status for verdict in verdicts] == [Status.ERROR] * 2
    assert all("ImportError: a library is broken" in verdict.detail for verdict in verdicts)
    assert "ImportError" in verdicts[0].log_tail


def test_output_goes_to_the_log_and_its_tail_into_failures(network: Path, tmp_path: Path, pids: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    with worker("faulty", log=log) as subject:
        noisy, failed, quiet = subject.verify(questions(network, "garbage", "raises", "fine"))
    assert log.read_bytes().count(b"garbage sat unsat timeout") == 50_000
    assert "ValueError: the verifier's own reason" in failed.log_tail
    assert len(failed.log_tail.splitlines()) <= 40
    assert noisy.log_tail == quiet.log_tail == ""


@pytest.mark.slow
def test_replaced_after_its_number_of_instances(network: Path, pids: Path) -> None:
    identities = []
    with worker("faulty-recycled") as subject:
        for _ in range(7):
            (verdict,) = subject.verify(questions(network, "fine"))
            identities.append((subject.pid, verdict.times.start_s > 0))
    assert len({pid for pid, _ in identities}) == 3
    assert [started for _, started in identities] == [True, False, False, True, False, False, True]


def test_unavailable_and_unknown_are_user_errors() -> None:
    with pytest.raises(UserError, match="unavailable: install the missing thing"):
        Worker("faulty-missing")
    with pytest.raises(UserError, match="Did you mean 'faulty'"):
        Worker("fauty")
    with pytest.raises(UserError, match=r"setting '.*' of verifier 'faulty'"):
        Worker("faulty", {"cuont": 1})
    with pytest.raises(UserError, match="Device 'tpu' is refused"):
        Worker("faulty", device="tpu")


def test_close_from_another_thread_ends_the_wait(network: Path, pids: Path) -> None:
    subject = worker("faulty")
    answers: list[Status] = []
    (question,) = questions(network, "hang")
    patient = Instance(**{**question.__dict__, "timeout": 60.0})
    thread = threading.Thread(target=lambda: answers.extend(v.status for v in subject.verify([patient])))
    thread.start()
    while subject.pid is None:
        time.sleep(0.01)
    time.sleep(0.2)
    subject.close()
    thread.join(PATIENT_S)
    assert answers == [Status.ERROR]
    with pytest.raises(UserError, match="closed"):
        subject.verify([question])


SCRIPT = """
import signal
import sys
from pathlib import Path
from tests.verifiers.process import test_faults
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.base import Instance
# Ignored from the start where the tests run in a shell's background.
signal.signal(signal.SIGINT, signal.default_int_handler)
network = Path(sys.argv[1])
with Worker("faulty", grace_s=60.0) as subject:
    (question,) = test_faults.questions(network, "forks")
    print("ready", flush=True)
    subject.verify([Instance(**{**question.__dict__, "timeout": 60.0})])
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_parent(signum: int, network: Path, pids: Path) -> None:
    """SIGKILL leaves the parent no time for anything; Ctrl-C must end all within seconds."""
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(network)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    with parent.stdout:
        parent.stdout.readline()
        end = time.monotonic() + 30
        while len(pids.read_text().split()) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        below = psutil.Process(parent.pid).children(recursive=True)
        # Supervisor, verifier, and the two that it forked.
        assert len(below) >= 4
        begin = time.monotonic()
        parent.send_signal(signum)
        parent.wait(30)
        _, left = psutil.wait_procs(below, timeout=30)
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_only_what_was_started_is_killed(network: Path, pids: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as bystander:
        with worker("faulty") as subject:
            subject.verify(questions(network, "hang", "forks", "killed"))
        assert bystander.poll() is None
        bystander.kill()
