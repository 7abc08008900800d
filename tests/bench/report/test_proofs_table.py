from __future__ import annotations

from prunecert.bench.report.proofs_table import notes


def test_what_has_no_certificate_is_said_by_name() -> None:
    counts = {"decided": 30, "certified": 5}
    missing = [{"image": image, "status": "unsat", "verifier": "bab", "detail": "too hard"} for image in range(25)]
    missing[1]["detail"] = ""
    cell = {"name": "net", "unsat": counts, "sat": counts, "sparse": counts, "size": 12_345, "seconds": 1.5}
    lines = notes({"proofs": [{**cell, "check_s": 0.5, "uncertified": missing}]})
    assert lines[0].startswith("certificates of net: 5 of 30 unsat, 5 of 30 sat (of them 5 of 30 by sparse")
    assert "12,345 bytes" in lines[0]
    assert lines[1] == "NO CERTIFICATE: net image 0, unsat by bab: too hard."
    assert lines[2] == "NO CERTIFICATE: net image 1, unsat by bab: none was asked for yet."
    assert lines[-1] == "NO CERTIFICATE: and 5 more; see summary.json."
    assert notes({}) == notes({"proofs": []}) == []
