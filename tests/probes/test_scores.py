"""Scores computed from queries, keys and distances, against plain loops over the published formula."""

import math

import pytest
import torch
from transformers import DebertaV2Config, DebertaV2ForQuestionAnswering

from probes.calls import Watch
from probes.encoders import describe
from probes.scores import Scorer
from qa.disentangled import install_fast_attention

T, H, D_HEAD = 23, 3, 4


def model_with(**options):
    torch.manual_seed(0)
    config = DebertaV2Config(
        **{
            "vocab_size": 40,
            "hidden_size": H * D_HEAD,
            "num_hidden_layers": 1,
            "num_attention_heads": H,
            "intermediate_size": 8,
            "max_position_embeddings": 64,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
            "initializer_range": 0.4,
            **options,
        }
    )
    return DebertaV2ForQuestionAnswering(config).eval()


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


@pytest.mark.parametrize("attention", ["fast", "eager"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"share_att_key": False},
        {"position_buckets": -1},
        {"position_buckets": -1, "max_relative_positions": 6, "share_att_key": False},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"], "share_att_key": False},
        {"pos_att_type": []},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "v3",
)
@torch.inference_mode()
def test_terms_against_a_loop_over_all_pairs(options, attention):
    model = model_with(**options)
    if attention == "fast":
        install_fast_attention(model)
    seen = seen_in(model, torch.randint(5, 40, (2, T), generator=torch.Generator().manual_seed(1)))
    attention = seen.parts.layers[0].attention
    query, key, _ = seen.parts.layers[0].states(seen.hidden)
    kinds, shared = model.config.pos_att_type, model.config.share_att_key
    embeddings = model.base_model.encoder.get_rel_embedding()
    span = len(embeddings) // 2
    as_key = as_query = None
    if "c2p" in kinds:
        as_key = (attention.key_proj if shared else attention.pos_key_proj)(embeddings).view(-1, H, D_HEAD)
    if "p2c" in kinds:
        as_query = (attention.query_proj if shared else attention.pos_query_proj)(embeddings).view(
            -1, H, D_HEAD
        )
    scale = math.sqrt(D_HEAD * (1 + len(kinds)))
    terms = seen.scorer.terms(1, slice(1, 3), T - 2)
    assert [term is not None for term in terms] == [True, "c2p" in kinds, "p2c" in kinds]
    for place, head in enumerate((1, 2)):
        for i in range(T - 2):
            for j in range(T - 2):
                far = bucket(i - j, model.config.position_buckets, attention.max_relative_positions)
                row = min(max(far + span, 0), 2 * span - 1)
                q, k = query[1, head, i], key[1, head, j]
                expected = [
                    q @ k,
                    None if as_key is None else q @ as_key[row, head],
                    None if as_query is None else k @ as_query[row, head],
                ]
                for term, value in zip(terms, expected, strict=True):
                    if term is not None:
                        assert abs(term[place, i, j] - value / scale) < 1e-5
    total = sum(term for term in terms if term is not None)
    torch.testing.assert_close(seen.scorer.scores(1, [1, 2], T - 2), total, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [slice(0, 3), [2, 0]])
@torch.inference_mode()
def test_rows_longer_than_a_tile(heads, monkeypatch):
    model, ids = model_with(), torch.randint(5, 40, (1, 60))
    (expected,) = model(ids, output_attentions=True).attentions
    install_fast_attention(model)
    seen = seen_in(model, ids)
    for tile in (7, 60):
        monkeypatch.setattr("probes.scores.TILE", tile)
        found = seen.scorer.probabilities(0, heads, 60)
        torch.testing.assert_close(found, expected[0, heads], rtol=0, atol=1e-6)
