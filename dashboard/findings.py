"""What the explanations of one answer say, in sentences that hedge when they should.

The trap: one question is an anecdote. Whatever stands out on it is said of this question only, and what
random rankings reach as well is not said to stand out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dashboard import wording
from probes.agreement import SUMMARIES, Agreement
from probes.faithfulness import Faithfulness
from qa.printing import listed

LEVEL = 0.05
ALIKE = 0.02  # differences of comprehensiveness that tell nothing apart
NAMES = {"mean": "raw attention", "rollout": "rollout", "value_norm": "value-norm attention"}


def about_heads(agreement: Agreement) -> str:
    """How many heads look where the attribution points, and which of them most."""
    measured = agreement.heads["rank_correlation"]
    if np.isnan(measured.value).all():
        return "The attribution ranks no words, so no head can agree with it."
    agreeing = int((measured.corrected < LEVEL).sum())
    layer, head = np.unravel_index(int(np.nanargmax(measured.value)), measured.value.shape)
    best = f"layer {layer}, head {head} (rank correlation {measured.value[layer, head]:.2f})"
    total = measured.value.size
    if not agreeing:
        return (
            f"No head of {total} ranks the words as the attribution does beyond chance; the nearest is "
            f"{best}, which says little."
        )
    summaries = agreement.summaries["rank_correlation"]
    known = [place for place in range(len(SUMMARIES)) if summaries.corrected[place] < LEVEL]
    all_heads = (
        f"Of all heads together, {listed([NAMES[SUMMARIES[place]] for place in known])} "
        f"{'do' if len(known) > 1 else 'does'} too."
        if known
        else "All heads together do not, in any of the three ways of summing them up."
    )
    return (
        f"{agreeing} of {total} heads rank the words as the attribution does beyond chance "
        f"(corrected p < {LEVEL}), most of all {best}. {all_heads}"
    )


def about_masking(found: Faithfulness, names: Mapping[str, str]) -> str:
    """Which ranking takes the answer away first, and whether random ones could as well.

    Args:
        found: curves of the rankings.
        names: of the rankings, in our words.
    """
    if found.full < 0.1:
        return (
            f"The answer has a probability of {wording.share(found.full)} only, so there is little that "
            "masking could take away: these curves say next to nothing."
        )
    losses = {name: curve.comprehensiveness for name, curve in found.curves.items()}
    first, *others = sorted(losses, key=lambda name: -losses[name])
    chance = float(np.quantile([curve.comprehensiveness for curve in found.random.curves], 0.95))
    values = f"comprehensiveness {losses[first]:.2f}, random rankings {found.random.comprehensiveness:.2f}"
    if losses[first] <= chance:
        return (
            f"No ranking takes this answer away sooner than random ones do ({values}): none of them is shown "
            "to be true to the model here."
        )
    alike = [first, *(name for name in others if losses[first] - losses[name] < ALIKE)]
    if len(alike) > 1:
        return (
            f"On this question {listed([names[name] for name in alike])} take the answer away equally soon "
            f"({values}): one question cannot tell them apart."
        )
    return (
        f"On this question {names[first]} is the most faithful ({values}), before {names[others[0]]} "
        f"({losses[others[0]]:.2f}). One question is an anecdote: see the whole data set below."
    )
