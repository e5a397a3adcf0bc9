"""Shares by distance: one model worked out on paper, and plain loops over the matrices of the others."""

import copy

import numpy as np
import pytest
import torch

import debertas
from probes.encoders import describe
from probes.term_shares import TermSharesProbe, read_term_shares
from probes.terms import TERMS, read_terms
from probing import CONTEXT, QUESTION
from qa.disentangled import install_fast_attention
from qa.errors import UserError

KINDS = [("deberta", "eager"), ("deberta-v2", "fast"), ("deberta-v3", "fast"), ("deberta-v3", "eager")]

every_deberta = pytest.mark.parametrize(("architecture", "attention"), KINDS)


@torch.inference_mode()
def shares_of(model, inputs, layers=None, heads=None):
    with TermSharesProbe(model, layers, heads=heads) as probe:
        for one in inputs:
            model(**one)
    return probe.shares()


def assert_same(found, expected):
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    for name in ("means", "sizes", "moved"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-5)


def model_on_paper():
    """One head whose c2c is the same for all, whose c2p is i - j, and whose p2c is 3 where i = j, else 0."""
    model = debertas.v2(
        hidden_size=2,
        num_attention_heads=1,
        position_buckets=-1,
        max_relative_positions=4,
        share_att_key=False,
        norm_rel_ebd="none",
    )
    attention = describe(model).layers[0].attention
    with torch.no_grad():
        for name, parameter in attention.named_parameters():
            parameter.copy_(torch.tensor([1.0, 0.0]) if name in ("query_proj.bias", "key_proj.bias") else 0)
        attention.pos_key_proj.weight[0, 0] = attention.pos_query_proj.weight[0, 1] = 6**0.5  # the scale
        for distance in range(-4, 4):
            row = model.base_model.encoder.rel_embeddings.weight[distance + 4]
            row.copy_(torch.tensor([distance, 3.0 if distance == 0 else 0.0]))
    return model


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "eager"])
def test_on_paper(fast):
    model = model_on_paper()
    if fast:
        install_fast_attention(model)
    found = shares_of(model, [{"input_ids": torch.tensor([[7, 8, 9]])}])
    assert found.distances.tolist() == [-2, -1, 0, 1, 2]
    assert found.pairs.tolist() == [1, 2, 3, 2, 1]
    # Less their means, the rows of c2p are (1, 0, -1), all three; in those of p2c one 2 stands among -1.
    close = {"rtol": 0, "atol": 1e-6}
    c2p, p2c = [-1, -1 / 2, 0, 1 / 2, 1], [-1, -1, 2, -1, -1]
    np.testing.assert_allclose(found.means[0, 0], [[0] * 5, c2p, p2c], **close)
    np.testing.assert_allclose(
        found.sizes[0, 0], [[0] * 5, [1, 1 / 2, 2 / 3, 1 / 2, 1], np.abs(p2c)], **close
    )
    shares = [[0] * 5, [1 / 2, 1 / 3, 1 / 4, 1 / 3, 1 / 2], [1 / 2, 2 / 3, 3 / 4, 2 / 3, 1 / 2]]
    np.testing.assert_allclose(found.by_distance()[0, 0], shares, **close)
    np.testing.assert_allclose(found.overall()[0, 0], [0, 6 / 18, 12 / 18], **close)

    def attention(c2p, p2c):
        weights = np.exp([[c2p * (i - j) + p2c * 3 * (i == j) for j in range(3)] for i in range(3)])
        return weights / weights.sum(1, keepdims=True)

    moved = [np.abs(attention(1, 1) - attention(*left)).sum() / 2 / 3 for left in ((1, 1), (0, 1), (1, 0))]
    np.testing.assert_allclose(found.moved[0, 0], moved, **close)


def by_hand(reader, windows, layers, heads):
    """Means and sizes at each distance, and how far the attention moves, from the matrices of all windows."""
    at, moves = {}, []
    for window in windows:
        terms = read_terms(reader, QUESTION, CONTEXT, window=window, layers=layers, heads=heads)
        matrices = np.stack([terms.centred(term) for term in TERMS], axis=2)  # [L, H, 3, n, n]
        for i, j in np.ndindex(matrices.shape[-2:]):
            at.setdefault(i - j, []).append(matrices[..., i, j])
        used = terms.attention.probabilities
        moves.append([np.abs(used - terms.without(term).probabilities).sum(-1) / 2 for term in TERMS])
    means, sizes = (
        np.stack([change(np.array(at[distance])).mean(0) for distance in sorted(at)], axis=-1)
        for change in (lambda values: values, np.abs)
    )
    moved = np.concatenate(moves, axis=-1).mean(-1).transpose(1, 2, 0)
    return sorted(at), [len(at[distance]) for distance in sorted(at)], means, sizes, moved


@every_deberta
@pytest.mark.parametrize(
    ("windows", "layers", "heads"), [(None, None, None), ([3, 0], [1], [1]), ([2], [1, 0], [1, 0])]
)
def test_against_a_loop_over_all_pairs(architecture, attention, windows, layers, heads, reader_of):
    reader, said = reader_of(architecture, attention), []
    count = len(reader.windows([(QUESTION, CONTEXT)]))
    found = read_term_shares(
        reader,
        QUESTION,
        CONTEXT,
        windows=windows,
        layers=layers,
        heads=heads,
        progress=lambda *at: said.append(at),
    )
    wanted = list(range(count)) if windows is None else windows
    assert said == [(done, len(wanted)) for done in range(1, len(wanted) + 1)]
    distances, pairs, means, sizes, moved = by_hand(reader, wanted, layers, heads)
    assert (found.distances.tolist(), found.pairs.tolist()) == (distances, pairs)
    assert (found.layers, found.heads) == (tuple(layers or (0, 1)), tuple(heads or (0, 1)))
    np.testing.assert_allclose(found.means, means, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sizes, sizes, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.moved, moved, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.by_distance().sum(2), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.overall().sum(2), 1, rtol=0, atol=1e-6)
    overall = (sizes * pairs).sum(-1) / (sizes * pairs).sum((2, 3))[..., None]
    np.testing.assert_allclose(found.overall(), overall, rtol=0, atol=1e-5)


