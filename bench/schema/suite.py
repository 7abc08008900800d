"""The suite schema: which cells to train, prune and verify, and how; everything checked on load."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from prunecert.bench.schema.cell import INT8, Cell, Protocol, parse_bits, read_eps
from prunecert.bench.schema.certificates import check_sigma
from prunecert.bench.schema.data import split_sizes, take_data
from prunecert.bench.schema.gate import RuleSet, parse_rules
from prunecert.bench.schema.mixed_up import why_mixed_up
from prunecert.bench.schema.own import is_own, own_cells
from prunecert.bench.schema.protocol import check_protocol, override_protocol, read_protocol
from prunecert.bench.schema.recipes import merged, read_recipes
from prunecert.bench.schema.yamlfile import Document, Section, yaml_file
from prunecert.compaction import Mode
from prunecert.errors import UserError, did_you_mean
from prunecert.hashing import digest
from prunecert.models import DENSE, FULL_BITS, NETWORKS, NOISE_OBJECTIVES, OBJECTIVES, PRUNERS, UNPRUNED
from prunecert.models.datasets.source import DataSource
from prunecert.registry import import_plugins
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind

SCHEMA_VERSION = 1
SUITES = Path(__file__).parents[1] / "suites"
NORMS = ("linf", "l2")
#: What a few lines of YAML may multiply to: every profile makes all its cells on load.
_MOST_CELLS = 4_000
_MOST_PROFILES = 20
_BALL_NOTE = "verified over l2 balls: ε is their radius"
_CERTIFY_ONLY_NOTE = "trained with Gaussian noise: certified by randomized smoothing, not verified"


@dataclass(frozen=True)
class Suite:
    """A suite with one profile chosen.

    Args:
        name: Its name, that of its file.
        description: One sentence.
        data: The data set.
        profile: The profile chosen.
        profiles: All profiles.
        cells: Every cell with its protocol, in the order of the file; no cell twice.
        recipes: Training recipes as written: by ``"default"``, ``"<network>"``, ``"<network>/<objective>"`` or
            ``"<network>/<objective>/<compression>x"``.
        path: The file.
        gate: What `bench.gate` holds its cells to, where the file says so.
        base: How cells are verified of which the suite says nothing else.
        bits_places: File, line and key of the bits of cells, by name: layers are counted when there is a network.
    """

    name: str
    description: str
    data: DataSource
    profile: str
    profiles: tuple[str, ...]
    cells: tuple[tuple[Cell, Protocol], ...]
    recipes: Mapping[str, Mapping[str, Any]]
    path: Path
    base: Protocol
    gate: RuleSet | None = None
    bits_places: Mapping[str, str] = field(default_factory=dict)

    def recipe(
        self, network: str, objective: str, compression: float | None = None, pruner: str | None = None
    ) -> dict[str, Any]:
        """Returns a training recipe: see `merged`."""
        return merged(self.recipes, network, objective, compression, pruner)

    @property
    def timed(self) -> bool:
        """Whether the suite is there to take times."""
        return any(protocol.timing is not None for _, protocol in self.cells)

    def to_json(self) -> dict[str, Any]:
        """Returns what decides a run, as plain data; recipes don't enter, their checkpoints do."""
        return {
            "name": self.name,
            "data": self.data.to_json(),
            "profile": self.profile,
            "cells": [{**cell.to_json(), "name": cell.name, "verify": p.to_json()} for cell, p in self.cells],
        }

    def digest(self) -> str:
        """Returns the hash of `to_json`."""
        return digest(self.to_json())


