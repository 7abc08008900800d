"""Verifiers broken on purpose; what each does is in its instance's name, so that neighbours in a batch are healthy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    FloatArray,
    Instance,
    Kind,
    Status,
    UnsupportedError,
    Verdict,
    Verifier,
)
from prunecert.verifiers.settings import Setting

#: Faults leave the pids that they start here.
PIDS = "PRUNECERT_TEST_PIDS"
#: Where a mortal verifier dies (``start`` or ``load``), how often, and the file that counts, separated by commas.
DEATHS = "PRUNECERT_TEST_DEATHS"
#: What the cold verifier makes once and keeps.
KEPT = "PRUNECERT_TEST_KEPT"


def note(pid: int) -> None:
    """Writes down a process that must not survive."""
    with Path(os.environ[PIDS]).open("a") as stream:
        stream.write(f"{pid}\n")


def _sleep_forever() -> None:
    while True:
        time.sleep(1000)


def hang(_: Instance) -> Verdict:
    _sleep_forever()
    raise AssertionError


def busy(_: Instance) -> Verdict:
    while True:
        pass


def deaf(_: Instance) -> Verdict:
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    _sleep_forever()
    raise AssertionError


def _fork(own_session: bool) -> None:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if own_session:
            os.setsid()
        _sleep_forever()
    note(pid)


def forks(_: Instance) -> Verdict:
    _fork(own_session=False)
    _fork(own_session=True)
    _sleep_forever()
    raise AssertionError


def orphans(_: Instance) -> Verdict:
    """A daemon as daemons are made: forked twice, in a session of its own, its parent gone."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _fork(own_session=True)
        os._exit(0)
    os.waitpid(pid, 0)
    return Verdict(Status.UNKNOWN, "left an orphan")


def program(_: Instance) -> Verdict:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    note(process.pid)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def garbage(_: Instance) -> Verdict:
    os.write(1, b"\x80\x04garbage sat unsat timeout\n\xff\xfe" * 50_000)
    os.write(2, b"Traceback (most recent call last): no, not really\n")
    print("sat", flush=True)
    return Verdict(Status.UNKNOWN, "after much noise")


def killed(_: Instance) -> Verdict:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def segfault(_: Instance) -> Verdict:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def abort(_: Instance) -> Verdict:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def eat(_: Instance) -> Verdict:
    # Far beyond the tests' limit, but not so far that a limit that fails takes the machine with it.
    hoard = [np.ones(2**21) for _ in range(128)]
    _sleep_forever()
    raise AssertionError(len(hoard))


def eat_in_child(question: Instance) -> Verdict:
    if os.fork() == 0:
        os.setsid()
        eat(question)
    _sleep_forever()
    raise AssertionError


def memory_error(_: Instance) -> Verdict:
    raise MemoryError("no more")


def cuda_memory(_: Instance) -> Verdict:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def outside(question: Instance) -> Verdict:
    witness: FloatArray = question.upper + np.ones(1, dtype=np.float32)
    return Verdict(Status.SAT, witness=witness)


def harmless(question: Instance) -> Verdict:
    return Verdict(Status.SAT, witness=question.lower)


def wrong_shape(_: Instance) -> Verdict:
    return Verdict(Status.SAT, witness=np.zeros(5, dtype=np.float32))


def not_a_number(question: Instance) -> Verdict:
    return Verdict(Status.SAT, witness=np.full_like(question.lower, np.nan))


def no_witness(_: Instance) -> Verdict:
    return Verdict(Status.SAT)


def both(question: Instance) -> Verdict:
    return Verdict(Status.UNSAT, witness=question.lower)


def proof_and_witness(question: Instance) -> Verdict:
    return Verdict(Status.SAT, witness=question.lower, bounds=(1.0,) * len(question.spec.disjuncts))


def few_bounds(_: Instance) -> Verdict:
    return Verdict(Status.UNSAT, bounds=(1.0,))


def nan_bound(question: Instance) -> Verdict:
    return Verdict(Status.UNSAT, bounds=(float("nan"),) * len(question.spec.disjuncts))


def infinite_bound(question: Instance) -> Verdict:
    return Verdict(Status.UNSAT, bounds=(float("inf"),) * len(question.spec.disjuncts))


def negative_bound(question: Instance) -> Verdict:
    return Verdict(Status.UNSAT, bounds=(-1.0,) * len(question.spec.disjuncts))


def negative_time(_: Instance) -> Verdict:
    verdict = Verdict(Status.UNKNOWN)
    return replace(verdict, times=replace(verdict.times, bound_s=-1.0))


