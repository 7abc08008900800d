"""A verifier process that is asked for certificates, too: right after an answer, while its search is still there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunecert.errors import UserError
from prunecert.verifiers.base import FloatArray, Instance, Status
from prunecert.verifiers.certification import Written
from prunecert.verifiers.process.parent import ProcessError
from prunecert.verifiers.process.worker import Worker

#: How many times the search's limit all of it may take, and seconds beyond that: reading, rounding and checking.
_TIMES, _BEYOND_S = 4.0, 60.0


class CertifyingWorker(Worker):
    """A worker whose answers can be certified; arguments as `Worker`."""

    def certify(
        self, instances: Sequence[Instance], vnnlib: bytes, timeout: float, witness: FloatArray | None = None
    ) -> tuple[Written, bytes]:
        """Certifies an answer: from the searches that found it if this worker's last answers were those.

        A failure never raises; it becomes a reason.

        Args:
            instances: The questions, one for each box of a property; at least one.
            vnnlib: The same as text.
            timeout: Seconds for a search.
            witness: The counterexample, where the answer is `sat`; None where it is `unsat`.

        Returns:
            What came of it, and the file's content; empty where there is none.

        Raises:
            UserError: The worker is closed.
        """
        with self._lock:
            if self.closed():
                raise UserError(f"The worker of {self.name!r} is closed; make a new one.")
            point = None if witness is None else (witness.shape, witness.tobytes())
            questions = [instance.question() for instance in instances]
            arguments = (str(instances[0].onnx), vnnlib, timeout, point, questions)
            try:
                self._process.ready(instances[0])
                reply, _ = self._process.ask("certify", arguments, _TIMES * timeout + _BEYOND_S)
                return _written(reply)
            except ProcessError as failure:
                if failure.fatal:
                    self._process.drop()
                status = Status.TIMEOUT if failure.kind == "timeout" else Status.ERROR
                return Written(str(status), failure.detail or "it failed", search_s=failure.wall_s), b""
            except BaseException:
                # Ctrl-C above all: nothing may run on when the caller has given up.
                self._process.drop()
                raise
            finally:
                if self.closed():
                    self._process.end()


def _written(reply: dict[str, Any]) -> tuple[Written, bytes]:
    return Written(**reply["written"]), reply["content"]