def available_suites() -> list[str]:
    """Returns the names of the shipped suites."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(name_or_path: str, profile: str = "default") -> Suite:
    """Reads and checks a suite.

    Example:
        >>> suite = load_suite("cifar10-4nets", "smoke")
        >>> cell, protocol = suite.cells[0]
        >>> cell.name, protocol.images
        ('cnn-small_ibp_eps2_dense_x1_s0', 5)

    Args:
        name_or_path: Name of a shipped suite, or a path that ends in ``.yaml``.
        profile: Name of one of its profiles.

    Raises:
        UserError: Anything in it is unknown, of the wrong type or out of range; the message names file and line.
    """
    # What is wrong with a plug-in is no fault of the suite that is the first to ask.
    import_plugins()
    path = yaml_file("suite", name_or_path, SUITES)
    root = Document(path).root
    version = root.take("schema_version", int, 1)
    if version > SCHEMA_VERSION:
        raise root.refusal(
            "schema_version",
            f"{version} is newer than this program reads ({SCHEMA_VERSION}); upgrade prunecert.",
        )
    name = root.take("name", str)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise root.refusal("name", f"{name!r} is refused; allowed are small letters, digits, '-' and '.'.")
    data = take_data(root)
    sizes = split_sizes(data)
    verify = root.section("verify")
    if verify is None:
        raise root.refusal("verify", "the key 'verify' is missing; it must say how the cells are verified.")
    base = read_protocol(verify, Protocol(), sizes)
    profiles = root.section("profiles")
    names = {"default", *(profiles.data if profiles else ())}
    if len(names) > _MOST_PROFILES:
        raise root.refusal("profiles", f"{len(names)} profiles are refused; allowed are {_MOST_PROFILES}.")
    overrides = {}
    for key in sorted(names):
        section = profiles.section(key) if profiles else None
        overrides[key] = base if section is None else read_protocol(section, base, sizes)
    if profile not in names:
        raise UserError(did_you_mean(f"profile of suite {name!r}", profile, names))
    # Blocks are read under every profile, so that a slip in one that is not chosen is found as well.
    chosen: dict[str, tuple[tuple[Cell, Protocol], ...]] = {}
    blocks = root.sections("cells")
    bits_places: dict[str, str] = {}
    for key in sorted(names):
        cells: dict[Cell, tuple[Cell, Protocol]] = {}
        for block in blocks:
            for cell, protocol in _block(block, overrides[key], key, names, sizes, path.parent):
                if cell in cells and cells[cell][1] != protocol:
                    raise block.refusal(None, f"cell {cell.name} stands in two blocks that verify it differently.")
                cells[cell] = (cell, protocol)
                if cell.bits:
                    bits_places.setdefault(cell.name, block.document.place((*block.path, "bits")))
            if len(cells) > _MOST_CELLS:
                raise root.refusal(
                    "cells", f"they stand for more than {_MOST_CELLS:,} networks; make several suites of it."
                )
        if (reason := why_mixed_up(cells)) is not None:
            raise root.refusal("cells", reason)
        chosen[key] = tuple(cells.values())
    suite = Suite(
        name=name,
        description=root.take("description", str),
        data=data,
        profile=profile,
        profiles=tuple(sorted(names)),
        cells=chosen[profile],
        recipes=read_recipes(root),
        path=path,
        base=overrides[profile],
        gate=parse_rules(root.section("gate"), path.name, [cell.name for cell, _ in chosen[profile]]),
        bits_places=bits_places,
    )
    root.finish()
    return suite


def _block(
    block: Section, base: Protocol, profile: str, profiles: set[str], sizes: Mapping[str, int], folder: Path
) -> list[tuple[Cell, Protocol]]:
    if is_own(block):
        radii = [read_eps(value) for value in block.take_list("eps", object, read_eps)]
        own = own_cells(block, radii, folder)
        protocol = _block_protocol(block, base, profile, profiles, sizes)
        return [(cell, protocol) for cell in own]
    networks = block.take_list("networks", str, NETWORKS.check)
    objectives = block.take_list("objectives", str, OBJECTIVES.check)
    radii = _radii(block, objectives)
    trained = _trained_eps(block)
    ball = _ball(block, trained)
    compressions = block.take_list("compression", float, _check_compression)
    pruners = block.take_list("pruners", str, lambda name: name == DENSE or PRUNERS.check(name), ())
    if not set(pruners) - {DENSE} and any(c > 1 for c in compressions):
        what = "'dense' removes nothing" if pruners else "the key 'pruners' is missing"
        raise block.refusal("pruners", f"{what}; compressions above 1 need at least one pruner.")
    seeds = block.take_list("seeds", int, _check_seed, (0,))
    forms = _forms(block)
    protocol = _block_protocol(block, base, profile, profiles, sizes)
    if ball:
        _check_ball(block, protocol)
        protocol = replace(protocol, note=protocol.note or _BALL_NOTE)
    ways = len(compressions) * max(1, len(pruners)) * len(forms)
    if len(networks) * len(objectives) * len(radii) * len(seeds) * ways > _MOST_CELLS:
        raise block.refusal(None, f"it stands for more than {_MOST_CELLS:,} networks; make several suites of it.")
    cells = []
    for network, objective, eps, seed in itertools.product(networks, objectives, radii, seeds):
        other = None if trained == eps and not ball else trained
        for compression in compressions:
            # All pruners have one dense control, but for those that change a network without removing a weight.
            controls = [DENSE, *(pruner for pruner in pruners if pruner in UNPRUNED)]
            chosen = controls if compression == 1 else [pruner for pruner in pruners if pruner != DENSE]
            cells += [
                Cell(
                    network,
                    objective,
                    eps,
                    name,
                    compression,
                    seed,
                    trained_eps=other,
                    ball=ball,
                    bits=widths,
                    int8=integers,
                )
                for name in chosen
                for widths, integers in forms
            ]
    return [(cell, protocol) for cell in cells]


def _forms(block: Section) -> list[tuple[tuple[int, ...], bool]]:
    """Reads ``bits``: those of weights, and whether activations are integers, too; no form twice."""
    forms: dict[tuple[tuple[int, ...], bool], object] = {}

    def check(value: object) -> None:
        widths, integers = _form(value)
        # As many bits in every layer are one number of bits, however it is written.
        same = widths[:1] if len(set(widths)) == 1 else widths
        if (same, integers) in forms:
            raise UserError(f"Bits {value!r} are refused; they stand in the list as {forms[same, integers]!r} already.")
        forms[same, integers] = value

    return [_form(value) for value in block.take_list("bits", object, check, (FULL_BITS,))]


def _form(value: object) -> tuple[tuple[int, ...], bool]:
    return ((), True) if value == INT8 else (parse_bits(value), False)


def _block_protocol(
    block: Section, base: Protocol, profile: str, profiles: set[str], sizes: Mapping[str, int]
) -> Protocol:
    """Returns how a block's cells are verified; nothing else of the block may be left then."""
    protocol = override_protocol(block, "verify", base, sizes)
    own = block.section("profiles")
    if own is not None:
        for key in own.data:
            if key not in profiles:
                raise own.refusal(key, did_you_mean("profile", key, profiles))
            changed = override_protocol(own, key, protocol, sizes)
            if key == profile:
                protocol = changed
        own.finish()
    block.finish(("eps", "norm", "sigma", "trained_eps"))
    if "sigma" in block:
        # What does nothing for pixels in [0, 1] may do something for pixels with noise on them.
        compact = Mode.OFF if protocol.compact is Mode.OFF else Mode.ALL_INPUTS
        note = protocol.note or _CERTIFY_ONLY_NOTE
        images = protocol.certify.images if protocol.certify and protocol.certify.images else protocol.images
        protocol = replace(protocol, images=images, cascade=(), cross_check=(), note=note, compact=compact)
    check_protocol(block, protocol, noise="sigma" in block)
    if "bits" in block and protocol.timing is not None:
        raise block.refusal("bits", "a suite that takes times is refused with weights that are rounded.")
    if (protocol.timing is None) != (base.timing is None):
        raise block.refusal("verify", "times are taken of all cells or of none; put 'timing' under the suite's own.")
    return protocol


