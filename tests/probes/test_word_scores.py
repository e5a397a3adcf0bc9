"""A word has the sum of its tokens, and the text it is written with."""

import numpy as np

from probes.maps import ANSWER, CONTEXT, QUESTION
from probes.word_scores import Word, by_word, word_numbers, words_of_layout
from probing import small_attention

LAYOUT = small_attention(np.zeros((1, 1, 8, 8)))


def test_words_of_a_small_window():
    """[CLS] who s ##at [SEP] the cat [SEP]."""
    assert word_numbers(LAYOUT).tolist() == [-1, 0, 1, 1, -1, 2, 3, -1]
    assert words_of_layout(LAYOUT) == (
        Word("Who", QUESTION, 0, 3),
        Word("sat", QUESTION, 4, 7),
        Word("The", CONTEXT, 0, 3),
        Word("cat", ANSWER, 4, 7),
    )


def test_scores_are_summed_without_those_of_special_tokens():
    scores = np.array([[100.0, 1, 2, 3, 100, 4, -5, 100], np.arange(8)])
    assert by_word(scores, LAYOUT).tolist() == [[1, 5, 4, -5], [1, 5, 5, 6]]
    assert by_word(scores[0], LAYOUT).tolist() == [1, 5, 4, -5]


def test_a_window_of_special_tokens_has_no_words():
    layout = small_attention(np.zeros((1, 1, 3, 3)), tokens=[0, 4, 7])
    assert words_of_layout(layout) == ()
    assert by_word(np.ones(3), layout).shape == (0,)
