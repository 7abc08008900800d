"""Values and gradients of a ReLU network at 16 points side by side, through its sparse rows.

The points of a group keep each neuron's 16 values together, so that a weight is one multiply-add of a vector, forwards
and backwards; backwards, a neuron that none of the 16 has switched on costs nothing. There is no product of dense
matrices in it, hence no library whose threads wait for each other where other work runs on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from verifiers.sparse.gather import LANES, gather, scatter
from verifiers.sparse.network import Network
from verifiers.sparse.reduce import Reduced

Single = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Rows = tuple[Any, Any, Any]
