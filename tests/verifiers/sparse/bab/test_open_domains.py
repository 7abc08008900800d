"""Open subdomains go in and come out whole, the worst first."""

from __future__ import annotations

import numpy as np
import pytest

from prunecert.verifiers.sparse.bab import open_domains
from prunecert.verifiers.sparse.bab.dual import FIELDS, Batch
from prunecert.verifiers.sparse.bab.open_domains import Pool


def batch(rng: np.random.Generator, places: range) -> Batch:
    count = len(places)
    return Batch(
        disjunct=rng.integers(0, 3, count),
        sign=rng.integers(-1, 2, (count, 5)).astype(np.int8),
        alpha=rng.random((count, 5)).astype(np.float32),
        beta=rng.random((count, 5)).astype(np.float32),
        weights=rng.random((count, 2)).astype(np.float32),
        bound=rng.normal(size=count).astype(np.float32),
        place=np.array(places, dtype=np.int64),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_what_comes_out_is_what_went_in_worst_first(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_domains, "_LEAST", 4)
    monkeypatch.setattr(open_domains, "_MOST", 16)
    rng = np.random.default_rng(seed)
    pool, inside, number = Pool(), {}, 0
    assert pool.lowest() == np.inf
    for _ in range(60):
        if rng.random() < 0.6:
            count = int(rng.integers(0, 40))
            part = batch(rng, range(number, number + count))
            number += count
            pool.put(part)
            inside.update({int(place): part.take([k]) for k, place in enumerate(part.place)})
        elif len(pool):
            most = int(rng.integers(1, 50))
            worst = pool.take(most)
            assert len(worst) == min(most, len(inside))
            gone = {int(place): inside.pop(int(place)) for place in worst.place}
            assert len(gone) == len(worst)
            for k, place in enumerate(worst.place):
                for name in FIELDS:
                    np.testing.assert_array_equal(getattr(worst, name)[k], getattr(gone[int(place)], name)[0])
            if inside:
                assert worst.bound.max() <= min(item.bound[0] for item in inside.values())
        assert len(pool) == len(inside)
        assert pool.lowest() == min((float(item.bound[0]) for item in inside.values()), default=np.inf)
