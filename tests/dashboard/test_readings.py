"""What is said of a map is what is in it, and words of the text mean nothing in Markdown."""

from dataclasses import replace

import numpy as np
import pytest

import tiny_models
from dashboard import readings
from probes.knockout import knock_out_each
from probes.overview import Habits, Pair
from probing import READING, small_attention
from qa.model import load_encoder
from qa.reader import Reader
from qa.spans import Answer

WORD = "**<b>$x$:smile:"


@pytest.fixture
def view():
    maps = np.random.default_rng(0).dirichlet(np.full(8, 0.3), size=(1, 1, 8)).astype(np.float32)
    view = small_attention(maps).by("word")
    return replace(view, labels=(WORD, *view.labels[1:]))


def habits(**changes):
    values = dict.fromkeys(("sinks", "itself", "previous", "following", "question", "context", "answer"), 0.1)
    return Habits(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sinks": 0.62}, "**62%** goes to [CLS] and [SEP]"),
        ({"previous": 0.45, "sinks": 0.4}, "**45%** goes to the word before"),
        ({"following": 0.31}, "**31%** goes to the word after"),
        ({"itself": 0.9}, "**90%** goes to the word itself"),
    ],
)
def test_a_habit_is_named(changes, said):
    assert readings.habit(habits(**changes)).startswith(said)


def test_without_a_habit_only_the_regions_are_said():
    said = readings.habit(habits(question=0.2, context=0.65, answer=0.05, sinks=0.1))
    assert said == (
        "Of what the words attend to, 20% is in the question, 65% in the context and 5% in the answer; "
        "10% is [CLS] and [SEP]."
    )


def test_pairs_are_said_and_listed(view):
    pairs = [Pair(0, 5, 0.25), Pair(1, 4, 0.125)]
    said = readings.pair(view, pairs[0], value="")
    assert "(attention 0.250)" in said
    assert WORD not in said
    assert "**cat**" in said
    rows = readings.rows_of_pairs(view, pairs, value="weight")
    assert rows[0] == {
        "attends": WORD,
        "in the": "special",
        "attended to": "cat",
        "in the ": "answer",
        "weight": 0.25,
    }
    assert (rows[1]["in the"], rows[1]["in the "]) == ("question", "context")


def test_a_difference_names_who_has_more(view):
    assert "0.250 more in b than in a" in readings.difference(view, Pair(1, 2, 0.25), "a", "b")
    assert "0.250 more in a than in b" in readings.difference(view, Pair(1, 2, -0.25), "a", "b")


def test_what_a_head_that_is_off_does(tmp_path):
    reader = Reader(load_encoder(str(tiny_models.save(tmp_path / "model"))), READING, None)
    effects = knock_out_each(reader, "Who?", "The cat sat on the mat in Denver.")
    place = (1, 0)
    said = readings.switched_off(effects, place)
    assert f"{100 * effects.probability[place]:+.2f} points" in said
    answer: Answer = effects.answers[place]
    stays = answer.text == effects.answer.text
    assert effects.changed[place] == (not stays)
    assert ("stays" in said) is stays
    nothing = replace(effects, no_answer_probability=np.full((2, 2), -1e-9))
    assert "that of “no answer” by +0.00" in readings.switched_off(nothing, place)
