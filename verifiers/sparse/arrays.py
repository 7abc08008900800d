"""Types of arrays, and how many numbers the kernels take side by side.

Kernels are compiled for these widths: they are constants of theirs, see `cache`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Subdomains, points or rows side by side in float32: one AVX-512 register.
LANES32 = 16
#: Two registers of float32: what the walks of CROWN in units take at once, 16 rows with both signs.
PAIRED_LANES32 = 2 * LANES32
#: Neurons of a stripe of a convolution, side by side in float64: one AVX-512 register.
CONV_WIDTH = 8
#: Neurons of one position whose sums intervals keep in registers, of both kinds.
BLOCK_WIDTH = 4 * CONV_WIDTH
