"""How a suite says that cells are verified: its ``verify`` section, and what a profile or a block changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prunecert.bench.schema.cell import Protocol
from prunecert.bench.schema.certificates import take_certify
from prunecert.bench.schema.pairs import take_pair
from prunecert.bench.schema.timing import take_timing
from prunecert.bench.schema.yamlfile import Section
from prunecert.compaction import Mode
from prunecert.errors import UserError, did_you_mean
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind

ATTACK_ONLY = "attack-only"
_ATTACK_ONLY_NOTE = "attack only: deterministic bounds are vacuous on this network, so nothing is verified here"


def override_protocol(parent: Section, key: str, base: Protocol, sizes: Mapping[str, int]) -> Protocol:
    """Reads a section below another, or the word for attacks alone; what it doesn't say is as in `base`."""
    if parent.data.get(key) == ATTACK_ONLY:
        parent.take(key, str)
        return _attack_only(base)
    section = parent.section(key)
    return base if section is None else read_protocol(section, base, sizes)


def _attack_only(base: Protocol) -> Protocol:
    attacks = tuple(name for name in base.cascade if VERIFIERS.get(name).kind is Kind.ATTACK)
    return replace(
        base,
        cascade=attacks,
        cross_check=tuple(n for n in base.cross_check if n in attacks),
        note=_ATTACK_ONLY_NOTE,
        pair=None,
    )


def read_protocol(section: Section, base: Protocol, sizes: Mapping[str, int]) -> Protocol:
    """Reads a ``verify`` section, or a profile's.

    Args:
        section: The section.
        base: What holds where it says nothing.
        sizes: Images of each split of the data.

    Raises:
        UserError: Something in it is unknown, of the wrong type or out of range.
    """
    split = section.take("split", str, base.split)
    if split not in sizes:
        raise section.refusal("split", did_you_mean("split", split, sizes))
    images = section.take("images", int, base.images)
    if not 1 <= images <= sizes[split]:
        raise section.refusal("images", f"{images} is refused; it must be within 1 and {sizes[split]}.")
    cascade = section.take_list("cascade", str, _check_proving, base.cascade)
    cross = tuple(name for name in base.cross_check if name in cascade)
    if "cross_check" in section:
        cross = _names(section, "cross_check", cascade)
    timeouts = dict(base.timeouts)
    subsection = section.section("timeouts")
    for name in subsection.data if subsection else ():
        assert subsection is not None
        _known_verifier(subsection, name)
        timeouts[name] = subsection.take(name, float)
        if not 0 < timeouts[name] <= 86_400:
            raise subsection.refusal(
                name, f"{timeouts[name]:g} is refused; it must be above 0 and at most 86,400 seconds."
            )
    settings = {name: dict(values) for name, values in base.settings.items()}
    subsection = section.section("settings")
    for name in subsection.data if subsection else ():
        assert subsection is not None
        _known_verifier(subsection, name)
        settings.setdefault(name, {}).update(subsection.take(name, dict))
        try:
            VERIFIERS.get(name).resolve(settings[name])
        except UserError as error:
            raise subsection.refusal(name, str(error)) from error
    memory = section.take("memory_mb", int, base.memory_mb if base.memory_mb is not None else 0)
    if "memory_mb" in section and memory < 256:
        raise section.refusal("memory_mb", f"{memory} is refused; a worker needs at least 256 MiB.")
    note = section.take("note", str, base.note or "")
    timed = section.section("timing")
    timing = base.timing if timed is None else take_timing(timed, base.timing, VERIFIERS.check)
    if timing is not None:
        cross = cascade
    compact = base.compact
    if "compact" in section:
        try:
            compact = parse_compact(section.data["compact"])
        except UserError as error:
            raise section.refusal("compact", str(error)) from error
    noise = section.section("certify")
    certify = base.certify if noise is None else take_certify(noise, base.certify, sizes[split])
    pair = take_pair(section, base.pair, sizes[split])
    section.finish(("cross_check", "compact"))
    return Protocol(
        split, images, cascade, cross, timeouts, settings, memory or None, note, timing, compact, certify, pair
    )


def parse_compact(value: object) -> Mode:
    """Reads how much is removed from a network before it is verified: a `Mode`, or true or false.

    Raises:
        UserError: It is something else.
    """
    if isinstance(value, bool):
        return Mode.PIXELS if value else Mode.OFF
    if value not in list(Mode):
        raise UserError(f"{value!r} is refused; allowed are true, false, {', '.join(Mode)}.")
    return Mode(str(value))


def _proves_or_breaks(name: str) -> bool:
    return VERIFIERS.get(name).kind is not Kind.PROBABILISTIC


def _check_proving(name: str) -> None:
    VERIFIERS.check(name, _proves_or_breaks)
    if not _proves_or_breaks(name):
        raise UserError(
            f"{name!r} is refused in a cascade: its certificates prove nothing about the network; ask for them with "
            "'certify'."
        )


def _known_verifier(section: Section, name: str) -> None:
    try:
        VERIFIERS.check(name)
    except UserError as error:
        raise section.refusal(name, str(error)) from error


def _names(section: Section, key: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    names = section.take(key, list)
    for i, name in enumerate(names):
        if name not in allowed:
            raise section.document.refusal(
                (*section.path, key, i), did_you_mean("verifier of the cascade", str(name), allowed)
            )
    return tuple(str(name) for name in names)


def check_protocol(block: Section, protocol: Protocol, noise: bool) -> None:
    """Refuses what doesn't go together, whatever sections it stands in.

    Args:
        block: The cells' block, for messages.
        protocol: How they are verified.
        noise: Whether they were trained with noise.

    Raises:
        UserError: Something doesn't.
    """
    if noise and protocol.certify is None:
        raise block.refusal(
            None, "networks that are trained with noise have no radius to be verified at; add 'verify.certify'."
        )
    if noise and protocol.timing is not None:
        raise block.refusal("sigma", "a suite that takes times is refused with networks that are trained with noise.")
    if protocol.certify is not None and protocol.certify.sigma is None and not noise:
        raise block.refusal(
            None, "'verify.certify' needs 'sigma': these networks were not trained with noise that it could be that of."
        )
    if not protocol.cascade and not noise:
        raise block.refusal(None, "no verifier is left for these cells; name at least one in 'verify.cascade'.")
    pair = protocol.pair
    if pair is not None and (noise or protocol.timing is not None):
        raise block.refusal(
            None,
            "'verify.pair' is refused together with 'timing', and with networks that are trained with noise, which "
            "have no radius; ask about pairs in a suite of its own.",
        )
    for name in (*protocol.cascade, *(() if pair is None else pair.verifiers)):
        if name not in protocol.timeouts:
            raise block.refusal(None, f"verifier {name!r} has no time limit; give one in 'verify.timeouts'.")
