"""What a pack says of itself: the cells that are to be trained elsewhere, and what their checkpoints must say.

`bench.running.packing` writes it with the pack, and `bench.running.unpacking` reads it when checkpoints come back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from prunecert.errors import UserError
from prunecert.files import read_regular, write_text
from prunecert.printable import shortened

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card
    from prunecert.models.pipeline import Job

FILE = "pack.json"
SCHEMA_VERSION = 1
#: A suite of the most cells has 8 MB of recipes.
_MOST_BYTES = 64 << 20
#: Fields of a card that its job decides.
_DECIDED = ("name", "network", "objective", "pruner", "compression", "seed")


class _Version(msgspec.Struct):
    """What a manifest of any version says."""

    schema_version: int = SCHEMA_VERSION


class PackCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cell of a pack.

    Args:
        key: See `models.pipeline.Pipeline.key`: the checkpoint that comes back was trained under it.
        stems: See `models.pipeline.Pipeline.stems`.
        card: Fields that the checkpoint's card has, with their values.
    """

    key: str
    stems: tuple[str, ...]
    card: dict[str, Any]

    def differing(self, card: Card) -> list[str]:
        """Returns the fields in which a card that came back is another than it must be, by name."""
        own = card.to_json()
        return [key for key, value in self.card.items() if own.get(key, {}) != value]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pack.

    Args:
        suite: The suite's name.
        cells: By name, the most telling first.
        images: How many images a training has, by split.
        fingerprint: Of the data; see `models.data.Dataset`.
        unfit: Why nothing of it may be published, or nothing.
        prunecert: Version of the code.
        schema_version: Of this file.
    """

    suite: str
    cells: dict[str, PackCell]
    images: dict[str, int]
    fingerprint: str
    unfit: str
    prunecert: str
    schema_version: int = SCHEMA_VERSION


def expected_card(job: Job, fingerprint: str, unfit: str) -> dict[str, Any]:
    """Returns what a job's card says before anything is trained, as plain data.

    Args:
        job: The cell.
        fingerprint: Of the data.
        unfit: Why nothing of it may be published, or nothing.
    """
    card = {key: getattr(job, key) for key in _DECIDED}
    card |= {"eps": job.eps_text, "recipe": job.recipe.to_dict(), "data": dict(job.data)}
    # As it is when it was written and read again.
    plain: dict[str, Any] = json.loads(json.dumps({**card, "data_fingerprint": fingerprint, "unfit": unfit}))
    return plain


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Writes the manifest into the pack's folder; returns its path."""
    return write_text(folder / FILE, msgspec.json.format(msgspec.json.encode(manifest), indent=2).decode() + "\n")


def read_manifest(place: Path) -> Manifest:
    """Reads the manifest of a pack.

    Args:
        place: The pack's folder, or the manifest's file.

    Raises:
        UserError: There is none, it is something else, or of a newer version.
    """
    file = place / FILE if place.is_dir() else place
    if not file.exists():
        raise UserError(
            f"{shortened(place)} is no pack: there is no {FILE}; name the folder that prunecert pack wrote."
        )
    data = read_regular(file, _MOST_BYTES)
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        manifest = msgspec.json.decode(data, type=Manifest) if version <= SCHEMA_VERSION else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(
            f"{shortened(file)} is no manifest of a pack ({shortened(error)}); name the one that prunecert pack wrote."
        ) from error
    if manifest is None:
        raise UserError(
            f"{shortened(file)} has schema version {version}, newer than this program's {SCHEMA_VERSION}; update "
            "prunecert."
        )
    return manifest
