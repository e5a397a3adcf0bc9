"""The slices of heads, by another way of taking them: one head, one example and one token at a time."""

import numpy as np
import pytest
import torch

from probes.ablation import ablated, gone_heads, known_heads
from probes.encoders import describe

B, T, H, d = 3, 5, 4, 2


def looped(context, gone, how, real):
    expected = context.clone()
    for example in range(B):
        for head in range(H):
            if not gone[example % len(gone), head]:
                continue
            here = slice(head * d, (head + 1) * d)
            tokens = [context[example, token, here] for token in range(T) if real[example, token]]
            instead = sum(tokens, torch.zeros(d)) / max(len(tokens), 1)
            for token in range(T):
                expected[example, token, here] = instead if how == "mean" else 0
    return expected


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("examples", [1, B])
def test_slices(examples, how, masked):
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(B, T, H * d, generator=generator)
    gone = torch.rand(examples, H, generator=generator) < 0.5
    assert gone.any()
    assert not gone.all()
    real = torch.ones(B, T, dtype=torch.bool)
    if masked:
        real[0, 3:], real[1, 0], real[2] = False, False, False
    found = ablated(context, gone, how=how, mask=real.long() if masked else None)
    torch.testing.assert_close(found, looped(context, gone, how, real), rtol=0, atol=1e-6)


def test_a_mask_of_pairs_counts_what_any_query_sees():
    context, gone = torch.arange(8.0).view(1, 4, 2), torch.tensor([[True, False]])
    pairs = torch.tensor([[[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    expected = torch.tensor([[[2.0, 1], [2, 3], [2, 5], [2, 7]]])  # of 0, 2 and 4
    for mask in (pairs, pairs[:, None]):
        assert torch.equal(ablated(context, gone, how="mean", mask=mask), expected)


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_a_copy_for_each_set_of_heads(how):
    context = torch.randn(1, T, H * d, generator=torch.Generator().manual_seed(0))
    gone = torch.eye(H, dtype=torch.bool)
    found = ablated(context, gone, how=how)
    assert found.shape == (H, T, H * d)
    for head, one in enumerate(found):
        assert torch.equal(one, ablated(context, gone[[head]], how=how)[0])


def test_what_is_not_a_number_is_gone_too():
    context = torch.tensor([[[torch.nan, 1.0], [torch.inf, 2.0]]])
    found = ablated(context, torch.tensor([[True, False]]), how="zero")
    assert found.tolist() == [[[0, 1], [0, 2]]]


def test_without_a_head_it_is_the_same_tensor():
    context = torch.ones(1, T, H * d)
    assert ablated(context, torch.zeros(1, H, dtype=torch.bool), how="zero") is context


def test_numbers_of_numpy_count_once(encoder_of):
    parts = describe(encoder_of("bert").model)
    places = np.argwhere(np.eye(2))
    heads = known_heads([*map(tuple, places), (1, 1)], parts)
    assert heads == ((0, 0), (1, 1))
    assert all(type(number) is int for pair in heads for number in pair)
    assert gone_heads([heads, ()], parts).tolist() == [np.eye(2, dtype=bool).tolist(), [[False] * 2] * 2]