@every_deberta
def test_padding_and_batches_change_nothing(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    lengths = inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 2
    alone = [
        {name: tensor[row : row + 1, :n] for name, tensor in inputs.items()} for row, n in enumerate(lengths)
    ]
    more = {name: torch.nn.functional.pad(tensor, (0, 7)) for name, tensor in inputs.items()}
    together = shares_of(model, [more])
    expected = shares_of(model, sorted(alone, key=lambda one: one["input_ids"].shape[1]))
    assert_same(together, expected)
    assert together.pairs[len(together.pairs) // 2] == sum(lengths)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "eager"])
def test_masked_tokens_neither_attend_nor_count(fast):
    """Without position terms, the masked scores of the library are all there is."""
    model = debertas.v2(pos_att_type=[])
    ids, mask = torch.arange(20).view(2, 10) + 5, torch.ones(2, 10, dtype=torch.long)
    mask[0, 1:4] = mask[0, 6] = mask[0, 8:] = 0
    mask[1] = 0
    scores = debertas.library_scores(model, input_ids=ids, attention_mask=mask)[0, 0].numpy()
    real = np.flatnonzero(mask[0])
    rows = scores[:, real[:, None], real]
    centred = rows - rows.mean(-1, keepdims=True)
    moved = torch.from_numpy(rows).softmax(-1) - 1 / len(real)
    if fast:
        install_fast_attention(model)
    found = shares_of(model, [{"input_ids": ids, "attention_mask": mask}])
    for distance, pairs, size in zip(found.distances, found.pairs, found.sizes[0, :, 0].T, strict=True):
        here = np.subtract.outer(real, real) == distance
        assert pairs == here.sum()
        expected = np.abs(centred[:, here]).mean(-1) if here.any() else np.full(debertas.H, np.nan)
        np.testing.assert_allclose(size, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.moved[0, :, 0], moved.abs().sum(-1).mean(-1) / 2, rtol=0, atol=1e-6)
    assert found.distances[-1] == 7
    np.testing.assert_array_equal(found.overall()[0], [[1, np.nan, np.nan]] * debertas.H)


@pytest.mark.parametrize("make", [debertas.v1, debertas.v2])
def test_a_term_that_is_missing_is_nan_and_one_that_is_zero_has_no_share(make):
    ids = {"input_ids": torch.arange(30)[None] + 5}
    found = shares_of(make(pos_att_type=["p2c"]), [ids])
    for values in (found.means, found.sizes, found.by_distance(), found.moved, found.overall()):
        assert np.isnan(values).any((0, 1)).reshape(3, -1).all(1).tolist() == [False, True, False]
        assert np.isfinite(values[:, :, [0, 2]]).all()
    np.testing.assert_allclose(np.nansum(found.overall(), 2), 1, rtol=0, atol=1e-6)

    model = make(share_att_key=False)
    attention = describe(model).layers[0].attention
    with torch.no_grad():
        for name, parameter in attention.named_parameters():
            if name.startswith("pos_"):
                parameter.zero_()
    found = shares_of(model, [ids])
    for values in (found.means, found.sizes, found.by_distance(), found.moved):
        assert (values[:, :, 1:] == 0).all()
    assert (found.overall() == [1, 0, 0]).all()


def test_fast_and_eager_give_the_same():
    eager = debertas.v2(num_hidden_layers=3, share_att_key=False)
    fast = copy.deepcopy(eager)
    install_fast_attention(fast)
    ids = [{"input_ids": torch.arange(T)[None] + 5} for T in (1, 12, 57, 3)]
    assert_same(shares_of(fast, ids), shares_of(eager, ids))


def test_only_forwards_that_end_well_count(encoder_of, inputs_of):
    model, inputs = encoder_of("deberta-v3", "fast").model, inputs_of("deberta-v3")

    def fail(*_):
        raise ZeroDivisionError

    with torch.inference_mode(), TermSharesProbe(model) as probe:
        assert np.isnan(probe.shares().overall()).all()
        handle = model.base_model.get_submodule("encoder.layer.1").register_forward_hook(fail)
        try:
            with pytest.raises(ZeroDivisionError):
                model(**inputs)
        finally:
            handle.remove()
        assert probe.shares().pairs.tolist() == []
        model(**inputs)
    assert_same(probe.shares(), shares_of(model, [inputs]))
    model(**inputs)
    assert_same(probe.shares(), shares_of(model, [inputs]))


def test_what_cannot_be_is_refused(reader_of):
    with pytest.raises(UserError, match=r"^model: BERT has no terms of content and position"):
        read_term_shares(reader_of("bert"), QUESTION, CONTEXT)
    reader = reader_of("deberta-v3", "fast")
    with pytest.raises(UserError, match=r"^heads: \[5\]; this model has 2"):
        read_term_shares(reader, QUESTION, CONTEXT, heads=[5])
    with pytest.raises(UserError, match=r"^windows: \[\]; this context has"):
        read_term_shares(reader, QUESTION, CONTEXT, windows=[])
