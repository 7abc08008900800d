"""Ways to corrupt a certificate: functions of a proof, or its bytes, and a generator. None may prove what is false."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from prunecert.verifiers.checker.proof import BOUNDS, CUT
from prunecert.verifiers.sparse.proofs.certificate import CaseProof, Entry, Leaf, Slopes, Split, Walk

Rng = np.random.Generator
Body = bytes


def _pick_leaf(proof: CaseProof, rng: Rng) -> tuple[int, int, Leaf]:
    places = [(t, e) for t, tree in enumerate(proof.trees) for e, entry in enumerate(tree) if isinstance(entry, Leaf)]
    t, e = places[rng.integers(len(places))]
    leaf = proof.trees[t][e]
    assert isinstance(leaf, Leaf)
    return t, e, leaf


def _with(proof: CaseProof, tree: int, entry: int, new: list[Entry]) -> CaseProof:
    trees = [list(entries) for entries in proof.trees]
    trees[tree][entry : entry + 1] = new
    return replace(proof, trees=trees)


def _on_leaf(change: Callable[[Leaf, Rng], Leaf]) -> Callable[[CaseProof, Rng], CaseProof]:
    def attack(proof: CaseProof, rng: Rng) -> CaseProof:
        tree, entry, leaf = _pick_leaf(proof, rng)
        return _with(proof, tree, entry, [change(leaf, rng)])

    return attack


def _beta(factor: float) -> Callable[[CaseProof, Rng], CaseProof]:
    def change(leaf: Leaf, rng: Rng) -> Leaf:
        beta = (leaf.beta + np.float32(0.1)).copy()
        if len(beta):
            beta[rng.integers(len(beta))] *= np.float32(factor)
        return replace(leaf, beta=beta)

    return _on_leaf(change)


def _weights(factor: float) -> Callable[[CaseProof, Rng], CaseProof]:
    return _on_leaf(lambda leaf, rng: replace(leaf, weights=(leaf.weights * np.float32(factor)).astype(np.float32)))


def sloped(slopes: Slopes | None, value: float, rng: Rng) -> Slopes | None:
    """Returns slopes half of which have another value."""
    if slopes is None:
        return None
    values = slopes.values.copy()
    values[0, rng.random(values.shape[1]) < 0.5] = value
    return Slopes(values, 2)


def _slopes(value: float) -> Callable[[CaseProof, Rng], CaseProof]:
    return _on_leaf(lambda leaf, rng: replace(leaf, slopes=sloped(leaf.slopes, value, rng)))


def _shuffled(leaf: Leaf, rng: Rng) -> Leaf:
    return leaf if leaf.slopes is None else replace(leaf, slopes=Slopes(rng.permutation(leaf.slopes.values, axis=1)))


def _repeated(proof: CaseProof, rng: Rng) -> CaseProof:
    tree, entry, leaf = _pick_leaf(proof, rng)
    return _with(proof, tree, entry, [leaf, leaf])


def _dropped(proof: CaseProof, rng: Rng) -> CaseProof:
    tree, entry, _ = _pick_leaf(proof, rng)
    return _with(proof, tree, entry, [])


def _split_changed(proof: CaseProof, rng: Rng) -> CaseProof:
    trees = [list(entries) for entries in proof.trees]
    for entries in trees:
        for at, entry in enumerate(entries):
            if isinstance(entry, Split) and rng.random() < 0.7:
                node = entry.node if rng.random() < 0.7 else int(rng.integers(12))
                entries[at] = Split(node, int(rng.integers(8)))
    return replace(proof, trees=trees)


def _halves(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Returns the two parts below a tree's first split."""
    open_, at = 1, 1
    while open_:
        open_ += 1 if isinstance(entries[at], Split) else -1
        at += 1
    return entries[1:at], entries[at:]


def _side_only(proof: CaseProof, rng: Rng) -> CaseProof:
    """One side of the first split stands for both; its multiplier is taken out."""
    trees = [list(entries) for entries in proof.trees]
    for number, entries in enumerate(trees):
        if isinstance(entries[0], Split):
            half = _halves(entries)[int(rng.integers(2))]
            trees[number] = [replace(e, beta=e.beta[1:]) if isinstance(e, Leaf) else e for e in half]
    return replace(proof, trees=trees)


def _sides_swapped(proof: CaseProof, rng: Rng) -> CaseProof:
    trees = [list(entries) for entries in proof.trees]
    for number, entries in enumerate(trees):
        if isinstance(entries[0], Split):
            one, other = _halves(entries)
            trees[number] = [entries[0], *other, *one]
    return replace(proof, trees=trees)


def _one_side_twice(proof: CaseProof, rng: Rng) -> CaseProof:
    trees = [list(entries) for entries in proof.trees]
    for number, entries in enumerate(trees):
        if isinstance(entries[0], Split):
            half = _halves(entries)[int(rng.integers(2))]
            trees[number] = [entries[0], *half, *half]
    return replace(proof, trees=trees)


def _split_again(proof: CaseProof, rng: Rng) -> CaseProof:
    """Splits one neuron over and over, as a tree with a cycle would."""
    tree, entry, leaf = _pick_leaf(proof, rng)
    splits = [s for entries in proof.trees for s in entries if isinstance(s, Split)] or [Split(1, 0)]
    split, depth = splits[rng.integers(len(splits))], int(rng.integers(1, 40))
    new: list[Entry] = [split] * depth
    for level in range(depth, -1, -1):
        new.append(replace(leaf, beta=np.pad(leaf.beta, (0, max(1, level)), constant_values=1.0)))
    return _with(proof, tree, entry, new)


