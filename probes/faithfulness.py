"""Is a ranking of words true to the model? Mask its first words, or all but these, and see what is left.

Words are masked in place, their vectors exchanged for that of [MASK], in every window that holds them, so no
position moves and the span stays where it is; what is followed is its probability among all spans of all
windows. *Comprehensiveness*: what the probability loses without the first words; *sufficiency*: what it loses
with only these (DeYoung et al. 2020, https://arxiv.org/abs/1911.03429). Both are curves over the share of
words, and one number, the plain mean over the shares between nothing and everything.

The trap: any masking harms, and a model may be sure of anything on text it has never seen the like of. So a
curve means something only beside the band of random rankings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from probes.embedded import BATCH_BYTES, Embedded, layout_of
from probes.knockout import copies_of
from probes.maps import QUESTION, Attention
from probes.span_target import SpanTarget
from probes.targets import Asked, Fixed
from probes.word_scores import Word, word_numbers, words_of_layout
from qa.errors import UserError
from qa.evaluation import full_precision
from qa.spans import Float, decode
from qa.windows import Progress

Bool = NDArray[np.bool_]

# Between the ends those of DeYoung et al.: most words matter little, so the first ones have to weigh most.
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
LABELS = {
    "comprehensiveness": "comprehensiveness: probability lost without the top words (higher is better)",
    "sufficiency": "sufficiency: probability lost with only the top words (lower is better)",
}
BAND = (0.05, 0.95)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What masking by one ranking does; P shares of the words.

    Attributes:
        without: probability of the span with the first words masked [P].
        only: probability with all but the first words masked [P].
        shares: of the words that are first [P].
        full: probability with nothing masked.
    """

    without: Float
    only: Float
    shares: Float
    full: float

    @property
    def comprehensiveness(self) -> float:
        """Mean of the probability lost without the first words, over the inner shares; higher is better."""
        return self.full - float(self.without[1:-1].mean())

    @property
    def sufficiency(self) -> float:
        """Mean of the probability lost with only the first words, likewise; lower is better."""
        return self.full - float(self.only[1:-1].mean())


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Random rankings, R of them, over P shares.

    Attributes:
        curves: of each.
        without: 5th and 95th percentile of the probabilities without the first words [2, P].
        only: likewise with only these.
    """

    curves: tuple[Curve, ...]
    without: Float
    only: Float

    @property
    def comprehensiveness(self) -> float:
        """Mean over the rankings."""
        return float(np.mean([curve.comprehensiveness for curve in self.curves]))

    @property
    def sufficiency(self) -> float:
        """Mean over the rankings."""
        return float(np.mean([curve.sufficiency for curve in self.curves]))


@dataclass(frozen=True, slots=True, eq=False)
class Faithfulness:
    """Curves of rankings of the same W words.

    Attributes:
        curves: by the rankings' names.
        random: the band beside which they are to be read.
        words: that were ranked [W].
        full: probability with nothing masked.
    """

    curves: dict[str, Curve]
    random: Band
    words: tuple[Word, ...]
    full: float


def faithfulness(
    asked: Asked,
    fixed: Fixed,
    rankings: Mapping[str, Float],
    *,
    shares: Sequence[float] = SHARES,
    random: int = 10,
    seed: int = 0,
    batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> Faithfulness:
    """Comprehensiveness and sufficiency of rankings, with random ones beside them.

    Args:
        asked: the question.
        fixed: the target; what is followed is the probability of its span, or of "no answer".
        rankings: by name, scores of the W words of the target's window, highest first [W]. Words beyond this
            window are never masked.
        shares: of the words to mask or keep, ascending from 0 to 1 [P].
        random: R, how many random rankings.
        seed: of these.
        batch_bytes: what the activations of one batch may take, about; a batch has one variant at least.
        progress: called with (windows read, windows in all).

    Raises:
        UserError: shares that do not go from 0 to 1, scores of other words, or no random ranking.
    """
    words = words_of_layout(layout_of(asked, fixed.window))
    points = _checked(shares, random)
    orders = [_order(name, scores, len(words)) for name, scores in rankings.items()]
    rng = np.random.default_rng(seed)
    orders += [rng.permutation(len(words)) for _ in range(random)]
    first = np.stack([_first(order, points) for order in orders])  # [N, P, W]
    masked = np.concatenate([first, ~first], axis=1)
    distinct, place = np.unique(masked.reshape(-1, len(words)), axis=0, return_inverse=True)
    found = probabilities(asked, fixed, distinct, words=words, batch_bytes=batch_bytes, progress=progress)
    without, only = found[place.ravel()].reshape(len(orders), 2, len(points)).transpose(1, 0, 2)
    full = float(without[0, 0])
    curves = [Curve(*both, points, full) for both in zip(without, only, strict=True)]
    named = dict(zip(rankings, curves, strict=False))
    by_chance = slice(len(named), None)
    band = Band(
        tuple(curves[by_chance]),
        np.quantile(without[by_chance], BAND, axis=0),
        np.quantile(only[by_chance], BAND, axis=0),
    )
    return Faithfulness(named, band, words, full)


def probabilities(
    asked: Asked,
    fixed: Fixed,
    masked: Bool,
    *,
    words: Sequence[Word],
    batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> Float:
    """Probability of the target's span, or of "no answer", with words masked in N ways [N].

    Args:
        asked: the question.
        fixed: the target.
        masked: true for words that are to be masked [N, W].
        words: of the target's window [W]; they are masked in all windows that hold them.
        batch_bytes: what the activations of one batch may take, about.
        progress: called with (windows read, windows in all).
    """
    windows, count = asked.windows, len(masked)
    scores = np.empty((2, count, len(windows.ids)), np.float32)
    done, total = 0, count * len(windows)
    for number in range(len(windows)):
        here = scores[:, :, windows.splits[number] : windows.splits[number + 1]]
        layout = layout_of(asked, number)
        tokens = _tokens(layout, masked, _numbers(layout, words, own=number == fixed.window))
        for rows, read in _reads(asked, number, tokens, batch_bytes):
            here[:, rows] = read
            done += read.shape[1]
            if progress is not None:
                progress(done, total)
    answers = decode(
        copies_of(windows, count),
        scores[0].ravel(),
        scores[1].ravel(),
        max_answer_length=asked.reader.reading.max_answer_length,
        n_best=1,
    )
    span: SpanTarget | None = fixed.span
    if span is None:
        return np.array([answer.no_answer_probability for answer in answers])
    return span.probability(scores[0], scores[1], answers)


def _reads(
    asked: Asked, number: int, tokens: Bool, batch_bytes: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Start and end scores [2, B, T] of one window for each batch of ways to mask its tokens [N, T]."""
    embedded = Embedded(asked, number)
    size = embedded.batch(batch_bytes, gradients=False)
    with full_precision(asked.reader.encoder.model), embedded:
        for begin in range(0, len(tokens), size):
            rows = slice(begin, min(begin + size, len(tokens)))
            gone = torch.from_numpy(tokens[rows, :, None]).to(embedded.own.device)
            read = embedded.read(torch.where(gone, embedded.base, embedded.own))
            yield rows, read.transpose(0, 1).float().cpu().numpy()


