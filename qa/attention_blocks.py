"""Disentangled attention on a CPU, a block at a time, with its gradient.

A block's scores [h, G, n, n] (h heads of G examples cut to their longest, n tokens) stay in the processor's
caches from the first product to the last; over a whole batch, writing and reading them costs more than the
arithmetic. Position terms are products with tables whose row c holds one distance, so the scores of a tile of
R rows are a skewed view of a product with the n + R - 1 distances those rows have (`skewed`).

The trap: rows of padding. The library masks all their scores alike, which makes them average every value,
padding included; they reach the loss through the normalisation of the start and end scores. So they are
reproduced, not skipped.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from qa.attention_dropout import Dropout
from qa.attention_plan import Plan, Share, in_threads
from qa.attention_scratch import Scratch, skewed, wide_dtype
from qa.fast_linear import covers, product_with

# Rows of a tile: small tiles need fewer distances each, large ones fewer calls. A head alone is done by a
# quicker product, which makes the calls weigh more.
TILE, TILE_ALONE = 96, 192


class States(NamedTuple):
    """What attention is computed from; also its gradients.

    Attributes:
        query: [B, T, H * d], or by head [H, B, T, d].
        key: the same, already divided by the scale.
        value: the same.
        pos_key: table of c2p by falling distance, [2T - 1, H * d] or [H, 2T - 1, d], divided by the scale.
        pos_query: table of p2c by rising distance.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    pos_key: torch.Tensor | None
    pos_query: torch.Tensor | None

    def by_head(self, heads: int) -> States:
        """Views by head."""
        query, key, value = (by_head(x, heads) for x in self[:3])
        tables = (None if x is None else by_head(x, heads) for x in self[3:])
        return States(query, key, value, *tables)


def by_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """View [H, ..., T, d] of [..., T, H * d]."""
    heads_apart: torch.Tensor = x.unflatten(-1, (heads, -1))
    return heads_apart.movedim(-2, 0)


def attend_in_blocks(states: States, plan: Plan, probability: float) -> torch.Tensor:
    """Context [B, T, H * d]; differentiable once.

    Args:
        states: all of one dtype. Products are made in it, scores and probabilities in float32 at least.
        plan: of this batch.
        probability: of dropout of the attention probabilities.
    """
    dropout = Dropout(probability)
    with torch.autocast("cpu", enabled=False):
        if dropout.active:
            states = states._replace(value=states.value * dropout.scale)
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in states):
            context: torch.Tensor = _Attend.apply(*states, plan, dropout)  # type: ignore[no-untyped-call]
            return context
        return _forward(states, plan, dropout, save=False)[0]


