"""Where the restarts of an attack start."""

from __future__ import annotations

import zlib

import numpy as np

from prunecert.verifiers.base import FloatArray, Instance, Norm


def start(instance: Instance, restart: int, norm: Norm, seed: int) -> FloatArray:
    """Draws a point of the unit cube, or of the unit ball, that depends on nothing but the image.

    Args:
        instance: The question.
        restart: Number of the restart.
        norm: ``"linf"``: of the cube; ``"l2"``: of the ball.
        seed: Of all starts.
    """
    image = zlib.crc32(instance.lower.tobytes() + instance.upper.tobytes())
    rng = np.random.default_rng((seed, restart, image))
    if norm == "linf":
        return rng.random(instance.lower.shape, dtype=np.float32)
    direction = rng.standard_normal(instance.lower.shape)
    radius = rng.random() ** (1 / direction.size)
    point: FloatArray = (direction * (radius / np.linalg.norm(direction))).astype(np.float32)
    return point
