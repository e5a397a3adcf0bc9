"""Attention × gradient of every head: what each probability does to a target's score, to first order.

A head adds its probabilities times its values to the context vector, so the gradient of the score with
respect to the probability of query i and key j is the product of the context vector's gradient at i with the
value at j. Both are there whatever implementation of attention runs, also where it keeps no probabilities.
The trap: probabilities of a row sum to 1, so a gradient says what more of one does, not what is less then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from probes.attend import attend
from probes.embedded import Embedded, differentiable
from probes.encoders import Layer, Parts, describe
from probes.hooks import register
from probes.maps import Attention
from probes.targets import Asked, Fixed, Target


def attention_gradients(
    asked: Asked, target: Target | Fixed, *, attention: Attention | None = None
) -> Attention:
    """Attention × gradient in the target's window, in logits of the target, signed; rows sum to anything.

    Chefer et al. 2021 (https://arxiv.org/abs/2103.15679) take the positive part of this and average heads.

    Args:
        asked: the question.
        target: what to explain.
        attention: of the target's window, all layers and heads, where it has been captured; None: it is.

    Returns:
        float32 [L, H, T, T], of all layers and heads.

    Raises:
        UserError: a target that cannot be fixed, or an architecture that is not covered.
    """
    fixed = target if isinstance(target, Fixed) else asked.fix(target)
    attention = captured(asked, fixed.window) if attention is None else attention
    parts = describe(asked.reader.encoder.model)
    embedded = Embedded(asked, fixed.window)
    contexts, values = _States(), _States()
    before: list[tuple[nn.Module, Any]] = [(module, contexts.given) for module in _once(parts, "output")]
    after: list[tuple[nn.Module, Any]] = [(module, values.gave) for module in _once(parts, "value")]
    with differentiable(asked.reader.encoder.model), embedded:
        remove = register(before, after)
        try:
            scores = embedded.read(embedded.own.detach().clone().requires_grad_())[0]
        finally:
            remove()
        weights = torch.from_numpy(fixed.weights).to(scores)
        gradients = torch.autograd.grad((scores * weights).sum(), contexts.seen)
    maps = np.empty(attention.probabilities.shape, dtype=np.float32)
    for number, layer in enumerate(parts.layers):
        gradient = _by_probability(layer, gradients[number], values.seen[number])
        maps[number] = attention.probabilities[number].astype(np.float32) * gradient.cpu().numpy()
    return replace(attention, probabilities=maps, norms=None)


def captured(asked: Asked, window: int) -> Attention:
    """The attention of one window in float32, with norms, all layers and heads."""
    found = attend(
        asked.reader,
        asked.question,
        asked.context,
        windows=[window],
        dtype=torch.float32,
        answer=asked.answer,
    )
    return found.windows[0]


class _States:
    """What modules were given or gave, in the order of the calls."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def given(self, _module: nn.Module, arguments: tuple[Any, ...], _named: dict[str, Any]) -> None:
        self.seen.append(arguments[0])

    def gave(self, _module: nn.Module, _arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        self.seen.append(output)


def _once(parts: Parts, name: str) -> list[nn.Module]:
    """The modules of that name of all layers, each once: ALBERT's are many layers."""
    return list(dict.fromkeys(getattr(layer, name) for layer in parts.layers))


def _by_probability(layer: Layer, gradient: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Gradient with respect to the probabilities [H, T, T] of one window.

    Args:
        layer: with H heads of size d.
        gradient: with respect to its context vectors [1, T, H * d].
        value: what the module `layer.value` gave, see `Layer.values`.
    """
    found: torch.Tensor = layer.by_head(gradient)[0] @ layer.values(value.detach()).detach()[0].mT
    return found
