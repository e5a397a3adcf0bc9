"""One window of a model as a function of its hidden states: the embedding output, or what enters a layer.

Explanations change hidden states and see what becomes of the scores. Everything else the model reads stays
the tokenizer's own: ids, token types, positions and mask. A *baseline* is the window with every word taken
out in place: the word vector of each token of the text is that of [MASK] or of padding, or its whole
embedding is 0; special tokens stay. The trap: RoBERTa and MPNet count positions by the ids, so padding
written into the ids would move every position; here only the vector is exchanged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from probes.ablation import bytes_of_layer
from probes.encoders import Parts, describe
from probes.hooks import Hook, register
from probes.labels import attention_of
from probes.maps import CLS, SEP, Attention
from probes.targets import Asked
from qa.batches import pad_windows
from qa.errors import UserError
from qa.evaluation import full_precision

BASELINES = {"mask": "every word as [MASK]", "pad": "every word as padding", "zero": "every word as zeros"}
# What the activations of one batch may take, in bytes.
BATCH_BYTES = 512 << 20


class Embedded:
    """The function, inside a `with` block; other threads see nothing, and afterwards the model is as it was.

    Attributes:
        layout: tokens, words and regions of the window; it has no maps.
        window: its ordinal.
        layer: the layer whose input is the variable; None: the embedding output.
        own: hidden states of the window itself [1, T, D].
        base: those of the baseline [1, T, D].
        scores: start and end scores of window and baseline [2, 2, T].
    """

    def __init__(
        self, asked: Asked, window: int, *, baseline: str = "mask", layer: int | None = None
    ) -> None:
        """Read the window and its baseline.

        Args:
            asked: the question.
            window: ordinal of the window.
            baseline: one of BASELINES.
            layer: number of a layer; None: the embedding output.

        Raises:
            UserError: another baseline, a layer that is not there, or an architecture that is not covered.
        """
        self.layout, self.window, self.layer = layout_of(asked, window), window, layer
        encoder = asked.reader.encoder
        self._model: PreTrainedModel = encoder.model
        self._parts = describe(self._model)
        self._site = _site(self._parts, layer)
        self._given: torch.Tensor | None = None
        self._seen: torch.Tensor | None = None
        self._calls = 0
        self._remove: Callable[[], None] | None = None
        inputs = pad_windows(asked.windows, [window], encoder.tokenizer)
        self._inputs = {name: tensor.to(encoder.device) for name, tensor in inputs.items()}
        content = ~np.isin(self.layout.regions, (CLS, SEP))
        self._content = torch.from_numpy(content).to(encoder.device)
        vector = _vector(baseline, self._model, encoder.tokenizer)
        with full_precision(self._model), torch.inference_mode(mode=False), torch.no_grad(), self:
            self.own, scores = self._look()
            self.base, base_scores = self._look_without(vector)
        self.scores = torch.stack([scores, base_scores])

    @property
    def content(self) -> torch.Tensor:
        """Which tokens are of the text, and so change in the baseline [T]."""
        return self._content

    def __enter__(self) -> Self:
        # Not on the module of the layer before: what enters a layer may have gone through a convolution.
        before: list[tuple[nn.Module, Hook]] = [(self._parts.base, self._begin)]
        after: list[tuple[nn.Module, Hook]] = []
        if self.layer is None:
            after.append((self._site, self._after))
        else:
            before.append((self._site, self._before))
        self._remove = register(before, after)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._remove is not None:
            self._remove()
        self._remove = None

    def read(self, hidden: torch.Tensor) -> torch.Tensor:
        """Start and end scores [B, 2, T] of hidden states [B, T, D] in the place of the window's own."""
        self._given = hidden
        try:
            return self._forward(len(hidden))
        finally:
            self._given = None

    def batch(self, batch_bytes: int, *, gradients: bool) -> int:
        """How many variants of the window to read at a time, at least one."""
        layers = len(self._parts.layers) if gradients else 1
        return max(1, batch_bytes // (layers * bytes_of_layer(self._parts, len(self.layout.tokens))))

    def _forward(self, count: int) -> torch.Tensor:
        output = self._model(**{name: tensor.expand(count, -1) for name, tensor in self._inputs.items()})
        return torch.stack([output.start_logits, output.end_logits], dim=1)

    def _look(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [1, T, D] and scores [2, T] of a forward in which nothing is put in their place."""
        (scores,) = self._forward(1)
        assert self._seen is not None
        seen, self._seen = self._seen, None
        return seen, scores

    def _look_without(self, vector: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of the baseline; None stands for zeros as the whole embedding."""
        content = self._content[:, None]
        embeddings = self._model.get_input_embeddings() if vector is not None else _embeddings(self._parts)

        def exchange(_module: nn.Module, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
            return torch.where(content, 0 if vector is None else vector, output)

        # Hooks run in the order of registration, so the one that looks must come after the one that changes.
        self.__exit__(None, None, None)
        remove = register([], [(embeddings, exchange)])
        try:
            with self:
                return self._look()
        finally:
            remove()

    def _begin(self, *_: Any) -> None:
        self._calls = 0

    def _after(self, _module: nn.Module, _arguments: Any, output: torch.Tensor) -> torch.Tensor | None:
        if self._given is None:
            self._seen = output
        return self._given

    def _before(
        self, _module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        assert self.layer is not None
        call, self._calls = self._calls, self._calls + 1
        if call != self._parts.layers[self.layer].call:  # ALBERT calls one block as every layer
            return None
        if self._given is None:
            self._seen = arguments[0]
            return None
        return (self._given, *arguments[1:]), named


def layout_of(asked: Asked, window: int) -> Attention:
    """Tokens, words and regions of a window, without any map."""
    T = int(asked.windows.lengths[window])
    return attention_of(
        torch.empty(0, 0, T, T),
        asked.windows[window],
        tokenizer=asked.reader.encoder.tokenizer,
        texts=(asked.question, asked.context),
        answer=asked.answer,
        layers=(),
        heads=(),
    )


def _site(parts: Parts, layer: int | None) -> nn.Module:
    if layer is None:
        return _embeddings(parts)
    if not 0 <= layer < len(parts.layers):
        raise UserError(f"layer: {layer}; this model has layers 0 to {len(parts.layers) - 1}")
    return parts.layers[layer].block


def _embeddings(parts: Parts) -> nn.Module:
    return parts.base.get_submodule("embeddings")


def _vector(baseline: str, model: PreTrainedModel, tokenizer: Any) -> torch.Tensor | None:
    """The word vector of the token that stands in for every word; None for zeros."""
    if baseline not in BASELINES:
        raise UserError(f"baseline: {baseline!r}; choose {', '.join(BASELINES)}")
    if baseline == "zero":
        return None
    token = tokenizer.mask_token_id if baseline == "mask" else tokenizer.pad_token_id
    if token is None:
        raise UserError(f"baseline: {baseline!r}, but this tokenizer has no such token; use zero")
    embeddings: Any = model.get_input_embeddings()
    vector: torch.Tensor = embeddings.weight.detach()[token]
    return vector


_COUNTING = threading.Lock()
_FROZEN: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Parameter]]] = WeakKeyDictionary()


@contextmanager
def differentiable(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model in evaluation mode, with gradients of hidden states but none of weights.

    Weights are frozen for as long as any thread is inside, and then as they were.
    """
    with full_precision(model), torch.inference_mode(mode=False), torch.enable_grad():
        _freeze(model)
        try:
            yield model
        finally:
            _thaw(model)


def _freeze(model: PreTrainedModel) -> None:
    with _COUNTING:
        count, frozen = _FROZEN.get(model, (0, []))
        if not count:
            frozen = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in frozen:
            weight.requires_grad_(False)
        _FROZEN[model] = (count + 1, frozen)


def _thaw(model: PreTrainedModel) -> None:
    with _COUNTING:
        count, frozen = _FROZEN.pop(model)
        if count > 1:
            _FROZEN[model] = (count - 1, frozen)
            return
        for weight in frozen:
            weight.requires_grad_(True)
