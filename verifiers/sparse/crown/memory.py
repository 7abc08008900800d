"""How much memory the walks over a network take, known from its sizes before anything of them is there.

By the arrays of `crown.program` and, in units, `crown.units.state`, or, row by row, `crown.rows.layout`; V variables, E
entries of all matrices:

    what                        in units, bytes                       row by row
    the program, once           8 E + 44 V                            8 E + 44 V, and as much again while it is made
    an image                    12 E + 236 V                          8 E + 168 V
    a thread's scratch          258 V                                 197 V

An image in units has room for 2 E weights, or more, of which E are counted: pages that nobody writes to take no memory.
Not counted are the network itself, what `verifiers.sparse.certify` makes of it when it is loaded, and the bounds that a
walk leaves, 16 V bytes.
"""

from __future__ import annotations

from prunecert.verifiers.sparse.network import Network

#: Bytes of an entry and of a variable: of the program, of an image and of a thread's scratch, in units and row by row.
_PROGRAM = 8, 44
_IMAGE = {"units": (12, 236), "rows": (8, 168)}
_SCRATCH = {"units": 258, "rows": 197}
#: Of a variable of the flat layout: what is known of it while the layout is made.
_MAKING = 96


def variables(network: Network) -> int:
    """Returns how many variables the layout of a network has: V, as `crown.program.lay_out` counts them."""
    raw, activated = {0, len(network.nodes) - 1, *network.raw()}, set(network.activated())
    # A node whose value and whose ReLU are both read has a level of either.
    return sum(node.size * ((k in raw) + (k in activated) or 0) for k, node in enumerate(network.nodes))


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
    walking = program + image + threads * _SCRATCH[kind] * count
    # The parts of the program are there once more while they are put together.
    making = 2 * program + _MAKING * count
    return max(walking, making) / 2**20
