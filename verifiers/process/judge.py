"""From what a worker process says to a verdict that counts: types, contradictions, replay, rounding."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from prunecert.errors import UserError
from prunecert.verifiers.base import FloatArray, Instance, Kind, OutputSpec, Status, Times, Verdict, Verifier
from prunecert.verifiers.certificate import Certificate, flaw
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.rounding import guard


def judge(verifier: type[Verifier], instance: Instance, plain: dict[str, Any]) -> Verdict:
    """Makes a verdict of a worker's plain answer; nonsense and unconfirmed counterexamples become `error`.

    An `unsat` that rounding may undo, and a counterexample that it does, become `unknown` (`verifiers.rounding.guard`).

    Args:
        verifier: The adapter that answered.
        instance: The question.
        plain: What `verifiers.process.child.encode` wrote.

    Returns:
        The verdict, without what the worker adds (times of the whole, memory, names).
    """
    witness = None
    if plain["witness"] is not None:
        shape, data = plain["witness"]
        witness = np.frombuffer(data, dtype=np.float32).reshape(shape).copy()
    verdict = Verdict(
        status=Status(plain["status"]),
        detail=plain["detail"],
        witness=witness,
        bounds=plain["bounds"],
        times=Times(bound_s=plain["bound_s"], search_s=plain["search_s"]),
        stage=plain["stage"],
        unstable=plain["unstable"],
        domains=plain["domains"],
        iterations=plain["iterations"],
        certificate=None if plain["certificate"] is None else Certificate(**plain["certificate"]),
        device=plain["device"],
        version=plain["version"],
    )
    reason = nonsense(verifier, instance, verdict)
    if reason is not None:
        # Bounds that may be no numbers don't go on into results.
        return replace(
            verdict,
            status=Status.ERROR,
            detail=f"{verifier.name} {reason}",
            witness=None,
            bounds=None,
            stage=None,
            certificate=None,
        )
    if verdict.status is Status.SAT:
        assert verdict.witness is not None
        try:
            check, point = counterexample.replay(instance, verdict.witness)
        except UserError as error:
            return replace(verdict, status=Status.ERROR, detail=f"no replay: {error}", witness=None, stage=None)
        record = check.to_json()
        if not check.in_set and _contains(instance, verdict.witness):
            detail = (
                "a counterexample was found that the network can't be given, whose input isn't float32, and no point "
                "beside it in the input set can be, so that neither answer is established"
            )
            return replace(
                verdict, status=Status.UNKNOWN, detail=detail, witness=None, stage=None, witness_check=record
            )
        if check.in_set and not check.violated and _only_closed(instance.spec, check.outputs):
            detail = (
                "a counterexample was found only where a strict inequality of the property holds with equality, so "
                "that neither answer is established"
            )
            return replace(
                verdict, status=Status.UNKNOWN, detail=detail, witness=None, stage=None, witness_check=record
            )
        if check.in_set and not check.ok and guard.unconfirmed(instance, point):
            # It is one in real arithmetic, or in the property that the verifier was given to leave room for rounding.
            detail = "a point within float32 rounding of the unsafe set was found, which onnxruntime doesn't confirm"
            return replace(
                verdict,
                status=Status.UNKNOWN,
                detail=detail,
                witness=None,
                stage=None,
                bounds=None,
                witness_check=record,
            )
        if not check.ok:
            return replace(
                verdict, status=Status.ERROR, detail=check.rationale, witness=None, stage=None, witness_check=record
            )
        return replace(verdict, witness=point, witness_check=record)
    if verdict.status in (Status.ERROR, Status.UNSUPPORTED, Status.MEMOUT) and not verdict.detail:
        return replace(verdict, detail=f"{verifier.name} answered {verdict.status} and said no more")
    return guard.guard(verifier, instance, verdict)


def _contains(instance: Instance, witness: FloatArray) -> bool:
    """Whether a point as it was claimed lies in the input set."""
    point = np.asarray(witness, dtype=np.float32)
    return point.size == instance.lower.size and instance.contains(point.reshape(instance.lower.shape))


def _only_closed(spec: OutputSpec, values: tuple[float, ...]) -> bool:
    """Whether outputs that are not unsafe would be if the property's inequalities were not strict."""
    return bool(spec.limits) and OutputSpec(spec.disjuncts).violated_by(values)


def nonsense(verifier: type[Verifier], instance: Instance, verdict: Verdict) -> str | None:
    """Says what about an answer can't be, or None.

    Args:
        verifier: The adapter that answered.
        instance: The question.
        verdict: The answer.
    """
    status, bounds = verdict.status, verdict.bounds
    if status is Status.UNSAT and verifier.kind is Kind.ATTACK:
        return "is an attack but answered unsat"
    if status is Status.SAT and verifier.kind is Kind.INCOMPLETE:
        return "is an incomplete verifier but answered sat"
    if verifier.kind is Kind.PROBABILISTIC:
        if status.decided:
            return f"is a probabilistic verifier but answered {status}"
        if (status is Status.UNKNOWN) != (verdict.certificate is not None):
            return f"answered {status} {'without' if verdict.certificate is None else 'with'} a certificate"
    elif verdict.certificate is not None:
        return "is no probabilistic verifier but gave a certificate"
    if verdict.certificate is not None and (reason := flaw(verdict.certificate, instance.classes)) is not None:
        return reason
    if status is Status.SAT and verdict.witness is None:
        return "answered sat without a counterexample"
    if status is not Status.SAT and verdict.witness is not None:
        return f"answered {status} with a counterexample"
    if bounds is not None:
        expected = len(instance.spec.disjuncts)
        if len(bounds) != expected:
            return f"gave {len(bounds)} bounds for {expected} disjuncts"
        if any(math.isnan(bound) or bound == math.inf for bound in bounds):
            return "gave a bound that is not a number or is infinite"
        proved = all(bound > 0 for bound in bounds)
        if status is Status.SAT and proved:
            return "answered sat with bounds that prove unsat"
        if status is Status.UNSAT and not proved and verifier.kind is Kind.INCOMPLETE:
            return f"answered unsat with a lowest bound of {min(bounds, default=0.0):.6g}"
    seconds = (verdict.times.bound_s, verdict.times.search_s)
    if not all(math.isfinite(value) and value >= 0 for value in seconds):
        return f"gave times that can't be: {seconds}"
    return None
