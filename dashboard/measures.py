"""What a map may show of a head: its attention, or what was made of it. From captures, without a new forward.

The traps: DeBERTa's terms are read for a layer at a time, so a new layer is one forward more; and not all of
these are shares of 1, so whoever shows one says what its rows are (`Measure.note`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dashboard.data import answers
from dashboard.data.answers import Asked, Model
from probes.maps import ALL_HEADS, Attention
from probes.norms import norm_weighted
from probes.summaries import without_sinks

TERM_NAMES = {
    "c2c": "content → content",
    "c2p": "content → position",
    "p2c": "position → content",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to show of a head.

    Attributes:
        label: for people.
        value: what the numbers are; empty for attention.
        note: what the rows are.
        shares: whether each row is shares of 1.
        term: the term of DeBERTa's scores that is shown or left out; empty: none.
    """

    label: str
    value: str
    note: str
    shares: bool = True
    term: str = ""


MEASURES = {
    "attention": Measure("attention", "", "Each row sums to 1."),
    "text": Measure(
        "attention without [CLS] and [SEP]",
        "share of the rest",
        "What goes to [CLS] and [SEP] is left out, and the rest of each row enlarged until it sums to 1.",
    ),
    "norms": Measure(
        "attention × length of the values",
        "weight",
        "Attention times the length of what is attended to, in the units of the hidden states (Kobayashi "
        "et al. 2020); rows do not sum to 1.",
        shares=False,
    ),
    "rollout": Measure(
        "rollout up to this layer",
        "share",
        "What each row is made of after this layer, over all heads and the layers below (Abnar and Zuidema "
        "2020); each row sums to 1.",
    ),
} | {
    name: measure
    for term, words in TERM_NAMES.items()
    for name, measure in (
        (
            term,
            Measure(
                f"scores: {words}",
                "score",
                "This term of the scores before the softmax, less the mean of its row, which the softmax "
                "does not see; pieces of a word are added up.",
                shares=False,
                term=term,
            ),
        ),
        (
            f"no-{term}",
            Measure(
                f"attention without {words}",
                "attention",
                "The attention that the other terms alone would give in this layer; each row sums to 1.",
                term=term,
            ),
        ),
    )
}


def offered(model: Model) -> list[str]:
    """The names of what can be shown of this model."""
    return [name for name, measure in MEASURES.items() if not measure.term or measure.term in model.terms]


def measured(
    name: str, model: Model, asked: Asked, *, window: int, layer: int, head: int
) -> tuple[Attention, int]:
    """What is shown of one head in one window, and the number of the head in it.

    Args:
        name: one of MEASURES that is offered for the model.
        model: that answered.
        asked: the question.
        window: its ordinal.
        layer: its number.
        head: its number.
    """
    if name == "rollout":
        return answers.roll_out(model, asked, window).select(layers=[layer]), ALL_HEADS
    term = MEASURES[name].term
    if term:
        terms = answers.terms(model, asked, window, layer)
        if name != term:
            return terms.without(term).select(heads=[head]), head
        scores = replace(terms.attention, probabilities=terms.centred(term), norms=None)
        return scores.select(heads=[head]), head
    one = answers.look(model, asked, window).select(layers=[layer], heads=[head])
    if name == "text":
        return without_sinks(one), head
    return (norm_weighted(one) if name == "norms" else one), head
