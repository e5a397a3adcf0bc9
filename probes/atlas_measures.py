"""What the atlas says of a head: one row of a table for each measure, and those that are read off its maps.

A measure of a question is the mean over the rows (tokens) that it is about, in all windows of the question; a
measure of a head is the mean over questions, so that a long text has no more say than a short one. The gold
answer stands for "the answer", so that the numbers do not depend on what the model replied. The trap: a share
says little without what attention to everything alike would give, and a measure may be about no row at all
(a question without an answer, a text without a repeated word): then it is NaN, and no zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, SEP, Attention, spans_of

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a head.

    Attributes:
        name: of its column.
        label: for people.
        unit: of the number; "share" is of 1.
        meaning: one sentence.
        low: the least it can be; None: no bound.
        high: the most.
    """

    name: str
    label: str
    unit: str
    meaning: str
    low: float | None = 0.0
    high: float | None = None


def _share(name: str, label: str, meaning: str) -> Measure:
    return Measure(name, label, "share", meaning, 0.0, 1.0)


MAP_MEASURES = (
    Measure("entropy", "entropy", "bits", "how widely a token's attention is spread"),
    _share("evenness", "evenness", "entropy as a share of that of attention to every token alike"),
    Measure("distance", "mean distance", "tokens", "how far away what a token attends to is"),
    _share("sinks", "on [CLS] and [SEP]", "attention to special tokens"),
    _share("cls", "on [CLS]", "attention to the first token"),
    _share("sep", "on [SEP]", "attention to the separators"),
    _share("previous", "on the previous token", "attention to the token before"),
    _share("next", "on the next token", "attention to the token after"),
    _share("itself", "on itself", "attention to the very token"),
    _share(
        "same_word", "on the same word elsewhere", "attention of words that occur twice to their other places"
    ),
    _share("question_to_context", "question → context", "attention of the question to the context"),
    _share("context_to_question", "context → question", "attention of the context to the question"),
    _share("answer_to_question", "answer → question", "attention of the gold answer to the question"),
    _share("question_to_answer", "question → answer", "attention of the question to the gold answer"),
    _share("to_answer", "on the gold answer", "attention to the gold answer from all tokens outside of it"),
)
TERM_MEASURES = tuple(
    Measure(f"{term}_size", f"{term} size", "logits", f"mean size of the {words} term of its scores")
    for term, words in (
        ("c2c", "content-to-content"),
        ("c2p", "content-to-position"),
        ("p2c", "position-to-content"),
    )
) + tuple(
    _share(f"{term}_moved", f"moved by {term}", f"how much attention goes elsewhere without the term {term}")
    for term in ("c2c", "c2p", "p2c")
)
IMPORTANCE_MEASURES = (
    Measure(
        "knockout",
        "importance (knock-out)",
        "nats",
        "log-probability that the gold answer loses when the head is switched off",
        None,
    ),
    Measure(
        "gradient",
        "importance (gradient)",
        "nats",
        "the same to first order, from one backward pass: the cheap estimate",
        None,
    ),
    Measure("knockout_f1", "F1 lost", "points", "F1 lost when the head is switched off", -100.0, 100.0),
    Measure(
        "knockout_exact_match",
        "exact match lost",
        "points",
        "exact match lost when the head is switched off",
        -100.0,
        100.0,
    ),
)
# Means of sizes: what a head does to single questions, for better or worse.
SIZE_MEASURES = (
    Measure(
        "knockout_size",
        "effect (knock-out)",
        "nats",
        "how much the gold answer's log-probability changes without the head, up or down",
    ),
    Measure("gradient_size", "effect (gradient)", "nats", "the same to first order (Michel et al. 2019)"),
)
QUESTION_MEASURES = MAP_MEASURES + TERM_MEASURES + IMPORTANCE_MEASURES
MEASURES = QUESTION_MEASURES + SIZE_MEASURES
BY_NAME = {measure.name: measure for measure in MEASURES}


@dataclass(slots=True)
class Rows:
    """Sums over rows of the measures of L layers and H heads.

    Attributes:
        sums: by measure [M, L, H], in the order of MAP_MEASURES.
        counts: rows they are over [M].
    """

    sums: Float
    counts: Float

    def __add__(self, other: Rows) -> Rows:
        return Rows(self.sums + other.sums, self.counts + other.counts)

    def means(self) -> dict[str, Float]:
        """The mean of each measure over its rows [L, H]; NaN where it has none."""
        with np.errstate(invalid="ignore"):
            means = self.sums / self.counts[:, None, None]
        return {measure.name: values for measure, values in zip(MAP_MEASURES, means, strict=True)}


