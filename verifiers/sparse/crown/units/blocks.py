"""Levels whose weights are dense blocks: all neurons of one position by all of another.

A convolution has a block for each place of its kernel, which all positions share; a linear layer has one for each
position that it reads, used once. That is found out from the rows alone, whatever made them: the blocks of two pairs of
positions are one if their weights are the same. With them intervals and the walk's matrix need no list of columns, and
cost nothing for what is inactive.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import BLOCK_WIDTH, Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.crown.program import FUSED, RAW, Program, row_sizes
from prunecert.verifiers.sparse.crown.rounding import SMALLEST, U53

#: Weights that are there, of those that blocks have room for, from which blocks are faster than rows, from
#: ``python -m bench.engine.kernels bounds``.
LEAST_DENSITY = 0.08
#: Numbers of a level's blocks, in its weights, beyond which they take more memory than they are worth.
MOST_NUMBERS = 3


class Blocks(NamedTuple):
    """What passes in units know of levels of blocks, never written.

    S is the number of variables, L that of levels, P that of positions of levels of blocks, B that of their pairs with
    positions that they read.

    Args:
        blocked: Whether a level is one of blocks, [L].
        read: Whether such a level reads the level's variables, [L].
        first: By level: its first position, [L + 1].
        pairs: By position: its first pair, [P + 1].
        sources: By pair: the first variable of the position that is read, [B].
        offsets: By pair: the first number of its block, [B].
        pitch: By level: numbers of a row of its blocks, [L].
        weights: Float32: by block and variable of the source's position, the weights of all neurons of the position,
            zeros where they have none, and up to `pitch`.
        loss: By level that is read: the share of |y| that the rounding of a row of blocks that reads it may lose,
            float64 [L].
        scaled: By level of blocks: what is multiplied by the largest |y| that it reads to bound a row's loss, [L].
        grow: By level of blocks: covers the rounding of sums of radii, float64 [L].
        gamma: By level of blocks: the largest γ of a variable that it reads, float64 [L].
        base: By level: the largest |y| of its constants, float64 [L].
        sources_of: By level and level: whether it reads it, [L, L].
    """

    blocked: Int64Array
    read: Int64Array
    first: Int64Array
    pairs: Int64Array
    sources: Int64Array
    offsets: Int64Array
    pitch: Int64Array
    weights: Float32Array
    loss: Float64Array
    scaled: Float64Array
    grow: Float64Array
    gamma: Float64Array
    base: Float64Array
    sources_of: Int64Array


@dataclass(frozen=True, eq=False)
class _LevelBlocks:
    """One level's part of `Blocks`, offsets from 0 on."""

    pairs: Int64Array
    sources: Int64Array
    offsets: Int64Array
    pitch: int
    weights: Float32Array


