"""What DeBERTa's scores are made of: content-to-content, content-to-position and position-to-content.

Before the softmax, the score of query i and key j is the sum of three terms (He et al. 2021,
https://arxiv.org/abs/2006.03654): how the contents match (c2c), what the query makes of the distance i - j
(c2p), and what the key makes of it (p2c). Here they are for some layers and heads of one window, with what
the attention becomes without one of them; `probes.term_shares` sums them up for all.

The traps: a softmax ignores whatever is added to a whole row, so the size of a raw term says little; look at
terms less their row's mean (`Terms.centred`). And the scale 1/sqrt(d * terms) stays as it is when a term is
left out, because the model has learnt with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from probes.attend import attend, chosen_windows
from probes.attention import as_slice, blocks_of_heads, chosen_numbers, plain_tensors
from probes.calls import Call, Watch
from probes.encoders import Parts, describe
from probes.maps import Attention, Float, check_bytes
from probes.scores import Scorer
from qa.errors import UserError
from qa.reader import Reader
from qa.spans import Answer

# Content-to-content, content-to-position, position-to-content: everywhere in this order.
TERMS = ("c2c", "c2p", "p2c")


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of the scores between the T tokens of one window.

    Attributes:
        attention: what the model attended to, in float32.
        scores: the scores of each term that the model has, by its name in TERMS, float32 [L, H, T, T]; before
            the softmax, their sum is the model's own. A model whose `pos_att_type` lacks a term has no entry
            for it.
    """

    attention: Attention
    scores: dict[str, Float]

    def without(self, *terms: str) -> Attention:
        """What the attention would be without some terms: the softmax of the sum of the others.

        Each layer gets the input that it got; what the layers below would have made of it without their own
        terms is no part of this. Without all terms every token is attended to alike.

        Raises:
            UserError: a term that this model does not have.
        """
        for term in terms:
            self._check(term)
        if not terms:
            return self.attention
        others = [scores for name, scores in self.scores.items() if name not in terms]
        probabilities = np.zeros(self.attention.probabilities.shape, dtype=np.float32)
        for layer, maps in enumerate(torch.from_numpy(probabilities)):  # a layer at a time, for memory
            for scores in others:
                maps += torch.tensor(scores[layer])  # a copy, as the scores may be read-only
            maps.copy_(maps.softmax(-1))
        return replace(self.attention, probabilities=probabilities)

    def centred(self, term: str) -> Float:
        """The scores of a term less the mean of their row [L, H, T, T]: what the softmax sees of them.

        Raises:
            UserError: a term that this model does not have.
        """
        scores = self.scores[self._check(term)]
        centred: Float = scores - scores.mean(-1, keepdims=True)
        return centred

    def _check(self, term: str) -> str:
        if term not in self.scores:
            raise UserError(f"term: {term!r}; this model has {', '.join(self.scores)}")
        return term


def read_terms(
    reader: Reader,
    question: str,
    context: str,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    window: int | None = None,
    answer: Answer | None = None,
) -> Terms:
    """The terms in one window of a context.

    Args:
        reader: of a DeBERTa.
        question: any text that is not blank.
        context: likewise, of any length.
        layers: numbers of layers, counted from 0; None: all.
        heads: numbers of heads, counted from 0; None: all.
        window: its ordinal; None: the one that gave the answer.
        answer: the reader's own to this question, where it is known; None: it is asked for first.

    Raises:
        UserError: the model is no DeBERTa; blank text, a layer, head or window that is not there, or more
            than a few gigabytes.
    """
    parts = describe_deberta(reader.encoder.model)
    layer_numbers = chosen_numbers("layers", layers, len(parts.layers))
    head_numbers = chosen_numbers("heads", heads, parts.heads)
    asked = reader.windows([(question, context)])
    chosen_windows(None if window is None else [window], len(asked))
    if answer is None:
        (answer,) = reader.read(asked).answers
    number = answer.window if window is None else window
    matrices = _Matrices(parts, layer_numbers, head_numbers, int(asked.lengths[number]))
    with Watch(parts, layer_numbers, matrices):
        attended = attend(
            reader,
            question,
            context,
            layers=layer_numbers,
            heads=head_numbers,
            windows=[number],
            dtype=torch.float32,
            answer=answer,
        )
    scores = {term: found.numpy() for term, found in matrices.scores.items()}
    return Terms(attended.window(number), scores)


def describe_deberta(model: nn.Module) -> Parts:
    """`probes.encoders.describe` for a model that has these terms.

    Raises:
        UserError: it is no DeBERTa, or a variant that is not covered.
    """
    parts = describe(model)
    if not parts.architecture.positions:
        raise UserError(
            f"model: {parts.architecture.name} has no terms of content and position; they are DeBERTa's: "
            "choose an experiment with one"
        )
    return parts


def terms_of(parts: Parts) -> tuple[str, ...]:
    """The terms that a DeBERTa has, of TERMS."""
    config: Any = parts.base.config
    kinds = (config.pos_att_type or ()) if config.relative_attention else ()
    return tuple(term for term in TERMS if term == "c2c" or term in kinds)


class _Matrices:
    """A watcher that keeps the terms of one example of T tokens without padding.

    Raises:
        UserError: they would take more than a few gigabytes.
    """

    def __init__(self, parts: Parts, layers: tuple[int, ...], heads: tuple[int, ...], T: int) -> None:
        self._parts = parts
        self._layers = layers
        self._heads = heads
        terms, maps = terms_of(parts), len(layers) * len(heads)
        # With the probabilities, and room for those without a term.
        check_bytes(4 * (len(terms) + 2) * maps * T * T, f"{len(terms)} terms of {maps} heads")
        self.scores = {term: torch.empty(len(layers), len(heads), T, T) for term in terms}

    def begin(self, ids: torch.Tensor | None) -> None:
        pass

    def attended(self, call: Call) -> None:
        place, T = self._layers.index(call.layer), call.hidden.shape[1]
        with plain_tensors(call.hidden.device):
            scorer = Scorer.of(call, self._parts)
            for first, last in blocks_of_heads(len(self._heads), T):
                found = scorer.terms(0, as_slice(self._heads[first:last]), T)
                for term, store in self.scores.items():
                    scores = found[TERMS.index(term)]
                    assert scores is not None
                    store[place, first:last] = scores

    def end(self) -> None:
        pass
