"""Answers that a property's text gives away, whatever the verifier: nothing is unsafe, or everything is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunecert.verifiers.base import Instance, Status, Verdict
from prunecert.verifiers.formats.counterexample import replay
from prunecert.verifiers.formats.vnnlib import Property
from prunecert.verifiers.process.inspection import inspect_network


def without_verifier(parsed: Property, instances: Sequence[Instance]) -> Verdict | None:
    """Answers a property that needs no verifier.

    Args:
        parsed: The property.
        instances: A question about the network for each of its boxes.

    Returns:
        `unsat`, with a warning, if nothing can meet what the file asserts; `sat` if a box has no constraint on the
        outputs, by a point of it that was replayed; None for any other property, and for a network that has no normal
        form.

    Raises:
        UserError: The network can't be read within limits.
    """
    if not parsed.cases:
        return Verdict(Status.UNSAT, f"warning: {parsed.empty}; so the property holds for any network")
    for case, instance in zip(parsed.cases, instances, strict=True):
        # The box's middle, or what float32 has next to it inside of the file's own box.
        middle = (instance.lower.astype(np.float64) + instance.upper) / 2
        point = case.nearest(middle.astype(np.float32)) if case.any_output else None
        if point is not None:
            # Only what has a normal form is run in this process: any other file may run for ever. Who takes it as it
            # is, a quantised one say, finds that any point breaks the property; all others say why they don't.
            if inspect_network(instance.onnx, outputs=instance.classes).refusal:
                return None
            check, witness = replay(instance, point, clip=False)
            if check.ok:
                return Verdict(
                    Status.SAT,
                    "warning: the file constrains no output there, so that every input of the box is a counterexample",
                    witness=witness,
                    witness_check=check.to_json(),
                )
    return None