def find_blocks(program: Program, least_density: float = LEAST_DENSITY) -> Blocks:
    """Finds the levels whose rows are dense blocks, and takes their weights out.

    Args:
        program: Laid out in units: positions first, channels last.
        least_density: Share of the blocks' numbers that must be weights; above 1 for no blocks at all.
    """
    levels = len(program.kinds)
    blocked = np.zeros(levels, dtype=np.int64)
    pitch = np.zeros(levels, dtype=np.int64)
    first, pairs, sources, offsets = [0], [0], [], []
    weights: list[Float32Array] = []
    room = 0
    for level in range(levels):
        part = _level_blocks(program, level, least_density)
        if part is not None:
            blocked[level], pitch[level] = 1, part.pitch
            pairs.extend((part.pairs[1:] + pairs[-1]).tolist())
            sources.append(part.sources)
            offsets.append(part.offsets + room)
            weights.append(part.weights)
            room += len(part.weights)
        first.append(len(pairs) - 1)
    empty = np.zeros(0, dtype=np.int64)
    starts = program.starts
    spans = [(int(begin), int(end)) for begin, end in itertools.pairwise(starts)]
    reading = np.zeros((levels, levels), dtype=np.int64)
    for level, (begin, end) in enumerate(spans):
        columns = program.columns[program.pointers[begin] : program.pointers[end]]
        reading[level] = np.bincount(program.level[columns], minlength=levels) > 0
    lengths = np.diff(program.pointers)
    longest = np.array([lengths[begin:end].max(initial=0) for begin, end in spans])
    lost = (longest + 2) * U53 * (1 + 1e-6)
    sizes = row_sizes(program.pointers, program.weights) * (1 + 1e-9)
    gammas = np.array([program.gamma[begin:end].max(initial=0.0) for begin, end in spans])
    constants = np.where(program.kinds[program.level] >= FUSED, np.maximum(program.bias, 0.0), program.bias)
    constants[program.live] = 0.0
    by_blocks = reading * blocked[:, None]
    return Blocks(
        blocked=blocked,
        read=np.asarray(by_blocks.any(axis=0), dtype=np.int64),
        first=np.array(first, dtype=np.int64),
        pairs=np.array(pairs, dtype=np.int64),
        sources=np.concatenate([*sources, empty]),
        offsets=np.concatenate([*offsets, empty]),
        pitch=pitch,
        weights=np.concatenate([*weights, np.zeros(0, dtype=np.float32)]),
        loss=(by_blocks * lost[:, None]).max(axis=0),
        scaled=lost * np.array([sizes[begin:end].max(initial=0.0) for begin, end in spans]),
        grow=1 + (longest + 8) * 2 * U53,
        gamma=np.array([gammas[row > 0].max(initial=0.0) for row in reading]),
        base=np.array([np.abs(constants[begin:end]).max(initial=0.0) for begin, end in spans]),
        sources_of=reading,
    )


