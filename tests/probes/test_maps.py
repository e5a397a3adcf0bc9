"""Views against plain loops: sum over the pieces attended to, mean over the pieces attending."""

import dataclasses

import numpy as np
import pytest

from probes.maps import ANSWER, CLS, CONTEXT, QUESTION, REGIONS, SEP, UNITS, Attention, check_bytes, groups_of
from probes.words import sentences_of, words_of
from qa.errors import UserError

QUESTION_TEXT, CONTEXT_TEXT = "Who sat?", "The cat sat. It slept!"
TOKENS = (
    ("[CLS]", CLS, -1, -1),
    ("who", QUESTION, 0, 3),
    ("s", QUESTION, 4, 5),
    ("##at", QUESTION, 5, 7),
    ("?", QUESTION, 7, 8),
    ("[SEP]", SEP, -1, -1),
    ("the", CONTEXT, 0, 3),
    ("c", ANSWER, 4, 5),
    ("##at", ANSWER, 5, 7),
    ("sat", CONTEXT, 8, 11),
    (".", CONTEXT, 11, 12),
    ("▁", CONTEXT, 13, 13),
    ("it", CONTEXT, 13, 15),
    ("slept!", CONTEXT, 16, 22),
    ("[SEP]", SEP, -1, -1),
)
WORDS = ["[CLS]", "Who", "sat", "?", "[SEP]", "The", "cat", "sat", ".", "It", "slept!", "[SEP]"]
WORD_OF = [0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11]
SENTENCES = ["[CLS]", "Who sat?", "[SEP]", "The cat sat.", "It slept!", "[SEP]"]
SENTENCE_OF = [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 4, 4, 5]


def attention(dtype=np.float32, seen=None):
    generator = np.random.default_rng(0)
    T = len(TOKENS)
    probabilities = generator.random((3, 2, T, T)) ** 8
    probabilities /= probabilities.sum(-1, keepdims=True)
    regions = np.array([token[1] for token in TOKENS], dtype=np.int32)
    chars = np.array([token[2:] for token in TOKENS], dtype=np.int32)
    texts = {"question": QUESTION_TEXT, "context": CONTEXT_TEXT}
    return Attention(
        probabilities=probabilities.astype(dtype),
        layers=(0, 4, 7),
        heads=(3, 1),
        tokens=tuple(token[0] for token in TOKENS),
        chars=chars,
        words=groups_of(regions, chars, cut=words_of, **texts),
        sentences=groups_of(regions, chars, cut=sentences_of, **texts),
        regions=regions,
        windows=np.zeros(T, dtype=np.int32),
        seen=seen,
        before=0,
        answer=(4, 7),
        **texts,
    )


def loop(probabilities, groups, count):
    """Sum over the columns of a group, mean over its rows, one number at a time."""
    L, H = probabilities.shape[:2]
    result = np.full((L, H, count, count), np.nan)
    for layer, head, a, b in np.ndindex(L, H, count, count):
        rows = [t for t, group in enumerate(groups) if group == a]
        columns = [t for t, group in enumerate(groups) if group == b]
        if rows:
            sums = [sum(float(probabilities[layer, head, i, j]) for j in columns) for i in rows]
            result[layer, head, a, b] = sum(sums) / len(rows)
    return result


def test_tokens_are_grouped_into_words_and_sentences():
    one = attention()
    assert one.words.tolist() == WORD_OF
    assert one.sentences.tolist() == SENTENCE_OF


@pytest.mark.parametrize(
    ("unit", "groups", "labels"),
    [
        ("token", range(len(TOKENS)), [token[0] for token in TOKENS]),
        ("word", WORD_OF, WORDS),
        ("sentence", SENTENCE_OF, SENTENCES),
        ("region", [token[1] for token in TOKENS], list(REGIONS)),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float16, 1e-3)])
