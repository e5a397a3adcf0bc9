"""Scores computed from queries, keys and distances, against plain loops over the published formula."""

import math

import pytest
import torch

import debertas
from debertas import D_HEAD, H
from probes.calls import Watch
from probes.encoders import describe
from probes.scores import Scorer
from qa.disentangled import install_fast_attention

T = 23


def bucket(distance, buckets, farthest):
    """The row of a distance, from the paper's text: exact near by, logarithmic farther off."""
    middle = buckets // 2
    if buckets <= 0 or abs(distance) <= middle:
        return distance
    far = math.log(abs(distance) / middle) / math.log((farthest - 1) / middle) * (middle - 1)
    return int(math.copysign(middle + math.ceil(far - 1e-6), distance))


class Seen:
    """Keeps the scorer of the only layer."""

    def __init__(self, model):
        self.parts = describe(model)

    def begin(self, ids):
        pass

    def attended(self, call):
        self.hidden, self.scorer = call.hidden, Scorer.of(call, self.parts)

    def end(self):
        pass


def seen_in(model, ids):
    seen = Seen(model)
    with torch.inference_mode(), Watch(seen.parts, [0], seen):
        model(ids)
    return seen


def row_in_v1(distance, attention):
    farthest = attention.max_relative_positions
    return min(max(distance + farthest, 0), 2 * farthest - 1)


def row_in_v2(distance, attention):
    far = bucket(distance, attention.position_buckets, attention.max_relative_positions)
    return min(max(far + attention.pos_ebd_size, 0), 2 * attention.pos_ebd_size - 1)


def check_terms(model, *, projections, row_of, divisor):
    """All terms of two heads of the second of two examples, in a plain loop over pairs of tokens."""
    seen = seen_in(model, torch.randint(5, 200, (2, T), generator=torch.Generator().manual_seed(1)))
    attention = seen.parts.layers[0].attention
    query, key, _ = seen.parts.layers[0].states(seen.hidden)
    embeddings = model.base_model.encoder.get_rel_embedding()
    as_key, as_query = (
        None if name is None else attention.get_submodule(name)(embeddings).view(-1, H, D_HEAD)
        for name in projections
    )
    terms = seen.scorer.terms(1, slice(1, 3), T - 2)
    assert [term is not None for term in terms] == [True, as_key is not None, as_query is not None]
    for place, head in enumerate((1, 2)):
        for i in range(T - 2):
            for j in range(T - 2):
                q, k = query[1, head, i], key[1, head, j]
                expected = [
                    q @ k,
                    None if as_key is None else q @ as_key[row_of(i - j, attention), head],
                    None if as_query is None else k @ as_query[row_of(i - j, attention), head],
                ]
                for term, value in zip(terms, expected, strict=True):
                    if term is not None:
                        assert abs(term[place, i, j] - value / math.sqrt(D_HEAD * divisor)) < 1e-5
    total = sum(term for term in terms if term is not None)
    torch.testing.assert_close(seen.scorer.scores(1, [1, 2], T - 2), total, rtol=0, atol=1e-5)


KINDS = [
    {},
    {"share_att_key": False},
    {"position_buckets": -1},
    {"position_buckets": -1, "max_relative_positions": 6, "share_att_key": False},
    {"pos_att_type": ["c2p"]},
    {"pos_att_type": ["p2c"], "share_att_key": False},
    {"pos_att_type": ["p2p", "c2p"]},
    {"pos_att_type": []},
]


@pytest.mark.parametrize(
    ("options", "attention"),
    [
        *((options, attention) for options in KINDS for attention in ("fast", "eager")),
        ({"relative_attention": False}, "eager"),
    ],
    ids=str,
)
@torch.inference_mode()
def test_terms_against_a_loop_over_all_pairs(options, attention):
    model = debertas.v2(**options)
    kinds, relative = set(model.config.pos_att_type), model.config.relative_attention
    if attention == "fast":
        install_fast_attention(model)
    before = "" if model.config.share_att_key else "pos_"
    names = (f"{before}key_proj", f"{before}query_proj")
    check_terms(
        model,
        projections=[
            name if relative and kind in kinds else None
            for kind, name in zip(("c2p", "p2c"), names, strict=True)
        ],
        row_of=row_in_v2,
        divisor=1 + len(kinds & {"c2p", "p2c"}),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_relative_positions": 6},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"]},
        {"pos_att_type": ["p2c", "p2p", "c2p"]},
        {"relative_attention": False},
    ],
    ids=str,
)
@torch.inference_mode()
def test_terms_of_v1_against_a_loop_over_all_pairs(options):
    model = debertas.v1(**options)
    kinds, relative = model.config.pos_att_type, model.config.relative_attention
    check_terms(
        model,
        projections=[
            name if relative and kind in kinds else None
            for kind, name in (("c2p", "pos_proj"), ("p2c", "pos_q_proj"))
        ],
        row_of=row_in_v1,
        divisor=1 + len(kinds),
    )


@pytest.mark.parametrize("heads", [slice(0, 3), [2, 0]])
@torch.inference_mode()
def test_rows_longer_than_a_tile(heads, monkeypatch):
    model, ids = debertas.v2(), torch.randint(5, 200, (1, 60))
    (expected,) = model(ids, output_attentions=True).attentions
    install_fast_attention(model)
    seen = seen_in(model, ids)
    for tile in (7, 60):
        monkeypatch.setattr("probes.scores.TILE", tile)
        found = seen.scorer.probabilities(0, heads, 60)
        torch.testing.assert_close(found, expected[0, heads], rtol=0, atol=1e-6)
