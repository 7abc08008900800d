from __future__ import annotations

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.certification import Certifying


def test_the_verifiers_of_the_sparse_engine_write_certificates_and_no_others() -> None:
    writing = {name for name in VERIFIERS if issubclass(VERIFIERS.get(name), Certifying)}
    assert writing == {name for name in VERIFIERS if name.startswith("sparse-")}