def test_a_view_against_a_loop(unit, groups, labels, dtype, tolerance):
    one = attention(dtype)
    view = one.by(unit)
    assert (view.unit, view.layers, view.heads, view.seen) == (unit, one.layers, one.heads, None)
    assert list(view.labels) == labels
    np.testing.assert_allclose(
        view.probabilities, loop(one.probabilities, groups, len(labels)), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(view.probabilities.sum(-1), 1, rtol=0, atol=tolerance)
    assert view.probabilities.dtype == np.float32
    assert len(view.chars) == len(view.regions) == len(labels)


def test_a_group_covers_the_text_of_its_tokens():
    words, sentences = attention().by("word"), attention().by("sentence")
    assert words.chars.tolist()[5:10] == [[0, 3], [4, 7], [8, 11], [11, 12], [13, 15]]
    assert sentences.chars.tolist() == [[-1, -1], [0, 8], [-1, -1], [0, 12], [13, 22], [-1, -1]]
    assert [REGIONS[region] for region in words.regions[4:9]] == [
        "[SEP]",
        "context",
        "answer",
        "context",
        "context",
    ]
    assert [REGIONS[region] for region in sentences.regions] == [
        "[CLS]",
        "question",
        "[SEP]",
        "answer",
        "context",
        "[SEP]",
    ]


def test_flow_between_regions_against_a_loop():
    one = attention()
    view = one.by("region")
    for query, key in np.ndindex(5, 5):
        rows, columns = (
            [t for t, token in enumerate(TOKENS) if token[1] == region] for region in (query, key)
        )
        expected = one.probabilities[:, :, rows][..., columns].sum(-1).mean(-1)
        np.testing.assert_allclose(view.between(REGIONS[query], REGIONS[key]), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            one.by("token").between(REGIONS[query], REGIONS[key]), expected, rtol=0, atol=1e-6
        )


def test_sinks_are_reported():
    one = attention()
    expected = one.probabilities[..., [0, 5, 14]].sum(-1)
    np.testing.assert_allclose(one.by("token").sinks(), expected, rtol=0, atol=1e-6)
    by_region = one.by("region")
    np.testing.assert_allclose(
        by_region.sinks(),
        by_region.probabilities[..., CLS] + by_region.probabilities[..., SEP],
        rtol=0,
        atol=1e-6,
    )


def test_without_an_answer_its_row_is_unknown_and_its_column_empty():
    one = attention()
    regions = np.where(one.regions == ANSWER, CONTEXT, one.regions).astype(np.int32)
    view = dataclasses.replace(one, regions=regions).by("region")
    assert np.isnan(view.probabilities[:, :, ANSWER]).all()
    others = view.probabilities[:, :, :ANSWER]
    assert (others[..., ANSWER] == 0).all()
    np.testing.assert_allclose(others.sum(-1), 1, rtol=0, atol=1e-6)
    assert np.isfinite(view.between("question", "answer")).all()
    words = dataclasses.replace(one, regions=regions).by("word")
    assert np.isnan(words.between("answer", "question")).all()


def test_what_was_not_seen_is_known_of_groups_too():
    seen = np.ones((len(TOKENS), len(TOKENS)), dtype=bool)
    seen[6, 12:14] = seen[7, 13] = False
    view = attention(seen=seen).by("word")
    hidden = [(WORDS[a], WORDS[b]) for a, b in zip(*np.nonzero(~view.seen), strict=True)]
    # A piece of "cat" saw "slept!", and all of the rest were seen by some piece.
    assert hidden == [("The", "slept!")]


def test_select_by_the_numbers_in_the_model():
    one = attention()
    some = one.select(layers=[7, 0], heads=[1])
    assert (some.layers, some.heads) == ((7, 0), (1,))
    np.testing.assert_array_equal(some.probabilities, one.probabilities[[2, 0]][:, [1]])
    assert one.select().probabilities.shape == one.probabilities.shape
    assert some.tokens == one.tokens
    with pytest.raises(UserError, match=r"^layers: \[1\]; captured are \[0, 4, 7\]$"):
        one.select(layers=[1])
    with pytest.raises(UserError, match=r"^heads: \[\]; captured are \[3, 1\]$"):
        one.select(heads=[])


def test_unknown_units_and_regions_are_refused():
    with pytest.raises(UserError, match=r"^unit: 'paragraph'; choose token, word, sentence, region$"):
        attention().by("paragraph")
    with pytest.raises(UserError, match=r"^region: 'passage'; choose \[CLS\], question"):
        attention().by("region").between("passage", "question")
    assert len(UNITS) == 4


def test_more_than_a_few_gigabytes_is_refused():
    check_bytes(4 << 30, "this")
    with pytest.raises(
        UserError, match=r"^attention: this would take 4.3 GB, and at most 4.3 GB is allowed; choose"
    ):
        check_bytes((4 << 30) + 1, "this")


def test_a_token_that_covers_several_words_joins_them():
    chars = np.array([[0, 3], [3, 5], [5, 6], [7, 8]], dtype=np.int32)
    regions = np.full(4, CONTEXT, dtype=np.int32)
    groups = groups_of(regions, chars, question="", context='red").x', cut=words_of)
    # `")` is one token, the point after it another.
    assert groups.tolist() == [0, 1, 2, 3]
    whole = np.array([[0, 4], [4, 6], [7, 8]], dtype=np.int32)
    assert groups_of(regions[:3], whole, question="", context='red").x', cut=words_of).tolist() == [0, 1, 2]
    across = np.array([[0, 2], [2, 5], [5, 6]], dtype=np.int32)
    assert groups_of(regions[:3], across, question="", context='red").x', cut=words_of).tolist() == [0, 0, 1]
    # An unknown run of characters lies over the tokens that follow it.
    above = np.array([[0, 5], [0, 1], [2, 3], [6, 7]], dtype=np.int32)
    assert groups_of(regions, above, question="", context="a b c d", cut=words_of).tolist() == [0, 0, 0, 1]
