"""What is installed is said with what to install; batches fit into memory; CUDA that isn't there is an error."""

from __future__ import annotations

import importlib.metadata

import pytest

from prunecert.verifiers.adapters import hardware
from prunecert.verifiers.adapters.hardware import describe, domains_that_fit, first_missing, packaged, visible_devices

NOBODY = "a-distribution-that-nobody-made"


def test_the_first_that_is_missing_is_named() -> None:
    assert first_missing("numpy", "torch") is None
    assert first_missing("numpy", NOBODY, "another-such") == NOBODY


def test_a_distribution_is_available_with_all_that_it_needs() -> None:
    present = packaged("numpy", "torch", cuda=False)
    version = importlib.metadata.version("numpy")
    assert present.installed
    assert (present.version, present.source, present.devices) == (version, f"numpy {version} (PyPI)", ("cpu",))
    assert packaged("numpy").devices == visible_devices()
    for absent in (packaged(NOBODY, "numpy"), packaged("numpy", NOBODY)):
        assert not absent.installed
        assert absent.hint.endswith(f"needs {NOBODY}: python -m pip install {NOBODY}")
    assert packaged(NOBODY, whose="Nobody", install="'p[x]'").hint == (
        f"Nobody needs {NOBODY}: python -m pip install 'p[x]'"
    )


@pytest.mark.parametrize(("free", "relus", "fits"), [(2**20, 10**6, 4), (2**40, 10, 1000), (192 * 100 * 400, 100, 100)])
def test_domains_fit_into_a_share_of_what_is_free(
    free: int, relus: int, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "free_memory", lambda device: free)
    assert domains_that_fit(relus, "cpu") == fits
    assert domains_that_fit(relus, "cpu", most=50) == min(fits, 50)


def test_nothing_falls_back_to_the_cpu() -> None:
    assert describe("cpu") == "cpu"
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("here is a CUDA device")
    with pytest.raises(RuntimeError, match="'cuda:3' is refused"):
        describe("cuda:3")