def _tokens(layout: Attention, masked: Bool, numbers: NDArray[np.int64]) -> Bool:
    """Which tokens of a window are masked, given the words that are [N, T].

    Args:
        layout: of the window, with V words.
        masked: true for words of the target's window that are to be masked [N, W].
        numbers: which of these W words each of the V is, or is a piece of; -1 for none [V].
    """
    own = word_numbers(layout)  # [T]
    of_words = np.append(numbers, -1)[own]  # special tokens have the number -1, and so the last entry
    with_none = np.concatenate([masked, np.zeros((len(masked), 1), dtype=np.bool_)], axis=1)
    tokens: Bool = with_none[:, of_words]
    return tokens


def _numbers(layout: Attention, words: Sequence[Word], *, own: bool) -> NDArray[np.int64]:
    """Which of the W words of the target's window each word of a window is, -1 for none [V].

    A window may begin or end inside of a word: a word is known by any character that both have of it.

    Args:
        layout: of the window, with V words.
        words: of the target's window [W].
        own: whether it is that window.
    """
    if own:
        return np.arange(len(words))
    known = {
        (word.region == QUESTION, character): number
        for number, word in enumerate(words)
        for character in range(word.start, word.end)
    }
    shared = [
        [known.get((word.region == QUESTION, character), -1) for character in range(word.start, word.end)]
        for word in words_of_layout(layout)
    ]
    return np.array([max(numbers, default=-1) for numbers in shared], dtype=np.int64)


def _first(order: NDArray[np.int64], shares: Float) -> Bool:
    """Which words are first, at each share; one at least where it is not 0 [P, W]."""
    rank = np.argsort(order)
    counts = np.maximum(np.round(shares * len(order)), shares > 0)
    first: Bool = rank < counts[:, None]
    return first


def _order(name: str, scores: Float, count: int) -> NDArray[np.int64]:
    """Words by falling score, equal ones in the order of the text."""
    if scores.shape != (count,) or not np.isfinite(scores).all():
        raise UserError(
            f"rankings: {name!r} has shape {scores.shape}, but the window has {count} words; give one finite "
            "score for each"
        )
    return np.argsort(-scores, kind="stable")


def _checked(shares: Sequence[float], random: int) -> Float:
    points = np.array(shares, dtype=np.float64)
    if len(points) < 3 or points[0] != 0 or points[-1] != 1 or not (np.diff(points) > 0).all():
        raise UserError(f"shares: {list(shares)}; give ascending ones from 0 to 1, with some between them")
    if random < 1:
        raise UserError(f"random: {random}; at least one random ranking is needed to compare with")
    return points
