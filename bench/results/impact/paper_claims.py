"""What the papers claim of their methods, as far as networks can be asked."""

from __future__ import annotations

from collections.abc import Mapping

from prunecert.bench.results.impact.claims import (
    Difference,
    EarlyMask,
    FewerEpochs,
    LessOverfitting,
    PaperClaim,
    RiseAboveFall,
    UnevenRates,
)
from prunecert.models import DENSE

#: What the papers claim, as far as the suite `cifar10-methods` can say anything to it.
CLAIMS: tuple[PaperClaim, ...] = (
    UnevenRates("harp-uniform", "at 100x the largest layer rate is over 10 times the smallest", 100, 10.0),
    Difference("harp-uniform", "beats uniform HYDRA at 100x", 100, ("hydra-uniform", 100)),
    Difference("harp", "beats HYDRA at 100x, both from balanced rates", 100, ("hydra", 100)),
    # As published it removes no weight; pruned, both sides are.
    Difference("grafting", "verified accuracy rises by over 10 points", 1, (DENSE, 1.0), "verified", 0.1),
    RiseAboveFall("grafting", "attacked accuracy falls by less than verified accuracy rises", 1, (DENSE, 1.0)),
    Difference("grafting", "verified accuracy rises by over 10 points", 10, ("lwm", 10), "verified", 0.1),
    RiseAboveFall("grafting", "attacked accuracy falls by less than verified accuracy rises", 10, ("lwm", 10)),
    Difference("sparse-vlr", "beats one-shot filters with 90 % removed", 10, ("structured", 10), "verified"),
    LessOverfitting("flying-bird", "less robust overfitting than dense", 10),
    LessOverfitting("flying-bird-plus", "less robust overfitting than dense", 10),
    EarlyMask("robust-bird", "the mask costs under 15 % of the training", 10, 0.15),
    Difference("robust-bird", "attacked accuracy within 2 points of dense", 10, (DENSE, 1.0), least=-0.02),
    Difference("connectivity", "beats a random static mask at 100x", 100, ("random", 100)),
    FewerEpochs(
        "boosting",
        "30 % fewer epochs to 95 % of dense's attacked accuracy, and fewer than weights drawn anew",
        10,
        ("boosting-random", 10),
    ),
    Difference("mad", "keeps more attacked accuracy than magnitude", 10, ("lwm", 10)),
    Difference("ard", "keeps more attacked accuracy than hard labels", 10, ("lwm", 10)),
    Difference("ard", "keeps more verified accuracy than hard labels", 10, ("lwm", 10), "verified"),
    Difference("deadwooding", "distillation helps", 10, ("deadwooding-plain", 10)),
    Difference("anp-vs", "suppressing vulnerability raises attacked accuracy", 4, ("anp-vs-plain", 4)),
    Difference("inheritance", "no less attacked accuracy than without (within a point)", 10, ("lwm", 10), least=-0.01),
    *(
        Difference(method, "beats filters by L1", at, ("structured", at))
        for method in ("fre", "coevolution", "anp-vs", "cstar")
        for at in (4, 15)
    ),
)
#: What papers claim and no cell can say, with the reason.
UNASKED: Mapping[str, str] = {
    "anp-vs": "that the vulnerability itself falls is not measured: cards don't hold it",
    "inheritance": "against the full network from scratch, as published, nothing can be said: ours ends pruned",
    "mad": "that the most salient weights matter more than the least is a test (tests/models/pruners/test_mad.py)",
    "heracles": "its own claims are not known to us in numbers; the contrasts hold it against balanced rates",
}
