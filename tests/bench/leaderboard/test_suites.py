from __future__ import annotations

from prunecert.bench.leaderboard.suites import shipped_suite


def test_a_suite_is_known_by_name_and_profile() -> None:
    suite = shipped_suite("cifar10-4nets", "smoke")
    assert suite is not None
    assert suite.profile == "smoke"
    assert shipped_suite("cifar10-4nets", "no such profile") is None
    assert shipped_suite("../cifar10-4nets", "default") is None