def _stop(leaf: Leaf, rng: Rng) -> Leaf:
    return replace(leaf, stop=int(rng.choice([1, 2, 3, 4, 5, 100, 2**32 - 1])))


def _walks_dropped(proof: CaseProof, rng: Rng) -> CaseProof:
    return replace(proof, sites=[replace(site, walks=()) for site in proof.sites])


def _walks_elsewhere(proof: CaseProof, rng: Rng) -> CaseProof:
    """Walks from neurons that are drawn, some of which may be repeated or not there, to where they don't end."""
    stops = [0, 1, 2, 3, 4, 100]
    return replace(
        proof,
        sites=[
            replace(site, walks=(Walk(rng.integers(0, 9, int(rng.integers(5))), stop=int(rng.choice(stops))),))
            for site in proof.sites
        ],
    )


def _slots_changed(proof: CaseProof, rng: Rng) -> CaseProof:
    sites = [
        replace(site, slots=rng.permutation(site.slots) if rng.random() < 0.5 else rng.integers(0, 9, len(site.slots)))
        for site in proof.sites
    ]
    return replace(proof, sites=sites)


def _trees_exchanged(proof: CaseProof, rng: Rng) -> CaseProof:
    return replace(proof, trees=[proof.trees[k] for k in rng.permutation(len(proof.trees))])


def _bytes_flipped(body: Body, rng: Rng) -> Body:
    data = bytearray(body)
    for at in rng.integers(len(data), size=int(rng.integers(1, 5))):
        data[at] ^= int(rng.integers(1, 256))
    return bytes(data)


def _bytes_cut(body: Body, rng: Rng) -> Body:
    begin = int(rng.integers(len(body)))
    return body[:begin] + body[begin + int(rng.integers(1, 9)) :]


def _bytes_added(body: Body, rng: Rng) -> Body:
    at = int(rng.integers(len(body) + 1))
    return body[:at] + rng.bytes(int(rng.integers(1, 9))) + body[at:]


def _numbers_planted(body: Body, rng: Rng) -> Body:
    """Overwrites four bytes by a float that is no number, infinite, huge or tiny, or by a huge count."""
    at = int(rng.integers(max(1, len(body) - 4)))
    word = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0], dtype="<f4")).tobytes()
    return body[:at] + (word if rng.random() < 0.7 else b"\xff\xff\xff\x7f") + body[at + 4 :]


def first_tree(proof: CaseProof) -> int:
    """Returns where the bytes of the trees begin."""
    return len(replace(proof, trees=[]).encoded())


def cut(proof: CaseProof, rng: Rng) -> Body:
    """Divides the box at an input, and takes what proves the whole for a proof of each part; or of one alone."""
    body, at = proof.encoded(), first_tree(proof)
    value = float(rng.choice([0.5, -10.0, 10.0, np.nan, np.inf, float(rng.random())]))
    first = replace(proof, sites=[], trees=proof.trees[:1]).encoded()
    rest = replace(proof, sites=[], trees=proof.trees[1:]).encoded()
    twice = first + (first if rng.random() < 0.8 else b"")
    return body[:at] + struct.pack("<BId", CUT, int(rng.integers(3)), value) + twice + rest


def bounds_within(proof: CaseProof, rng: Rng) -> Body:
    """Bounds a part anew, well or badly."""
    body, at = proof.encoded(), first_tree(proof)
    block = body[:at] if rng.random() < 0.7 else _bytes_flipped(body[:at], rng)
    return body[:at] + bytes([BOUNDS]) + block + body[at:]


PROOFS: dict[str, Callable[[CaseProof, Rng], CaseProof]] = {
    "multiplier changed": _beta(7.0),
    "multiplier negated": _beta(-1.0),
    "multiplier no number": _beta(np.nan),
    "multiplier infinite": _beta(np.inf),
    "multiplier huge": _beta(1e35),
    "weights negated": _weights(-1.0),
    "weights no number": _weights(np.nan),
    "weights 0": _weights(0.0),
    "weights huge": _weights(1e29),
    "slope above 1": _slopes(1.5),
    "slope below 0": _slopes(-0.5),
    "slope no number": _slopes(np.nan),
    "slopes changed": _slopes(0.3),
    "slopes shuffled": _on_leaf(_shuffled),
    "leaf dropped": _dropped,
    "leaf repeated": _repeated,
    "split changed": _split_changed,
    "one side only": _side_only,
    "sides swapped": _sides_swapped,
    "one side twice": _one_side_twice,
    "split over and over": _split_again,
    "walk ends elsewhere": _on_leaf(_stop),
    "bounds loosened": _walks_dropped,
    "walks from other neurons": _walks_elsewhere,
    "slopes of other neurons": _slots_changed,
    "trees exchanged": _trees_exchanged,
}
BODIES: dict[str, Callable[[Body, Rng], Body]] = {
    "bytes flipped": _bytes_flipped,
    "bytes cut": _bytes_cut,
    "bytes added": _bytes_added,
    "numbers planted": _numbers_planted,
}
SHAPES: dict[str, Callable[[CaseProof, Rng], Body]] = {"box divided": cut, "bounds within": bounds_within}


def attacked(kind: str, proof: CaseProof, rng: Rng) -> Body:
    """Returns the bytes of a proof that was corrupted in one way."""
    if kind in PROOFS:
        return PROOFS[kind](proof, rng).encoded()
    return SHAPES[kind](proof, rng) if kind in SHAPES else BODIES[kind](proof.encoded(), rng)


KINDS = (*PROOFS, *BODIES, *SHAPES)