def raises(_: Instance) -> Verdict:
    raise ValueError("the verifier's own reason")


def exits(_: Instance) -> Verdict:
    sys.exit(0)


def exits_silently(_: Instance) -> Verdict:
    os._exit(0)


def unsupported(_: Instance) -> Verdict:
    raise UnsupportedError("not this property")


def _pipes() -> list[int]:
    """The worker's own pipes: every descriptor above the standard ones that can be written to and is a pipe."""
    results = []
    for entry in Path("/proc/self/fd").iterdir():
        number = int(entry.name)
        info = Path(f"/proc/self/fdinfo/{number}")
        if number > 2 and info.exists() and str(entry.readlink()).startswith("pipe:"):
            flags = int(info.read_text().split("flags:")[1].split()[0], 8)
            if flags & os.O_ACCMODE == os.O_WRONLY:
                results.append(number)
    return results


def half_message(_: Instance) -> Verdict:
    for fd in _pipes():
        os.write(fd, b"PCw1\x40\x00\x00\x00")
    os._exit(0)


def half_message_and_hang(_: Instance) -> Verdict:
    for fd in _pipes():
        os.write(fd, b"PCw1\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00half")
    _sleep_forever()
    raise AssertionError


def stray_bytes(_: Instance) -> Verdict:
    for fd in _pipes():
        os.write(fd, b"unsat")
    return Verdict(Status.UNSAT)


def fine(_: Instance) -> Verdict:
    return Verdict(Status.UNKNOWN, "fine")


def wrong_type(_: Instance) -> Any:
    return "unsat"


def wrong_status(_: Instance) -> Any:
    return Verdict("verified")  # type: ignore[arg-type]


class Faulty(Verifier):
    """Does for each instance what its name says."""

    name = "faulty"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {"count": Setting(default=0, help="of the tests")}
    batch_size = 1

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "1.0", source="test")

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(frozenset({"Flatten", "Gemm"}))

    def load(self, onnx: Path) -> None:
        if "unloadable" in onnx.name:
            raise ValueError("can't read this one")
        if "hanging" in onnx.name:
            _sleep_forever()
        if "crashing" in onnx.name:
            os.kill(os.getpid(), signal.SIGSEGV)

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        verdicts: list[Verdict] = [self._one(instance) for instance in instances]
        return verdicts + verdicts[:1] * int(self.settings["count"])

    def _one(self, instance: Instance) -> Verdict:
        if instance.name == "crash once":
            # The first process to come here dies; the one that replaces it finds the mark.
            mark = Path(f"{os.environ[PIDS]}.mark")
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGSEGV)
            return fine(instance)
        fault: Callable[[Instance], Verdict] = globals()[instance.name]
        return fault(instance)


class FaultyBatch(Faulty):
    """The same, eight instances at a time."""

    name = "faulty-batch"
    batch_size = 8


class FaultyIncomplete(Faulty):
    """The same, called incomplete."""

    name = "faulty-incomplete"
    kind = Kind.INCOMPLETE


class FaultyAttack(Faulty):
    """The same, called an attack."""

    name = "faulty-attack"
    kind = Kind.ATTACK


class Recycled(Faulty):
    """Replaced after three instances."""

    name = "faulty-recycled"
    recycle_after = 3


class Cold(Faulty):
    """Takes a second for its first start on a machine."""

    name = "faulty-cold"

    @classmethod
    def preparation(cls) -> str:
        return "" if Path(os.environ[KEPT]).exists() else "cooking, once for this machine: about 1 s"

    def start(self) -> None:
        if self.preparation():
            time.sleep(1)
            Path(os.environ[KEPT]).touch()


class Unstartable(Faulty):
    """Fails on starting."""

    name = "faulty-start"

    def start(self) -> None:
        raise ImportError("a library is broken")


class Mortal(FaultyBatch):
    """Dies while starting, or while loading, as often as the test says; each death leaves a line where it says."""

    name = "faulty-mortal"

    def start(self) -> None:
        _die("start")

    def load(self, onnx: Path) -> None:
        _die("load")


def _die(where: str) -> None:
    place, deaths, ledger = os.environ[DEATHS].split(",", 2)
    with Path(ledger).open("a+") as stream:
        stream.seek(0)
        count = len(stream.readlines())
        if where == place and count < int(deaths):
            stream.write(f"{os.getpid()}\n")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)


class Missing(Faulty):
    """Is not installed."""

    name = "faulty-missing"

    @classmethod
    def availability(cls) -> Availability:
        return Availability(False, hint="install the missing thing")
