"""Attention weighted with the length of what is attended to (Kobayashi et al. 2020).

A head adds alpha * f(x) for each token it attends to, where f is the value through the head's part of the
output projection; many a token gets much attention because its f is next to nothing, [SEP] above all. As no
alpha is negative, ||alpha f|| = alpha ||f||: one length for each head and token is all there is to capture,
and the vectors, [L, H, T, T, D] of them, never exist. https://arxiv.org/abs/2004.10102

The trap: the bias of the value belongs to f, and that of the output projection does not; it is added once,
whatever the heads attend to.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from probes.encoders import Layer
from probes.maps import Attention, check_bytes, row_shares
from qa.errors import UserError


def value_norms(layer: Layer, value: torch.Tensor) -> torch.Tensor:
    """||f|| of each token as attended to by each head, float32 [B, H, T].

    Args:
        layer: with H heads of size d, at width D.
        value: what the module `layer.value` gave [B, T, H * d], or with DeBERTa v1 [B, T, 3 * H * d].
    """
    weight = layer.output.weight.detach().cpu().float()  # [D, H * d]; not every device can do what follows
    by_head = weight.unflatten(1, (layer.heads, layer.head_size)).transpose(0, 1)  # [H, D, d]
    # W = QR and ||QRv|| = ||Rv||, which takes d numbers a token in place of D. The product of W with itself
    # would do as well, were it not that squares lose the digits of a short f.
    factors = torch.linalg.qr(by_head, mode="r").R.to(value.device)  # [H, d, d]
    lengths: torch.Tensor = torch.linalg.vector_norm(
        layer.values(value.detach()).float() @ factors.mT, dim=-1
    )
    return lengths


def norm_weighted(attention: Attention, *, normalised: bool = False) -> Attention:
    """Attention of one window with every probability alpha multiplied by ||f|| of what is attended to.

    Several windows are weighted first and joined then: `attended.each(norm_weighted).joined()`.

    Args:
        attention: with norms, as `probes.attend.attend` gives it.
        normalised: whether to divide each row by its sum, for shares. Without it the weights are in the units
            of the hidden states, and heads and layers can be compared.

    Returns:
        The same in float32, without norms.

    Raises:
        UserError: no norms were captured or the windows are joined; or more than a few gigabytes.
    """
    if attention.norms is None:
        raise UserError(
            "attention: the lengths of its values are not known; capture it with `attend`, and weight the "
            "windows before they are joined"
        )
    check_bytes(attention.probabilities.size * 4, f"{len(attention.layers)} layers weighted")
    weights = np.empty(attention.probabilities.shape, dtype=np.float32)
    for layer, (maps, norms) in enumerate(zip(attention.probabilities, attention.norms, strict=True)):
        weighted = maps.astype(np.float32) * norms[:, None]  # [H, T, T]
        weights[layer] = row_shares(weighted) if normalised else weighted
    return replace(attention, probabilities=weights, norms=None)
