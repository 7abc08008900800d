"""How a certificate bounds hidden neurons so that what the search proved over its own bounds holds over the file's."""

from __future__ import annotations

import numpy as np

from prunecert.verifiers.checker.bounds import Bounds
from prunecert.verifiers.checker.nodes import Conv, Network
from prunecert.verifiers.checker.proof import Tree
from prunecert.verifiers.checker.vnnlibfile import Case
from prunecert.verifiers.sparse.proofs.certificate import CaseProof, SiteBounds, Slopes, Walk, stream


def walks(network: Network, site: int, *, within: bool = False) -> tuple[Walk, ...]:
    """Returns the walks by which a node's bounds become as good as the search's after CROWN.

    None for a node that is affine in the input. The search has one map where the file has several, one after another
    or, as round the shortcut of a wide ResNet's block, side by side. Its intervals are those of that map, which a walk
    gives that ends at the values before it.

    Args:
        network: The network.
        site: The node; it feeds ReLUs.
        within: Whether bounds round these have it that walks to the input were made.
    """
    if not any(network.nodes[source].relu or source for source in network.nodes[site].sources):
        return ()
    # For each node in how many ways its value goes into this one's, and through how many matrices at most.
    ways, matrices, ends = {site: 1}, {site: 0}, list[int]()
    for at in range(site, -1, -1):
        node = network.nodes[at]
        if at in ways and (node.relu or not at):
            ends.append(at)
        elif at in ways:
            through = matrices[at] + (isinstance(node, Conv) and node.terms[0] > 1)
            for source in node.sources:
                ways[source] = ways.get(source, 0) + ways[at]
                matrices[source] = max(matrices.get(source, 0), through)
    several = ends[0] > 0 and any(ways[at] > 1 or matrices[at] > 1 for at in ends)
    return (*([Walk(stop=ends[0])] if several else []), *([] if within else [Walk()]))


def followed(network: Network, case: Case) -> list[SiteBounds]:
    """Returns bounds with the slopes that the search's own CROWN has.

    A default slope of the file's is 1 where a neuron's upper end is the further one from 0. The search's is what the
    walk alone says there (`crown.engine`), before intervals narrow it: neurons of which that is another one get slots.

    Args:
        network: The network.
        case: The box.
    """
    tree = Tree(stream(CaseProof([SiteBounds() for _ in network.sites], [])), network, case)
    bounds, slopes = Bounds(network.nodes, case.lower, case.upper), np.zeros(0, dtype=np.float32)
    sites = list[SiteBounds]()
    for at in range(1, network.sites[-1] + 1):
        bounds.add()
        if at not in network.sites:
            continue
        low, high, used, slots = bounds.lower[at], bounds.upper[at], list[Walk](), np.zeros(0, dtype=np.int64)
        for walk in walks(network, at):
            ends, free = (low.copy(), high.copy()), np.flatnonzero((low < 0) & (high > 0))
            rows = np.tile(slopes, (2 * len(free), 1))
            used.append(Walk(free, Slopes(rows, 0), walk.stop) if len(slopes) else walk)
            # What is left of them is the walk's.
            low[free], high[free] = -np.inf, np.inf
            tree._walk(bounds, at, free, walk.stop, rows)
            rising = high > -low
            np.maximum(low, ends[0], out=low)
            np.minimum(high, ends[1], out=high)
            slots = np.flatnonzero((low < 0) & (high > 0) & (rising != (high >= -low)))
            says = rising[slots].astype(np.float32)
        bounds.slots[at] = len(slopes), slots
        slopes = np.append(slopes, says) if len(slots) else slopes
        sites.append(SiteBounds(tuple(used), slots))
    return sites
