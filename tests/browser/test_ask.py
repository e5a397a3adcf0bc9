"""Ask in a browser: within its budgets, quiet, and each session with its own answer."""

import pytest

import browsing
import huge
from qa.experiment import Experiment
from qa.reader import Reader

HOSTILE = "<b>Deacon</b> **rose** $x$ :smile: in \u200bOstrevaal\u202e & <script>alert(1)</script> slept."
ASKING = "Who slept?"


def ask(visit, question, context):
    visit.page.get_by_label("Question", exact=True).fill(question)
    visit.page.get_by_label("Context", exact=True).fill(context)
    visit.page.get_by_role("button", name="Ask", exact=True).click()
    visit.settle()


def answer_of(site, name, question, context):
    return Reader.of(Experiment(site.experiments / name)).answer(question, context)


def answers_shown(visit):
    return [text.strip() for text in visit.page.locator("[data-testid=stHeading] h3").all_inner_texts()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_a_question_of_the_data_is_answered_within_the_budgets(visit, site, width, dark):
    page = visit("ask", experiment="pocket", other="pocket-twin", width=width, dark=dark)
    page.page.locator("canvas, svg.marks").first.wait_for()
    page.assert_clean()
    page.assert_fits()
    assert 0 < page.cost() <= browsing.FIRST_LOAD
    assert len(answers_shown(page)) == 2


def test_a_typed_question_is_answered_and_stands_in_the_link(visit, site):
    page = visit("ask", experiment="pocket")
    page.cost()
    question, context = "Where did the cat sleep?", "The cat slept in Denver, and the dog in Boston."
    ask(page, question, context)
    answer = answer_of(site, "pocket", question, context)
    assert answers_shown(page) == [answer.text]
    assert "question=Where+did" in page.query() or "question=Where%20did" in page.query()
    assert page.page.locator("mark").inner_text() == answer.text
    assert page.cost() <= browsing.CLICK
    ask(page, question.replace("cat", "dog"), context)
    page.page.get_by_text("Edited in the question").wait_for()
    page.assert_clean()
    colleague = visit("ask", **{"experiment": "pocket", "question": question, "context": context})
    assert answers_shown(colleague) == [answer.text]


def test_a_question_is_picked_wrong_answers_first(visit):
    page = visit("ask", experiment="pocket")
    page.page.get_by_text("Pick from the validation data").click()
    page.settle()
    page.page.get_by_text("wrong answers first").wait_for()
    page.page.get_by_label("Search", exact=True).fill("Brandvoort")
    page.page.keyboard.press("Enter")
    page.settle()
    assert "of 24 questions" in page.text()
    page.assert_clean()


def test_text_is_text(visit):
    page = visit("ask", experiment="pocket", question=ASKING, context=HOSTILE)
    marked = page.page.locator("[data-testid=stHtml]", has_text="slept").last.inner_text()
    assert (
        "<b>Deacon</b> **rose** $x$ :smile: in \\u200bOstrevaal\\u202e & <script>alert(1)</script>" in marked
    )
    page.assert_clean()


def test_a_large_model_fits_the_budgets(visit):
    page = visit("ask", experiment="huge")
    page.page.locator("canvas, svg.marks").first.wait_for()
    assert page.cost() <= browsing.FIRST_LOAD
    assert "read in 2 windows of at most 384 tokens" in page.text()
    assert huge.QUESTION in page.page.get_by_label("Question", exact=True).input_value()
    page.assert_clean()


def test_without_a_model_it_says_so(visit):
    page = visit("ask", experiment="predictions")
    page.page.get_by_text("has no model").wait_for()
    page.assert_clean()


def test_eight_who_ask_at_once_get_their_own_answers(visit, site):
    cities = ("Denver", "Boston", "Zürich", "Oslo", "Lima", "Cairo", "Delhi", "Perth")
    asked = [
        (f"Where did traveller {n} sleep?", f"Traveller {n} slept in {city} and ate in Rome.")
        for n, city in enumerate(cities)
    ]
    sessions = [visit("ask", experiment="pocket") for _ in asked]
    for session, (question, context) in zip(sessions, asked, strict=True):
        session.page.get_by_label("Question", exact=True).fill(question)
        session.page.get_by_label("Context", exact=True).fill(context)
    for session in sessions:
        session.page.get_by_role("button", name="Ask", exact=True).click(no_wait_after=True)
    for session, pair in zip(sessions, asked, strict=True):
        session.settle()
        assert answers_shown(session) == [answer_of(site, "pocket", *pair).text or "no answer"]
        session.assert_clean()
