"""The verifiers of a cascade as they are here: which are installed, of which version, with which settings."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunecert.bench.schema.cell import Protocol
from prunecert.hashing import digest
from prunecert.printable import plural
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Availability, Kind, Norm
from prunecert.verifiers.formats.support import SpecKind

#: What the refusal of a network that rounds its activations says (`prunecert.onnx.normalise`).
_ROUNDS = "(QuantizeLinear) isn't taken"


@dataclass(frozen=True)
class Stage:
    """One verifier with its settings, as one cell meets it.

    Args:
        verifier: Name.
        kind: What it can answer.
        version: Its version.
        source: Which copy of it.
        settings: All settings, defaults included.
        timeout: Seconds an instance.
        device: Where it runs.
        everyone: Whether it sees images that are decided already.
        batch: Instances handed over together, at most.
        memory_mb: Limit of its worker, or None.
        repeat: Where times are taken: which of several times that the same is asked, from 1; None elsewhere.
        after: Hashes of the networks whose counterexamples it may start from, see `bench.running.warmstart`.
    """

    verifier: str
    kind: Kind
    version: str
    source: str
    settings: Mapping[str, Any]
    timeout: float
    device: str
    everyone: bool
    batch: int
    memory_mb: int | None
    repeat: int | None = None
    after: tuple[str, ...] = ()

    @functools.cached_property
    def settings_hash(self) -> str:
        """Twelve digits that stand for the settings in result rows."""
        return digest(dict(self.settings))[:12]

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for the session row."""
        return {
            "verifier": self.verifier,
            "kind": str(self.kind),
            "version": self.version,
            "source": self.source,
            "settings": dict(self.settings),
            "settings_hash": self.settings_hash,
            "timeout": self.timeout,
            "device": self.device,
            "everyone": self.everyone,
            "memory_mb": self.memory_mb,
            **({"after": list(self.after)} if self.after else {}),
        }


@dataclass
class Installed:
    """Which verifiers can run here; each is asked once.

    Args:
        device: The device asked for.
        availabilities: Filled as verifiers are asked for.
    """

    device: str
    availabilities: dict[str, Availability] = field(default_factory=dict)

    def of(self, verifier: str) -> Availability:
        """Returns what the adapter says of itself."""
        if verifier not in self.availabilities:
            self.availabilities[verifier] = VERIFIERS.get(verifier).availability()
        return self.availabilities[verifier]

    def missing(self, protocols: Sequence[Protocol]) -> dict[str, str]:
        """Returns, by name, what to do about the verifiers that the protocols ask for and that are not there."""
        names = dict.fromkeys(name for protocol in protocols for name in (*protocol.cascade, *_compared_by(protocol)))
        return {name: self.of(name).hint for name in names if not self.of(name).installed}

    def device_of(self, verifier: str) -> str:
        """Returns where a verifier runs: on the device asked for if it can, else on the CPU."""
        kind = self.device.partition(":")[0]
        return self.device if any(d.partition(":")[0] == kind for d in self.of(verifier).devices) else "cpu"


def make_stages(protocol: Protocol, installed: Installed) -> tuple[Stage, ...]:
    """Returns the cascade's verifiers that are installed, resolved to versions and settings."""
    return stages_of(protocol.cascade, protocol, installed)


def stages_of(names: Sequence[str], protocol: Protocol, installed: Installed) -> tuple[Stage, ...]:
    """Returns those of some verifiers that are installed, with a protocol's limits and settings."""
    stages = []
    for name in names:
        adapter, available = VERIFIERS.get(name), installed.of(name)
        if not available.installed:
            continue
        stages.append(
            Stage(
                verifier=name,
                kind=adapter.kind,
                version=available.version,
                source=available.source,
                settings=adapter.resolve(protocol.settings.get(name)),
                timeout=protocol.timeouts[name],
                device=installed.device_of(name),
                everyone=name in protocol.cross_check,
                batch=max(1, adapter.batch_size),
                memory_mb=protocol.memory_mb,
            )
        )
    return tuple(stages)


def describe_float32_only(unsupported: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Returns one line for each verifier that is left out because networks round.

    Example:
        >>> describe_float32_only({"net_int8": {"pgd": "The node 'q' (QuantizeLinear) isn't taken: …"}})
        ['pgd: takes float32 networks only; left out of 1 int8 cell.']

    Args:
        unsupported: By network, why verifiers don't take it.
    """
    counts = Counter(name for reasons in unsupported.values() for name in reasons if _ROUNDS in reasons[name])
    return [
        f"{verifier}: takes float32 networks only; left out of {plural(count, 'int8 cell')}."
        for verifier, count in counts.items()
    ]


def other_reasons(reasons: Mapping[str, str]) -> dict[str, str]:
    """Returns why verifiers don't take a network, without what `describe_float32_only` says."""
    return {verifier: reason for verifier, reason in reasons.items() if _ROUNDS not in reason}


def _compared_by(protocol: Protocol) -> tuple[str, ...]:
    return () if protocol.pair is None else protocol.pair.verifiers


def supported_stages(
    stages: Sequence[Stage], onnx: Path, norm: Norm = "linf", spec: SpecKind = "robustness"
) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """Splits stages into those that take network, norm and kind of property, and why the others don't, by name."""
    from prunecert.verifiers.process.inspection import check_supported

    supported, refused = [], {}
    for stage in stages:
        reason = check_supported(VERIFIERS.get(stage.verifier), onnx, norm, spec)
        if reason is None:
            supported.append(stage)
        else:
            refused[stage.verifier] = reason
    return tuple(supported), refused