def measure_maps(attention: Attention) -> Rows:
    """The measures of one window.

    Args:
        attention: whose region "answer" is the gold answer; float32 for numbers that are exact to 1e-6.
    """
    layout = _Layout.of(attention)
    L, H = attention.probabilities.shape[:2]
    sums = np.zeros((len(MAP_MEASURES), L, H))
    counts = np.array([layout.rows[measure.name].sum() for measure in MAP_MEASURES], dtype=np.float64)
    for layer, maps in enumerate(attention.probabilities):  # a layer at a time, for memory
        found = _by_row(torch.from_numpy(maps).float(), layout)  # {measure: [H, T]}
        for place, measure in enumerate(MAP_MEASURES):
            chosen = found[measure.name][:, layout.rows[measure.name]]
            sums[place, layer] = chosen.sum(-1, dtype=np.float64)
    return Rows(sums, counts)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the T tokens of a window are to each other.

    Attributes:
        rows: the rows that each measure is about [T].
        members: [CLS], [SEP], question, context with the answer, answer [T, 5].
        distances: between two tokens [T, T].
        same: whether two tokens are of the same word in different places [T, T].
    """

    rows: dict[str, Bool]
    members: torch.Tensor
    distances: torch.Tensor
    same: torch.Tensor

    @staticmethod
    def of(attention: Attention) -> _Layout:
        regions = attention.regions
        T, place = len(regions), np.arange(len(regions))
        question, context, answer = regions == QUESTION, regions >= CONTEXT, regions == ANSWER
        same: Bool = _same_words(attention)
        repeated: Bool = np.any(same, axis=1)
        everywhere = np.ones(T, dtype=np.bool_)
        nowhere = np.zeros(T, dtype=np.bool_)
        has_answer, has_context = bool(answer.any()), bool(context.any())
        rows: dict[str, Bool] = dict.fromkeys([measure.name for measure in MAP_MEASURES], everywhere)
        rows |= {
            "previous": place > 0,
            "next": place < T - 1,
            "same_word": repeated,
            "question_to_context": question if has_context else nowhere,
            "context_to_question": context if question.any() else nowhere,
            "answer_to_question": answer if question.any() else nowhere,
            "question_to_answer": question if has_answer else nowhere,
            "to_answer": ~answer if has_answer else nowhere,
        }
        members = np.stack([regions == CLS, regions == SEP, question, context, answer], axis=1)
        return _Layout(
            rows=rows,
            members=torch.from_numpy(members.astype(np.float32)),
            distances=torch.from_numpy(np.abs(place[:, None] - place).astype(np.float32)),
            same=torch.from_numpy(same),
        )


def _by_row(maps: torch.Tensor, layout: _Layout) -> dict[str, NDArray[np.float32]]:
    """Each measure of each row [H, T], of the maps of one layer [H, T, T]."""
    H, T, _ = maps.shape
    entropy = torch.special.entr(maps).sum(-1) / np.log(2)
    cls, sep, question, context, answer = (maps @ layout.members).unbind(-1)
    diagonals = {name: torch.zeros(H, T) for name in ("previous", "next", "itself")}
    diagonals["previous"][:, 1:] = maps.diagonal(-1, 1, 2)
    diagonals["next"][:, :-1] = maps.diagonal(1, 1, 2)
    diagonals["itself"] = maps.diagonal(0, 1, 2)
    found = diagonals | {
        "entropy": entropy,
        "evenness": entropy / np.log2(T),
        "distance": (maps * layout.distances).sum(-1),
        "sinks": cls + sep,
        "cls": cls,
        "sep": sep,
        "same_word": (maps * layout.same).sum(-1),
        "question_to_context": context,
        "context_to_question": question,
        "answer_to_question": question,
        "question_to_answer": answer,
        "to_answer": answer,
    }
    return {name: values.numpy() for name, values in found.items()}


def _same_words(attention: Attention) -> Bool:
    """Which tokens are of the same word in different places [T, T]; a word has a letter or digit in it."""
    words = attention.words
    count = int(words[-1]) + 1
    spans = spans_of(attention.chars, words, count)
    firsts = np.unique(words, return_index=True)[1]
    numbers: dict[str, int] = {}
    kinds = np.full(count, -1)
    for word, ((start, end), token) in enumerate(zip(spans.tolist(), firsts, strict=True)):
        text = attention.question if attention.regions[token] == QUESTION else attention.context
        name = text[max(start, 0) : max(end, 0)].casefold()
        if any(map(str.isalnum, name)):
            kinds[word] = numbers.setdefault(name, len(numbers))
    own = kinds[words]
    same: Bool = (own[:, None] == own) & (own >= 0) & (words[:, None] != words)
    return same
