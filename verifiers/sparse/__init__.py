"""Bounds that skip zeros: networks as sparse affine maps, walked through by compiled kernels. Usable alone."""
