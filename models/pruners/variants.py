"""Methods with one setting held fast, under names of their own, so that both can be cells of one suite.

A recipe has one allocation, and one setting of each pruner. What a board compares at equal epochs, such as layer rates
that begin uniform with those that begin balanced, or a method with and without its part, needs two names. A setting
that is held fast is no setting of the variant any more, and no allocation of a recipe reaches one that has its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prunecert.models.pruners import anp_vs, boosting, deadwooding, harp, hydra, lwm
from prunecert.models.pruners.contract import method_of


def held_fast(prune: Callable[..., Any], doc: str, **settings: Any) -> Callable[..., Any]:
    """Returns a pruner with some of its keywords given once and for all.

    Args:
        prune: The pruner.
        doc: What the variant is, in a sentence.
        settings: The keywords' values.

    >>> uniform = held_fast(lwm.prune, "LWM, uniform.", allocation="uniform")
    >>> list(inspect.signature(uniform).parameters), method_of(uniform).keeps_patterns
    (['model', 'compression'], False)
    """

    @functools.wraps(prune)
    def variant(model: Any, compression: float, **keywords: Any) -> Any:
        return prune(model, compression, **keywords, **settings)

    signature = inspect.signature(prune)
    marked: Any = variant
    marked.__doc__ = doc
    marked.__signature__ = signature.replace(
        parameters=[keyword for name, keyword in signature.parameters.items() if name not in settings]
    )
    method = method_of(prune)
    # A recipe's pattern would be passed over without a word.
    marked.method = replace(method, keeps_patterns=method.keeps_patterns and "allocation" not in settings)
    return variant


lwm_uniform = held_fast(lwm.prune, "LWM that keeps the same share of every layer.", allocation="uniform")
hydra_uniform = held_fast(hydra.prune, "HYDRA that keeps the same share of every layer.", allocation="uniform")
harp_uniform = held_fast(
    harp.prune, "HARP whose learned rates begin uniform, as in its paper.", allocation="uniform", rates="learned"
)
heracles = held_fast(harp.prune, "HYDRA with rates by search: HERACLES, reconstructed.", rates="searched")
boosting_random = held_fast(boosting.prune, "A ticket's mask, its weights drawn anew: the control.", values="random")
anp_vs_plain = held_fast(anp_vs.prune, "ANP without the suppression of vulnerability: the control.", suppression=0.0)
deadwooding_plain = held_fast(deadwooding.prune, "Deadwooding without distillation: the control.", soft=0.0)
