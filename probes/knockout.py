"""Switch attention heads off, and measure what that does to an answer.

The effect is on a span fixed beforehand, the best one of the unchanged model, with its probability among all
spans of all windows; every window is read with the heads off. The trap: heads stand in for each other (Michel
et al. 2019, https://arxiv.org/abs/1905.10650), so effects of single heads do not add up to that of a set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from probes.ablation import Bool, Head, Variants, ablated, check_how, gone_heads, known_heads
from probes.encoders import describe
from probes.hooks import register
from probes.span_target import SpanTarget
from qa.errors import UserError
from qa.evaluation import Logits
from qa.reader import Reader
from qa.spans import Answer, Float, decode
from qa.windows import Progress, WindowSet

# What the activations of one batch of variants may take, in bytes.
BATCH_BYTES = 256 << 20


class Knockout:
    """Heads are off in every forward inside a `with` block.

    Only in forwards of the thread that entered the block. Blocks may be nested, and several threads may each
    have one on the same model. When the block ends, however it ends, the model is as it was. A layer that is
    called alone has its heads off as well.
    """

    def __init__(self, model: nn.Module, heads: Iterable[Head], *, how: str = "zero") -> None:
        """Choose what to switch off.

        Args:
            model: a model of one of `probes.encoders.ARCHITECTURES`, with any head.
            heads: pairs (layer, head), both counted from 0; none at all leaves the model to the bit.
            how: "zero" or "mean"; the mean is over the tokens of an example that are not masked.

        Raises:
            UserError: an architecture that is not covered, a head that is not there, or another `how`.
        """
        check_how(how)
        self._how = how
        self._parts = describe(model)
        self._gone = torch.from_numpy(gone_heads([known_heads(heads, self._parts)], self._parts))  # [1, L, H]
        self._mask: torch.Tensor | None = None
        self._counts: dict[nn.Module, int] | None = None  # calls in this forward; None between forwards

    def __enter__(self) -> Self:
        outputs = {layer.output: self._project for layer in self._parts.layers}
        base = self._parts.base
        self._remove = register([(base, self._begin), *outputs.items()], [(base, self._end)])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        self._end()

    def _begin(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._counts = {}
        self._mask = named.get("attention_mask", arguments[1] if len(arguments) > 1 else None)

    def _end(self, *_: Any) -> None:
        self._counts = self._mask = None

    def _project(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        gone = self._gone[:, self._number(module)]
        return (ablated(arguments[0], gone, how=self._how, mask=self._mask), *arguments[1:]), named

    def _number(self, output: nn.Module) -> int:
        """The layer whose output projection is being called."""
        numbers = [number for number, layer in enumerate(self._parts.layers) if layer.output is output]
        if len(numbers) == 1:
            return numbers[0]
        if self._counts is None:
            raise UserError(
                f"heads: a module that is the layers {numbers} was called outside of a forward of the model, "
                "so there is no telling which of them it is; knock out sets of heads in one call instead"
            )
        count = self._counts.get(output, 0)
        self._counts[output] = count + 1
        return numbers[count]


@dataclass(frozen=True, slots=True)
class Effects:
    """What knocking heads out does to one answer; a change is the value after less the value before.

    Arrays are [L, H] for single heads, [N] for sets of heads.

    Attributes:
        answer: before, as the reader gives it.
        span: the best span before, be it refused or not; what is followed.
        how: "zero" or "mean".
        heads: what was knocked out, each a tuple of pairs (layer, head).
        start: change of the span's start score, in logits, in the window that gave the span.
        end: likewise of its end score.
        probability: change of the span's probability, among all spans of all windows and "no answer".
        no_answer_probability: change of the probability of "no answer".
        answers: the `Answer` after, refused where the reader refuses; its `n_best` is the best span alone.
        changed: whether that has another text.
    """

    answer: Answer
    span: SpanTarget
    how: str
    heads: NDArray[np.object_]
    start: Float
    end: Float
    probability: Float
    no_answer_probability: Float
    answers: NDArray[np.object_]
    changed: Bool


def knock_out_each(
    reader: Reader,
    question: str,
    context: str,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    how: str = "zero",
    batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> Effects:
    """The effect of each head alone [L, H]; arguments and errors as those of `knock_out`.

    Args:
        reader: the model.
        question: any text that is not blank.
        context: likewise, of any length.
        layers: numbers of layers, counted from 0; None: all.
        heads: numbers of heads, counted from 0; None: all.
        how: "zero" or "mean".
        batch_bytes: see `knock_out`.
        progress: likewise.
    """
    parts = describe(reader.encoder.model)
    rows = range(len(parts.layers)) if layers is None else layers
    columns = range(parts.heads) if heads is None else heads
    singles = [[(layer, head)] for layer in rows for head in columns]
    effects = knock_out(
        reader, question, context, sets=singles, how=how, batch_bytes=batch_bytes, progress=progress
    )
    shape = (len(rows), len(columns))
    values: dict[str, Any] = {field.name: getattr(effects, field.name) for field in fields(effects)}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            values[name] = value.reshape(shape)
    return Effects(**values)


def knock_out(
    reader: Reader,
    question: str,
    context: str,
    *,
    sets: Sequence[Iterable[Head]],
    how: str = "zero",
    batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> Effects:
    """The effect of each of N sets of heads [N].

    Every window of the context is read once unchanged, and from the lowest layer of a set on once for each
    set, in batches (see `probes.replay`).

    Args:
        reader: the model.
        question: any text that is not blank.
        context: likewise, of any length.
        sets: sets of pairs (layer, head), both counted from 0; one without a head changes nothing.
        how: "zero" or "mean"; the mean is over the tokens of the window.
        batch_bytes: what the activations of one batch may take, about; a batch has one set at least.
        progress: called with (sets done, sets in all), over all windows.

    Raises:
        UserError: blank text, a context without a token that could be an answer, an architecture that is not
            covered, a head that is not there, or another `how`.
    """
    check_how(how)
    parts = describe(reader.encoder.model)
    chosen = [known_heads(heads, parts) for heads in sets]
    windows = reader.windows([(question, context)])
    variants = Variants(parts, gone_heads(chosen, parts), how, batch_bytes)
    start, end = variants.scores(reader, windows, progress)
    return _effects(reader, windows, (start, end), chosen, how)


def _effects(
    reader: Reader,
    windows: WindowSet,
    scores: tuple[Logits, Logits],
    chosen: Sequence[tuple[Head, ...]],
    how: str,
) -> Effects:
    """Of start and end scores [1 + N, S], the unchanged ones first."""
    (start, end), length = scores, reader.reading.max_answer_length
    (before,) = decode(windows, start[0], end[0], max_answer_length=length, n_best=reader.reading.n_best)
    if not before.n_best:
        raise UserError("context: it has no token that could be an answer; give a text with words in it")
    copies = copies_of(windows, len(start))
    answers = decode(copies, start.ravel(), end.ravel(), max_answer_length=length, n_best=1)
    span = SpanTarget.of(windows, before.n_best[0])
    before, *after = (answer.with_threshold(reader.threshold) for answer in [before, *answers[1:]])
    span_start, span_end = span.scores(start, end)
    return Effects(
        answer=before,
        span=span,
        how=how,
        heads=_objects(chosen),
        start=_changes(span_start),
        end=_changes(span_end),
        probability=_changes(span.probability(start, end, answers)),
        no_answer_probability=_changes(np.array([answer.no_answer_probability for answer in answers])),
        answers=_objects(after),
        changed=np.array([answer.text != before.text for answer in after], dtype=np.bool_),
    )


def _changes(values: Float) -> Float:
    changes: Float = values[1:] - values[0]
    return changes


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    """An array of the values themselves, even if they are sequences."""
    array = np.empty(len(values), dtype=np.object_)
    for place, value in enumerate(values):
        array[place] = value
    return array


def copies_of(windows: WindowSet, count: int) -> WindowSet:
    """The windows of one question as those of so many questions."""
    steps = np.arange(count)[:, None]
    splits = windows.splits[:-1] + steps * len(windows.ids)
    return WindowSet(
        splits=np.append(splits, count * len(windows.ids)),
        ids=np.tile(windows.ids, count),
        types=np.tile(windows.types, count),
        chars=np.tile(windows.chars, (count, 1)),
        question=(windows.question + steps).astype(np.int32).ravel(),
        ordinal=np.tile(windows.ordinal, count),
        context_start=np.tile(windows.context_start, count),
        context_end=np.tile(windows.context_end, count),
        first_context_token=np.tile(windows.first_context_token, count),
        cls=np.tile(windows.cls, count),
        contexts=windows.contexts * count,
        shortened=(),
    )