class _Attend(torch.autograd.Function):
    """Of the T × T matrices only the probabilities are kept, with what was dropped in their sign."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
        *states, ctx.plan, ctx.dropout = arguments
        context, saved = _forward(States(*states), ctx.plan, ctx.dropout, save=True)
        ctx.save_for_backward(*states, context, *(x for share in saved for x in share))
        return context

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_context: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, pos_key, pos_query, context, *saved = ctx.saved_tensors  # once: checkpointing
        states = States(query, key, value, pos_key, pos_query)
        with torch.autocast("cpu", enabled=False):
            gradients = _backward(states, context, d_context, iter(saved), ctx.plan, ctx.dropout)
        return (*gradients, None, None)


def _forward(
    states: States, plan: Plan, dropout: Dropout, *, save: bool
) -> tuple[torch.Tensor, list[list[torch.Tensor]]]:
    """Context [B, T, H * d], and for each share the probabilities of its blocks, then of padded rows."""
    context = torch.empty_like(states.value)
    work = partial(
        _forward_share,
        _tables_together(states.by_head(plan.heads)),
        by_head(context, plan.heads),
        plan,
        dropout,
    )
    return context, in_threads(partial(work, save=save), plan.shares)


def _forward_share(
    states: States, out: torch.Tensor, plan: Plan, dropout: Dropout, share: Share, *, save: bool
) -> list[torch.Tensor]:
    saved, numbers, scratch = [], dropout.numbers(share.heads.start), Scratch()
    for block in share.blocks:
        at = (block.heads, block.examples, slice(block.tokens))
        mine = _of_block(states, at)
        scores = _scores(mine, scratch)
        if block.hidden is not None:
            scores.masked_fill_(block.hidden, torch.finfo(scores.dtype).min)
        fresh = save and scores.dtype == out.dtype
        probabilities = torch.softmax(scores, -1, out=torch.empty_like(scores) if fresh else scores)
        probabilities = dropout.sign(probabilities.to(out.dtype).flatten(0, 1), numbers)
        kept = dropout.kept(probabilities, scratch.like("kept", probabilities))
        _multiply_into(out[at], kept, mine.value, scratch)
        if save:
            saved.append(probabilities)
    value, T = states.value[share.heads], out.shape[2]
    for example, positions in plan.padded:
        rows = len(positions) if dropout.active else 1
        probabilities = dropout.sign(value.new_full((len(value), rows, T), 1 / T), numbers)
        kept = dropout.kept(probabilities, scratch.like("kept", probabilities))
        out[share.heads, example, positions] = torch.bmm(kept, value[:, example])
        if save:
            saved.append(probabilities)
    return saved


def _multiply_into(
    out: torch.Tensor, probabilities: torch.Tensor, value: torch.Tensor, scratch: Scratch
) -> None:
    """Context [h, G, n, d] of probabilities [h * G, n, n] and values [h, G, n, d]."""
    if _is_alone(value):
        out.copy_(product_with(probabilities[0], value[0, 0].t()))
    elif out.shape[1] == 1:
        torch.bmm(probabilities, value[:, 0], out=out[:, 0])
    else:
        product = scratch.product("context", probabilities, value.flatten(0, 1))
        out.copy_(product.unflatten(0, out.shape[:2]))


def _tables_together(states: States) -> States:
    tables = (None if x is None else x.contiguous() for x in states[3:])
    return States(*states[:3], *tables)


def _of_block(states: States, at: tuple[slice, slice, slice]) -> States:
    """Queries, keys and values [h, G, n, d] and tables [h, 2T - 1, d] of one block."""
    query, key, value = (x[at] for x in states[:3])
    # Products in bfloat16 would copy them every time, and oneDNN's take nothing else.
    if query.dtype != wide_dtype(query) or _is_alone(query):
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    return States(query, key, value, *(None if x is None else x[at[0]] for x in states[3:]))


def _is_alone(states: torch.Tensor) -> bool:
    """Whether these are of one head of one example, whose products oneDNN makes."""
    return states.shape[:2] == (1, 1) and covers(states)


def _tiles(rows: int, size: int = TILE) -> list[tuple[int, int]]:
    count = max(1, round(rows / size))
    return list(pairwise(rows * tile // count for tile in range(count + 1)))


def _window(table: torch.Tensor, n: int, first: int, last: int) -> torch.Tensor:
    """The distances [h, n + last - first - 1, d] that the rows `first` to `last` have to n columns."""
    T = (table.shape[1] + 1) // 2
    return table[:, T - last : T - first + n - 1]


def _scores(block: States, scratch: Scratch) -> torch.Tensor:
    """Scores [h, G, n, n]."""
    if _is_alone(block.query):
        return _scores_alone(block)[None, None]
    query, key, _, pos_key, pos_query = block
    n = query.shape[2]
    products = scratch.product_wide("scores", query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2))
    scores: torch.Tensor = products.unflatten(0, query.shape[:2])
    for first, last in _tiles(n):
        if pos_key is not None:
            window = _window(pos_key, n, first, last)
            scores[:, :, first:last] += _by_position(query[:, :, first:last], window, scratch)
        if pos_query is not None:
            window = _window(pos_query, n, first, last)
            by_key = _by_position(key[:, :, first:last], window, scratch)
            scores[:, :, :, first:last] += by_key.transpose(2, 3)
    return scores


def _scores_alone(block: States) -> torch.Tensor:
    """Scores [n, n] of a block of one head and one example."""
    query, key = block.query[0, 0], block.key[0, 0]
    n, scores = len(query), product_with(query, key)
    for first, last in _tiles(n, TILE_ALONE):
        rows = slice(first, last)
        if block.pos_key is not None:
            window = _window(block.pos_key, n, first, last)[0]
            scores[rows] += skewed(product_with(query[rows], window), n)
        if block.pos_query is not None:
            window = _window(block.pos_query, n, first, last)[0]
            scores[:, rows] += skewed(product_with(key[rows], window), n).t()
    return scores


def _by_position(rows: torch.Tensor, window: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """Scores [h, G, R, n] of rows [h, G, R, d] with a window [h, n + R - 1, d]."""
    h, examples, count, _ = rows.shape
    products, scores = scratch.take_skewed((h, examples, count, window.shape[1] - count + 1), rows.dtype)
    torch.bmm(rows.flatten(1, 2), window.transpose(1, 2), out=products)
    return scores


def _backward(
    states: States,
    context: torch.Tensor,
    d_context: torch.Tensor,
    saved: Any,
    plan: Plan,
    dropout: Dropout,
) -> list[torch.Tensor | None]:
    zeros: list[Any] = [None if x is None else torch.zeros_like(x, dtype=wide_dtype(x)) for x in states]
    gradients = States(*zeros)
    d_out = d_context.masked_fill(plan.padding, 0)
    mean = by_head(d_out.to(wide_dtype(d_out)) * context, plan.heads).sum(-1, keepdim=True)
    parts = [(share, [next(saved) for _ in (*share.blocks, *plan.padded)]) for share in plan.shares]
    work = partial(
        _backward_share,
        _tables_together(states.by_head(plan.heads)),
        gradients.by_head(plan.heads),
        (by_head(d_out, plan.heads), by_head(d_context, plan.heads), mean),
        plan,
        dropout,
    )
    in_threads(work, parts)
    return [None if x is None else x.to(d_context.dtype) for x in gradients]


def _backward_share(
    states: States,
    gradients: States,
    outer: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    plan: Plan,
    dropout: Dropout,
    part: tuple[Share, list[torch.Tensor]],
) -> None:
    (d_out, d_padded, mean), (share, saved), scratch = outer, part, Scratch()
    for block, probabilities in zip(share.blocks, saved, strict=False):
        at = (block.heads, block.examples, slice(block.tokens))
        mine, d_rows = _of_block(states, at), d_out[at].contiguous().flatten(0, 1)
        query, key, value = (x.flatten(0, 1) for x in mine[:3])
        kept = dropout.kept(probabilities, scratch.like("kept", probabilities))
        d_value = scratch.product("d_state", kept.transpose(1, 2), d_rows)
        gradients.value[at] = d_value.view_as(mine.value)
        # Of a softmax with dropout: kept * d_kept - P * sum(kept * d_kept), and the sum is d_out · out.
        d_scores = scratch.product_wide("scores", d_rows, value.transpose(1, 2)).mul_(kept)
        absolute = torch.abs(probabilities, out=scratch.like("kept", probabilities))
        d_scores.addcmul_(absolute, mean[at].flatten(0, 1), value=-1)
        if d_scores.dtype != kept.dtype:
            d_scores = scratch.like("kept", probabilities).copy_(d_scores)
        gradients.query[at] = scratch.product("d_state", d_scores, key).view_as(mine.key)
        gradients.key[at] = scratch.product("d_state", d_scores.transpose(1, 2), query).view_as(mine.key)
        d_scores = d_scores.unflatten(0, mine.query.shape[:2])
        _add_position_gradients(d_scores, mine, _of_gradients(gradients, at), scratch)
    heads = share.heads
    for (example, positions), probabilities in zip(plan.padded, saved[len(share.blocks) :], strict=True):
        rows = d_padded[heads, example, positions]
        rows = rows if dropout.active else rows.sum(1, keepdim=True)
        kept = dropout.kept(probabilities, scratch.like("kept", probabilities))
        gradients.value[heads, example] += torch.bmm(kept.transpose(1, 2), rows)


def _of_gradients(gradients: States, at: tuple[slice, slice, slice]) -> States:
    return States(*(x[at] for x in gradients[:3]), *(None if x is None else x[at[0]] for x in gradients[3:]))


def _add_position_gradients(
    d_scores: torch.Tensor, block: States, gradients: States, scratch: Scratch
) -> None:
    """From the gradient [h, G, n, n] of scores to those of queries, keys and tables."""
    n = d_scores.shape[2]
    for first, last in _tiles(n):
        rows = (slice(None), slice(None), slice(first, last))
        for d_rows, state, d_state, table, d_table in (
            (d_scores[rows], block.query, gradients.query, block.pos_key, gradients.pos_key),
            (d_scores.transpose(2, 3)[rows], block.key, gradients.key, block.pos_query, gradients.pos_query),
        ):
            if table is None or d_table is None:
                continue
            spread = _spread(d_rows, scratch)
            from_table = scratch.product("d_rows", spread, _window(table, n, first, last))
            d_state[rows] += from_table.unflatten(1, (-1, last - first))
            from_state = scratch.product("d_window", spread.transpose(1, 2), state[rows].flatten(1, 2))
            _window(d_table, n, first, last).add_(from_state)


def _spread(d_scores: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """The gradient [h, G * R, n + R - 1] of the products whose skewed view had the gradient [h, G, R, n]."""
    h, examples, rows, n = d_scores.shape
    spread, view = scratch.take_skewed((h, examples, rows, n), d_scores.dtype)
    spread.zero_()
    view.copy_(d_scores)
    return spread
