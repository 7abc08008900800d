"""Open sub-boxes go in and come out whole, the worst first."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.verifiers.sparse.bab.open_boxes import Boxes, OpenBoxes


def boxes(rng: np.random.Generator, names: range) -> Boxes:
    low = rng.random((len(names), 3))
    return Boxes(
        low=low,
        high=low + rng.random(low.shape),
        disjunct=np.array(names, dtype=np.int64),
        bound=rng.normal(size=len(names)),
        axis=rng.integers(-1, 3, len(names)),
    )


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_out_is_what_went_in_worst_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool, inside, number = OpenBoxes(3), {}, 0
    assert pool.lowest() == np.inf
    for _ in range(60):
        if rng.random() < 0.6:
            count = int(rng.integers(0, 60))
            part = boxes(rng, range(number, number + count))
            number += count
            pool.put(part)
            inside.update({int(name): part.take(np.array([k])) for k, name in enumerate(part.disjunct)})
        elif len(pool):
            most = int(rng.integers(1, 70))
            worst = pool.worst(most)
            assert len(worst) == min(most, len(inside))
            gone = {int(name): inside.pop(int(name)) for name in worst.disjunct}
            assert len(gone) == len(worst)
            for k, name in enumerate(worst.disjunct):
                for field in ("low", "high", "bound", "axis"):
                    np.testing.assert_array_equal(getattr(worst, field)[k], getattr(gone[int(name)], field)[0])
            if inside:
                assert worst.bound.max() <= min(item.bound[0] for item in inside.values())
        assert len(pool) == len(inside) == len(pool.open())
        assert pool.lowest() == min((float(item.bound[0]) for item in inside.values()), default=np.inf)
        assert pool.megabytes == len(inside) * 72 / 2**20