def _radii(block: Section, objectives: tuple[str, ...]) -> list[Fraction]:
    """Reads ``eps``, or ``sigma`` for objectives that train with noise."""
    noise = {name in NOISE_OBJECTIVES for name in objectives}
    key, other = ("sigma", "eps") if noise == {True} else ("eps", "sigma")
    if len(noise) > 1 or other in block:
        raise block.refusal(
            other if other in block else "objectives",
            f"{', '.join(objectives)} are refused together with {other!r}: {', '.join(sorted(NOISE_OBJECTIVES))} have "
            "'sigma', the standard deviation of their noise; all others have 'eps', a radius in the sup norm; each "
            "kind in blocks of its own.",
        )
    if key == "eps":
        read = functools.partial(read_eps, ball=block.data.get("norm") == "l2")
        return [read(value) for value in block.take_list("eps", object, read)]
    # Through the shortest decimal, so that 0.1 is 1/10.
    return [Fraction(repr(check_sigma(block, value))) for value in block.take_list("sigma", float)]


def _trained_eps(block: Section) -> Fraction | None:
    """Reads ``trained_eps``: the one radius whose checkpoints are verified at all of ``eps``, if there is one."""
    if "trained_eps" not in block:
        return None
    if "sigma" in block:
        raise block.refusal("trained_eps", "it is for radii; networks that are trained with noise have none.")
    try:
        return read_eps(block.take("trained_eps", object))
    except UserError as error:
        raise block.refusal("trained_eps", str(error)) from error


