"""Groups of questions, counted by hand, and their scores against means and intervals taken one by one."""

from dataclasses import replace

import numpy as np
import pytest

from qa.intervals import paired_interval, paragraph_interval
from qa.scored import arrange
from qa.slices import FEWEST, WORDS, Slicing, question_word, repeats_of, slice_scores, slicings
from qa.squad import Question, load_questions

POCKET = load_questions("pocket", "validation").questions


def question(id_="id", *, text="Who?", context="a b", answers=("a",)):
    return Question(id_, "", f"/{len(context)}", text, context, answers, (0,) * len(answers))


def answers(name, questions, seed):
    draw = np.random.default_rng(seed)
    rows = [
        {"id": item.id, "exact_match": float(draw.random() < 0.5), "f1": draw.random(), "windows": 1 + n % 3}
        for n, item in enumerate(questions)
    ]
    return arrange(name, None, rows, questions)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("What is it?", "what"),
        ("In what year did it begin?", "what"),
        ("To whom was it given?", "who"),
        ("Whose idea was it?", "who"),
        ("How much does it weigh?", "how many"),
        ("How  many are there?", "how many"),
        ("How does it work, and why?", "how"),
        ("WHEN?", "when"),
        ("Name the whatever.", "other"),
        ("", "other"),
    ],
)
def test_question_word(text, word):
    assert question_word(text) == word
    assert word in WORDS


@pytest.mark.parametrize(
    ("context", "answer", "count"),
    [
        ("The cat saw the Cat's cat.", "cat", 3),
        ("concatenate", "cat", 0),
        ("$5 and $5.", "$5", 2),
        ("a.b a-b", "a.b", 1),
        ("x", " ", 0),
    ],
)
def test_how_often_an_answer_is_there(context, answer, count):
    assert repeats_of(question(context=context, answers=(answer,))) == count


def test_the_groups_of_a_small_set():
    questions = [
        question("1", text="Who?", answers=("one",), context="one " * 74),
        question("2", text="How many?", answers=("two words",), context="two words " * 100),
        question("3", text="So?", answers=(), context="x " * 300),
        question("4", text="Who?", answers=("one two three four",), context="y"),
    ]
    found = slicings(questions, np.array([1, 5, 0, 1]))
    assert {item.name: (item.labels, item.group.tolist()) for item in found} == {
        "question_word": (("who", "how many", "other"), [0, 1, 2, 0]),
        "answer_length": (("1", "2", "3–4"), [0, 1, -1, 2]),
        "context_length": (("1–74", "200–299", "300 or more"), [0, 1, 2, 0]),
        "windows": (("1", "4 or more"), [0, 1, -1, 0]),
        "answerable": (("answerable", "unanswerable"), [0, 0, 1, 0]),
    }, "both known answers are repeated four times or more, which parts nothing"


def test_unknown_windows_part_nothing():
    names = [item.name for item in slicings(POCKET, np.zeros(len(POCKET), dtype=np.int64))]
    assert "windows" not in names
    assert {"question_word", "answer_length", "context_length", "answerable"} <= {*names}


def test_every_group_has_questions_and_no_question_is_in_two():
    for slicing in slicings(POCKET, np.ones(len(POCKET), dtype=np.int64)):
        masks = slicing.masks()
        assert masks.any(axis=1).all()
        assert masks.sum(axis=0).max() == 1


def test_scores_against_means_and_intervals_of_each_group():
    first, second = answers("one", POCKET, 0), answers("two", POCKET, 1)
    slicing = next(item for item in slicings(POCKET, first.windows) if item.name == "windows")
    found = slice_scores(slicing, [first, second], POCKET, metric=lambda item: item.f1s)
    assert [(item.label, item.experiment) for item in found] == [
        (label, name) for label in ("1", "2", "3") for name in ("one", "two")
    ]
    paragraphs = [item.paragraph for item in POCKET]
    for number, (one, two) in enumerate(zip(found[::2], found[1::2], strict=True)):
        chosen = first.windows == number + 1
        own = [paragraphs[index] for index in np.flatnonzero(chosen)]
        a, b = 100 * first.f1s[chosen], 100 * second.f1s[chosen]
        assert one.count == two.count == chosen.sum()
        assert (one.value, two.value) == pytest.approx((a.mean(), b.mean()))
        assert (one.difference, one.difference_interval) == (None, None)
        assert two.difference == pytest.approx((b - a).mean())
        # The same up to chance: here paragraphs without a question of the group are drawn, too.
        assert two.interval == pytest.approx(paragraph_interval(b, own), abs=1.5)
        assert two.difference_interval == pytest.approx(paired_interval(a, b, paragraphs=own), abs=1.5)


def test_few_paragraphs_and_equal_values_have_no_interval():
    questions = [question(str(n), context="c" * (1 + n % 12)) for n in range(48)]
    first, second = answers("one", questions, 0), answers("two", questions, 1)
    second = replace(second, f1s=np.ones(48))
    group = np.array([0 if n % 12 < FEWEST - 1 else 1 for n in range(48)])
    for groups in (group, np.zeros(48, dtype=np.int64)):
        slicing = Slicing("x", "x", ("a", "b")[: groups.max() + 1], groups)
        found = slice_scores(slicing, [first, second], questions, metric=lambda item: item.f1s)
        assert all(item.interval is None for item in found if item.experiment == "two")
        enough = len({*groups}) == 1
        assert all((item.interval is not None) is enough for item in found if item.experiment == "one")
        assert all((item.difference_interval is not None) is enough for item in found if item.difference)


def test_a_group_of_all_questions_has_the_interval_of_the_whole():
    first = answers("one", POCKET, 0)
    slicing = slicings(POCKET, first.windows)[0]
    whole = type(slicing)("all", "all", ("all",), np.zeros(len(POCKET), dtype=np.int64))
    (found,) = slice_scores(whole, [first], POCKET, metric=lambda item: item.f1s)
    expected = paragraph_interval(100 * first.f1s, [item.paragraph for item in POCKET])
    assert found.interval == pytest.approx(expected, abs=1e-9)
