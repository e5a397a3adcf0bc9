"""Attention in blocks by itself: views of products, dropout and its gradient."""

import math
import os

import numpy as np
import pytest
import torch

from qa import attention_plan
from qa.attention_blocks import States, attend_in_blocks
from qa.attention_dropout import Dropout
from qa.attention_plan import in_threads, plan_attention
from qa.attention_scratch import skewed


def states(B, T, heads=2, d=3, *, dtype=torch.float64):
    """Random ones that want a gradient."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(B, T, heads * d)] * 3 + [(2 * T - 1, heads * d)] * 2
    return States(
        *(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)
    )


@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 5), (2, 1), (4, 4), (3, 7)])
def test_skewed_is_a_view_of_diagonals(rows, keys):
    products = torch.randn(2, rows, keys + rows - 1)
    view = skewed(products, keys)
    assert view.shape == (2, rows, keys)
    for row, key in np.ndindex(rows, keys):
        assert torch.equal(view[:, row, key], products[:, row, rows - 1 - row + key])
    view.fill_(7)
    assert products.eq(7).sum() == 2 * rows * keys, "a copy, not a view"


@pytest.mark.parametrize("probability", [0.0, 0.4])
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_against_finite_differences(probability, padded):
    mask = torch.ones(2, 5, dtype=torch.bool)
    if padded:
        mask[1, 3:] = False
    plan = plan_attention(mask, 2)

    def attend(*parts):
        torch.manual_seed(4)  # the same are dropped every time
        return attend_in_blocks(States(*parts), plan, probability)

    assert torch.autograd.gradcheck(attend, tuple(states(2, 5)))


def test_dropout_has_the_mean_and_the_variance_of_torch():
    T, d, copies, p = 6, 4, 4000, 0.3
    one = States(*(x.detach() for x in states(1, T, 1, d)))
    many = States(*(x.expand(copies, -1, -1).contiguous() for x in one[:3]), *one[3:])
    plan = plan_attention(torch.ones(copies, T, dtype=torch.bool), 1)
    torch.manual_seed(0)
    ours = attend_in_blocks(many, plan, p)
    exact = attend_in_blocks(one, plan_attention(torch.ones(1, T, dtype=torch.bool), 1), 0.0)
    # What the library does: torch's dropout of the probabilities, here found by attending to unit values.
    units = one._replace(value=torch.eye(T, dtype=torch.float64)[None])
    plain = attend_in_blocks(
        units._replace(
            query=torch.nn.functional.pad(units.query, (0, T - d)),
            key=torch.nn.functional.pad(units.key, (0, T - d)),
            pos_key=torch.nn.functional.pad(units.pos_key, (0, T - d)),
            pos_query=torch.nn.functional.pad(units.pos_query, (0, T - d)),
        ),
        plan_attention(torch.ones(1, T, dtype=torch.bool), 1),
        0.0,
    )
    theirs = torch.nn.functional.dropout(plain.expand(copies, -1, -1), p) @ one.value
    variance = (plain.square() * p / (1 - p)) @ one.value.square()
    error = 5 * (variance / copies).sqrt()
    assert ((ours.mean(0) - exact).abs() < error).all()
    assert ((theirs.mean(0) - exact).abs() < error).all()
    assert ((ours.var(0) / variance - 1).abs() < 0.2).all()
    assert ((theirs.var(0) / variance - 1).abs() < 0.2).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_share_dropped(dtype, probability):
    dropout = Dropout(probability)
    probabilities = torch.full((100, 1001), 0.25, dtype=dtype)
    signed = dropout.sign(probabilities.clone(), dropout.numbers(0))
    assert torch.equal(signed.abs(), probabilities)
    share = (signed < 0).double().mean()
    assert abs(share - probability) < 5 * math.sqrt(probability * (1 - probability) / signed.numel()) + 2**-15
    assert dropout.scale == pytest.approx(1 / (1 - probability) if probability < 1 else 65536, rel=2e-4)
    kept = dropout.kept(signed, torch.empty_like(signed))
    assert torch.equal(kept, torch.where(signed < 0, 0, probabilities).to(dtype))


def test_streams_and_seeds_drop_different_ones():
    torch.manual_seed(0)
    first, second = Dropout(0.5), Dropout(0.5)
    ones = torch.ones(64, 64)
    draws = [
        layer.sign(ones.clone(), layer.numbers(stream)) for layer in (first, second) for stream in (0, 1)
    ]
    for index, draw in enumerate(draws):
        assert all(not torch.equal(draw, other) for other in draws[:index])
    assert torch.equal(draws[0], first.sign(ones.clone(), first.numbers(0)))


def test_plan_covers_every_real_score_once():
    mask = torch.ones(5, 40, dtype=torch.bool)
    mask[1, 30:] = mask[2, 5:] = mask[3, ::3] = False
    mask[4] = False
    plan = plan_attention(mask, 6)
    seen = torch.zeros(6, 5, 40)
    for share in plan.shares:
        for block in share.blocks:
            seen[block.heads, block.examples, : block.tokens] += 1
    assert seen.max() == 1
    assert (seen[:, mask] == 1).all()
    assert [example for example, _ in plan.padded] == [1, 2, 3, 4]


def test_a_failing_part_is_heard_and_harms_nobody():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda part: 1 // part, [1, 0])
    assert in_threads(lambda part: 2 * part, [1, 2]) == [2, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_starts_its_own_threads():
    assert in_threads(lambda part: part, [1, 2]) == [1, 2]
    assert attention_plan._workers.cache_info().currsize
    child = os.fork()
    if child == 0:
        right = attention_plan._workers.cache_info().currsize == 0
        right = right and in_threads(lambda part: part + 1, [1, 2]) == [2, 3]
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