def _ball(block: Section, trained: Fraction | None) -> bool:
    """Reads ``norm``: whether a block's ``eps`` are radii of l2 balls."""
    norm = block.take("norm", str, "linf")
    if norm not in NORMS:
        raise block.refusal("norm", did_you_mean("norm", norm, NORMS))
    if norm == "l2" and trained is None:
        raise block.refusal(
            "norm",
            "'l2' is refused without 'trained_eps': networks are trained for a radius in the sup norm, which names "
            "their checkpoints; 'eps' are the radii of the l2 balls that they are verified over.",
        )
    return norm == "l2"


def _check_ball(block: Section, protocol: Protocol) -> None:
    """Refuses what can't be asked over l2 balls, before anything runs."""
    if protocol.timing is not None:
        raise block.refusal("norm", "'l2' is refused in a suite that takes times; these are taken over boxes.")
    if protocol.pair is not None:
        # A box of an l2 ball's radius has points that the ball hasn't, at which two networks may well differ.
        raise block.refusal(
            "norm",
            "'l2' is refused together with 'verify.pair'; pairs are compared over boxes, in a suite of their own.",
        )
    if INT8 in (block.data.get("bits") or ()):
        raise block.refusal("bits", f"{INT8!r} is refused over l2 balls; such networks are verified over boxes only.")
    able = [name for name in VERIFIERS if _takes_balls(name)]
    for name in protocol.cascade:
        if name not in able:
            raise block.refusal(
                "norm",
                f"'l2' is refused with the verifier {name!r} in the cascade, which takes boxes only; those that take "
                f"l2 balls are {', '.join(able)}. Name them in this block's 'verify.cascade'.",
            )


def _takes_balls(name: str) -> bool:
    verifier = VERIFIERS.get(name)
    return verifier.kind is not Kind.PROBABILISTIC and "l2" in verifier.capabilities().norms


def _check_compression(value: float) -> None:
    if not 1 <= value <= 100_000:
        raise UserError(f"Compression {value:g} is refused; it is all weights over those kept, so at least 1.")


def _check_seed(value: int) -> None:
    if not 0 <= value < 2**31:
        raise UserError(f"Seed {value} is refused; it must be at least 0 and below 2^31.")


def load_rules(path: Path) -> RuleSet:
    """Reads a YAML file with a ``gate`` section, alone in the file or in a suite.

    Raises:
        UserError: There is no such section, or something in it is refused.
    """
    root = Document(path).root
    if "cells" in root:
        rules = load_suite(str(path)).gate
    else:
        rules = parse_rules(root.section("gate"), path.name)
        root.finish()
    if rules is None:
        raise root.refusal("gate", "the key 'gate' is missing; it must hold the rules, e.g. gate: {verified: -0.5pp}.")
    return rules
