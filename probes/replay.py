"""Run a model on one window once, then its upper layers again for many variants of the window at a time.

A variant leaves the run where something is changed in what enters a layer's output projection. Up to there
it is the run, and from there on a row of a batch. So a layer's attention is computed once for all variants
that leave the run in this layer, and the layers below are not computed again. The last layer is computed only
for the tokens whose scores are asked for. Blocks are called with the arguments that the model's own forward
gave them; nothing of a block is written again here.

The trap: a batch of variants has the masks and distances of one window, and relies on them being broadcast.
The plan of our fast attention cannot be, so it is made anew for each size of batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from probes.encoders import Parts, describe
from probes.hooks import Hook, register
from qa.attention_plan import plan_attention
from qa.disentangled import FastSelfAttention

# The number of a layer and the context vectors [B, T, H * d] before its output projection, B being 1 or the
# number of variants, give those of the variants; [1, T, H * d] if all are to have the same.
Change = Callable[[int, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Call:
    """What a module was called with."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Step:
    """The layer that is being computed for B variants.

    Attributes:
        number: of the layer.
        hidden: what its attention is given [B or 1, T, D].
        variants: B.
        tokens: positions for which to compute what comes after the attention; None: all.
        change: see `Change`.
    """

    number: int
    hidden: torch.Tensor
    variants: int
    tokens: torch.Tensor | None
    change: Change


class Replay:
    """A window that a model has read, to be read again in variants inside a `with` block.

    The model should be in evaluation mode, without gradients. When the block ends, however it ends, the model
    is as it was; other threads see nothing.

    Attributes:
        scores: start and end scores of the run itself [2, T].
    """

    def __init__(
        self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], *, tokens: torch.Tensor
    ) -> None:
        """Read the window.

        Args:
            model: with the head `qa_outputs`, as `qa.model.load_encoder` gives it.
            inputs: of the one window, without padding [1, T].
            tokens: the n positions whose scores are asked for.

        Raises:
            UserError: an architecture that is not in `probes.encoders.ARCHITECTURES`.
        """
        self._parts = describe(model)
        self._head = model.get_submodule("qa_outputs")
        self._tokens = tokens
        self._plans: dict[int, Any] = {}
        self._step: _Step | None = None
        self._remove: Callable[[], None] | None = None
        with _recorded(self._parts) as (self._calls, self._convolutions):
            output = model(**inputs)
        assert len(self._calls) == len(self._parts.layers)
        self.scores: torch.Tensor = torch.cat([output.start_logits, output.end_logits])

    def __enter__(self) -> Self:
        hooks = [(layer.attention, self._attend) for layer in self._parts.layers]
        hooks += [(layer.output, self._project) for layer in self._parts.layers]
        self._remove = register(dict.fromkeys(hooks))  # once for ALBERT's, which are many layers
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._remove is not None:
            self._remove()
        self._remove = None

    def read(self, first: int, variants: int, change: Change) -> torch.Tensor:
        """Start and end scores of B variants that leave the run in layer `first` [B, 2, n]."""
        last = len(self._parts.layers) - 1
        # A convolution looks at neighbours, and an attention that adds its input returns all it is given.
        narrow = not self._parts.architecture.adds_input and (last > 0 or self._parts.convolution is None)
        hidden = self._calls[first].arguments[0]
        for number in range(first, last + 1):
            tokens = self._tokens if narrow and number == last else None
            hidden = self._layer(_Step(number, hidden, variants, tokens, change))
        if not narrow:
            hidden = hidden[:, self._tokens]
        scores: torch.Tensor = self._head(hidden).transpose(1, 2)
        return scores

    def _layer(self, step: _Step) -> torch.Tensor:
        """Hidden states [B, T or n, D] that leave a layer."""
        call, given = self._calls[step.number], step.hidden.expand(step.variants, -1, -1)
        if self._parts.architecture.adds_input:
            step = replace(step, hidden=given)
        if step.tokens is not None:
            given = given[:, step.tokens]
        self._step = step
        try:
            result = self._parts.layers[step.number].block(given, *call.arguments[1:], **call.named)
        finally:
            self._step = None
        hidden: torch.Tensor = result if isinstance(result, torch.Tensor) else result[0]
        if step.number == 0 and self._parts.convolution is not None:
            entered, _, *more = self._convolutions[0].arguments
            hidden = self._parts.convolution(entered, hidden, *more)
        return hidden

    def _attend(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The block was given what is to be added to the attention; give the attention its own input."""
        if self._step is None:
            return None
        if isinstance(module, FastSelfAttention):
            shared = self._for_batch(named["relative_pos"], len(self._step.hidden), module)
            named = {**named, "relative_pos": shared}
        return (self._step.hidden, *arguments[1:]), named

    def _project(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        step = self._step
        if step is None:
            return None
        context = step.change(step.number, arguments[0]).expand(step.variants, -1, -1)
        if step.tokens is not None:
            context = context[:, step.tokens]
        return (context, *arguments[1:]), named

    def _for_batch(self, shared: Any, examples: int, attention: FastSelfAttention) -> Any:
        """What layers of the fast attention share, for so many examples; the library's is broadcast."""
        if isinstance(shared, torch.Tensor) or shared.plan is None:
            return shared
        if examples not in self._plans:
            mask = shared.mask.expand(examples, -1)
            alone_from = shared.plan.alone_from
            plan = plan_attention(mask, attention.num_attention_heads, alone_from=alone_from)
            self._plans[examples] = replace(shared, mask=mask, plan=plan)
        return self._plans[examples]


@contextmanager
def _recorded(parts: Parts) -> Iterator[tuple[list[_Call], list[_Call]]]:
    """What the blocks, and the convolution if there is one, are called with, in order."""
    blocks: list[_Call] = []
    convolutions: list[_Call] = []

    def keep_in(calls: list[_Call]) -> Hook:
        return lambda module, arguments, named: calls.append(_Call(arguments, named))

    hooks = {layer.block: keep_in(blocks) for layer in parts.layers}
    if parts.convolution is not None:
        hooks[parts.convolution] = keep_in(convolutions)
    remove = register(hooks.items())
    try:
        yield blocks, convolutions
    finally:
        remove()
