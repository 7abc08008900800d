"""How much memory the walks over a network take, known from its sizes before anything of them is there.

By the arrays of `crown.program` and, in units, `crown.units.state`, or, row by row, `crown.rows.layout`; V variables, E
entries of all matrices:

    what                        in units, bytes                       row by row
    the program, once           8 E + 44 V                            8 E + 44 V, and as much again while it is made
    blocks, once                4 B, and as much again meanwhile      none
    an image                    12 E + 264 V                          8 E + 168 V
    a thread's scratch          386 V                                 197 V

B are the numbers of `crown.units.blocks`: of a linear layer that is dense enough one for each pair of neurons. Those
of convolutions, which positions share, are few. An image in units has room for 2 E weights, or more, of which E are
counted: pages that nobody writes to take no memory. Not counted are the network itself, what
`verifiers.sparse.certify` makes of it when it is loaded, and the bounds that a walk leaves, 16 V bytes.
"""

from __future__ import annotations

from prunecert.verifiers.sparse.arrays import BLOCK_WIDTH
from prunecert.verifiers.sparse.crown.units.blocks import LEAST_DENSITY, MOST_NUMBERS
from prunecert.verifiers.sparse.network import Network

#: Bytes of an entry and of a variable: of the program, of an image and of a thread's scratch, in units and row by row.
_PROGRAM = 8, 44
_IMAGE = {"units": (12, 264), "rows": (8, 168)}
_SCRATCH = {"units": 386, "rows": 197}
#: Of a number of a block.
_BLOCK = 4
#: Of a variable of the flat layout: what is known of it while the layout is made.
_MAKING = 96


def variables(network: Network) -> int:
    """Returns how many variables the layout of a network has: V, as `crown.program.lay_out` counts them."""
    raw, activated = {0, len(network.nodes) - 1, *network.raw()}, set(network.activated())
    # A node whose value and whose ReLU are both read has a level of either.
    return sum(node.size * ((k in raw) + (k in activated) or 0) for k, node in enumerate(network.nodes))


def block_numbers(network: Network) -> int:
    """Returns how many numbers the blocks of linear layers have together, about: B."""
    total = 0
    for node in network.nodes:
        shapes = [network.nodes[term.source].shape for term in node.terms]
        if len(node.shape) == 3 and all(len(shape) == 3 for shape in shapes):
            continue
        group = node.shape[0] if len(node.shape) == 3 else node.size
        rows = node.size // group * -(-group // BLOCK_WIDTH) * BLOCK_WIDTH
        room = rows * sum(network.nodes[term.source].size for term in node.terms)
        entries = sum(term.matrix.nnz for term in node.terms)
        if entries and LEAST_DENSITY * room <= entries and room <= MOST_NUMBERS * entries + 2**16:
            total += room
    return total


def walk_mb(network: Network, threads: int, by_rows: bool, images: int = 1) -> float:
    """Returns how much memory CROWN's walks take at their peak, in MiB.

    Args:
        network: The network.
        threads: That share the walks of an image, or bound one each.
        by_rows: Whether they go row by row, or in units.
        images: That are bounded at the same time.
    """
    kind = "rows" if by_rows else "units"
    entries, count = network.nonzeros, variables(network)
    # What is a ReLU over a variable has one entry.
    entries += count - sum(node.size for node in network.nodes)
    program = _PROGRAM[0] * entries + _PROGRAM[1] * count
    image = images * (_IMAGE[kind][0] * entries + _IMAGE[kind][1] * count)
    blocks = 0 if by_rows else _BLOCK * block_numbers(network)
    walking = program + blocks + image + threads * _SCRATCH[kind] * count
    # The parts of the program, and then those of its blocks, are there once more while they are put together.
    making = max(2 * program + _MAKING * count, program + 2 * blocks)
    return max(walking, making) / 2**20
