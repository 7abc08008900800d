"""The l2 ball: SDP-CROWN's bounds, slopes that rise to the best, and branch and bound on ReLUs."""