def _level_blocks(program: Program, level: int, least_density: float) -> _LevelBlocks | None:
    """Returns a level's blocks, None if its rows are better taken one by one."""
    begin, end, group = int(program.starts[level]), int(program.starts[level + 1]), int(program.groups[level])
    pointers = program.pointers[begin : end + 1]
    columns = program.columns[pointers[0] : pointers[-1]]
    weights = program.weights[pointers[0] : pointers[-1]]
    # A weight below float32's normal numbers is 0 to a processor that flushes, which only rows account for.
    if (
        program.kinds[level] not in (RAW, FUSED)
        or program.inexact[level]
        or not len(weights)
        or np.abs(weights).min() < SMALLEST
    ):
        return None
    sizes = program.groups[program.level]
    homes = np.arange(len(program.level)) - (np.arange(len(program.level)) - program.starts[program.level]) % sizes
    pitch = -(-group // BLOCK_WIDTH) * BLOCK_WIDTH
    local = pointers - pointers[0]
    pairs, sources, room = _find_pairs(local, columns, homes, sizes, group)
    if len(weights) < least_density * pitch * room:
        return None
    marks, counts = _fingerprints(local, columns, weights.view(np.int32), homes, group, pairs, sources, sizes)
    _, examples, which = np.unique(
        np.stack([marks, counts.astype(np.uint64)], axis=1), axis=0, return_index=True, return_inverse=True
    )
    heights = sizes[sources[examples]]
    places = np.concatenate([[0], np.cumsum(heights * pitch)])
    if places[-1] > MOST_NUMBERS * len(weights) + 2**16:
        return None
    turn = np.reshape(which, -1)
    offsets = places[turn]
    blocks = np.zeros(int(places[-1]), dtype=np.float32)
    chosen = np.full(len(sources), -1, dtype=np.int64)
    chosen[examples] = places[:-1]
    _copy_blocks(local, columns, weights, homes, group, pitch, pairs, sources, chosen, blocks)
    present = np.array([np.count_nonzero(blocks[a:b]) for a, b in itertools.pairwise(places)], dtype=np.int64)
    same = _agree(local, columns, weights, homes, group, pitch, pairs, sources, offsets, blocks)
    # As many weights as the block has, each of them the block's, and as high: the pair has this block and no other.
    if not same or not np.array_equal(present[turn], counts) or not np.array_equal(heights[turn], sizes[sources]):
        return None
    return _LevelBlocks(pairs, sources, offsets, pitch, blocks)


@numba.njit(cache=True, nogil=True)
def _find_pairs(pointers, columns, homes, sizes, group):  # type: ignore[no-untyped-def]
    """Returns, by position, its first pair; by pair, what it reads; and how many variables all pairs read together."""
    positions = (len(pointers) - 1) // group
    pairs = np.zeros(positions + 1, dtype=np.int64)
    latest = np.full(len(homes), -1, dtype=np.int64)
    for turn in range(2):
        sources = np.empty(pairs[positions], dtype=np.int64)
        latest[:] = -1
        count = room = 0
        for position in range(positions):
            for k in range(pointers[position * group], pointers[(position + 1) * group]):
                home = homes[columns[k]]
                if latest[home] != position:
                    latest[home] = position
                    if turn:
                        sources[count] = home
                    count += 1
                    room += sizes[home]
            if turn:
                sources[pairs[position] : count].sort()
            else:
                pairs[position + 1] = count
    return pairs, sources, room


@numba.njit(cache=True, nogil=True)
def _place(pairs, sources, position, spots):  # type: ignore[no-untyped-def]
    """Writes, for the positions that a position reads, their pair."""
    for pair in range(pairs[position], pairs[position + 1]):
        spots[sources[pair]] = pair


@numba.njit(cache=True, nogil=True)
def _fingerprints(pointers, columns, bits, homes, group, pairs, sources, sizes):  # type: ignore[no-untyped-def]
    """Returns a hash of each pair's weights and where in the block they stand, uint64, and how many they are."""
    marks = np.empty(len(sources), dtype=np.uint64)
    counts = np.zeros(len(sources), dtype=np.int64)
    for pair in range(len(sources)):
        marks[pair] = np.uint64(sizes[sources[pair]])
    spots = np.empty(len(homes), dtype=np.int64)
    for position in range((len(pointers) - 1) // group):
        _place(pairs, sources, position, spots)
        for row in range(position * group, (position + 1) * group):
            for k in range(pointers[row], pointers[row + 1]):
                home = homes[columns[k]]
                mixed = np.uint64(columns[k] - home) * np.uint64(0x9E3779B97F4A7C15)
                mixed ^= np.uint64(row - position * group) * np.uint64(0xC2B2AE3D27D4EB4F)
                mixed ^= np.uint64(bits[k]) * np.uint64(0x165667B19E3779F9)
                mixed ^= mixed >> np.uint64(29)
                mixed *= np.uint64(0xBF58476D1CE4E5B9)
                mixed ^= mixed >> np.uint64(32)
                marks[spots[home]] += mixed
                counts[spots[home]] += 1
    return marks, counts


@numba.njit(cache=True, nogil=True)
def _copy_blocks(pointers, columns, weights, homes, group, pitch, pairs, sources, chosen, blocks):  # type: ignore[no-untyped-def]
    """Writes the weights of the chosen pairs to their blocks."""
    spots = np.empty(len(homes), dtype=np.int64)
    for position in range((len(pointers) - 1) // group):
        any_chosen = False
        for pair in range(pairs[position], pairs[position + 1]):
            any_chosen = any_chosen or chosen[pair] >= 0
        if not any_chosen:
            continue
        _place(pairs, sources, position, spots)
        for row in range(position * group, (position + 1) * group):
            for k in range(pointers[row], pointers[row + 1]):
                home = homes[columns[k]]
                at = chosen[spots[home]]
                if at >= 0:
                    blocks[at + (columns[k] - home) * pitch + row - position * group] = weights[k]


@numba.njit(cache=True, nogil=True)
def _agree(pointers, columns, weights, homes, group, pitch, pairs, sources, offsets, blocks):  # type: ignore[no-untyped-def]
    """Says whether every weight stands where its pair's block has it."""
    spots = np.empty(len(homes), dtype=np.int64)
    for position in range((len(pointers) - 1) // group):
        _place(pairs, sources, position, spots)
        for row in range(position * group, (position + 1) * group):
            for k in range(pointers[row], pointers[row + 1]):
                home = homes[columns[k]]
                at = offsets[spots[home]] + (columns[k] - home) * pitch + row - position * group
                if blocks[at] != weights[k]:
                    return False
    return True
