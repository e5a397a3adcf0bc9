"""Attribution in a browser: texts, map and curves within the budgets, choices in the link, and clicks."""

import re

import pytest

import browsing

QUESTION, CONTEXT = "Where did the cat sleep?", "The cat slept in Denver, and the dog in Boston."
HOSTILE = "<b>Deacon</b> **rose** $x$ :smile: in \u200bOstrevaal\u202e & <script>alert(1)</script> slept."
TYPED = {"question": QUESTION, "context": CONTEXT}
COLOURED = "[data-testid=stHtml] span[style*=background]"


def drawn(visit, charts):
    """Wait until so many charts are drawn."""
    visit.page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg.marks").nth(
        charts - 1
    ).wait_for(timeout=browsing.WAIT_MS)
    visit.settle()


def explained(visit, *, experiment="pocket", **query):
    """The page, explained by what takes one step and not many, and drawn."""
    page = visit("attribution", experiment=experiment, method="gradient × input", **query)
    page.page.get_by_text("convergence delta").first.wait_for(timeout=browsing.WAIT_MS)
    drawn(page, charts=1)
    return page


def choose(page, label, option):
    page.page.get_by_label(label, exact=True).click()
    page.page.get_by_role("option", name=option, exact=True).click()
    page.settle()


def texts(page):
    """Question and context as they are coloured, twice: by attribution, and by attention."""
    return [text.strip() for text in page.page.locator("[data-testid=stHtml]").all_inner_texts()][1:]


def colours(page):
    """What is coloured how much, in the order of the page."""
    return page.page.locator(COLOURED).evaluate_all(
        "spans => spans.map(span => [span.innerText, span.style.backgroundColor])"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_texts_map_and_curves_within_the_budgets(visit, width, dark):
    page = explained(visit, width=width, dark=dark, **TYPED)
    assert texts(page) == [QUESTION, CONTEXT] * 2
    assert colours(page)
    assert 0 < page.cost() <= browsing.FIRST_LOAD
    button = page.page.get_by_role("button", name="Mask words")
    if button.count():  # what another session had masked is there at once
        button.click()
    drawn(page, charts=2)
    page.page.get_by_text("nine of ten random rankings").wait_for()
    assert page.cost() <= browsing.CLICK
    page.assert_clean()
    page.assert_fits()


def test_a_large_model_fits_the_budgets(visit):
    page = explained(visit, experiment="huge")
    assert page.cost() <= browsing.FIRST_LOAD
    choose(page, "Attention beside it", "attention rollout")
    assert page.cost() <= browsing.CLICK
    page.assert_clean()


def test_a_choice_changes_the_picture_and_the_link(visit):
    page = explained(visit, **TYPED)
    before = colours(page)
    choose(page, "by", "saliency (no sign)")
    page.page.get_by_text("By saliency (no sign)").wait_for()
    saliency = colours(page)
    assert saliency != before
    assert "method=saliency" in page.query()
    choose(page, "by", "integrated gradients")
    page.page.get_by_text("By integrated gradients").wait_for()
    assert colours(page) not in (before, saliency)
    assert "method" not in page.query(), "what comes by itself is not in a link"
    page.cost()
    by_attention = colours(page)
    choose(page, "Attention beside it", "attention rollout")
    page.page.get_by_text("By attention rollout, from the answer").wait_for()
    assert colours(page) != by_attention
    assert page.cost() <= browsing.CLICK
    choose(page, "Attention beside it", "one head")
    assert {"layer", "head"} <= set(re.findall(r"(\w+)=", page.query()))
    page.assert_clean()
    colleague = visit("attribution?" + page.query())
    assert colours(colleague) == colours(page)


def test_a_click_in_the_map_opens_that_head_on_attention(visit):
    page = explained(visit, **TYPED)
    cells = page.page.locator("[class*=st-key-attribution_heads_pocket] svg.marks path[aria-label]")
    cells.and_(page.page.locator("[aria-label*='layer: 4; ']")).nth(7).click()
    page.page.wait_for_url("**/attention?**")
    page.page.get_by_role("heading", name="Layer 4, head 7").wait_for(timeout=browsing.WAIT_MS)
    assert {"layer=4", "head=7", "experiment=pocket"} <= set(page.query().split("&"))
    assert CONTEXT.split()[0] in page.text()
    page.assert_clean()


def test_two_experiments_beside_each_other(visit):
    page = explained(visit, other="pocket-twin", **TYPED)
    drawn(page, charts=2)
    assert texts(page) == [QUESTION, CONTEXT] * 4
    assert page.cost() <= browsing.FIRST_LOAD
    page.assert_clean()
    page.assert_fits()


def test_text_is_text(visit):
    page = explained(visit, question="Who *slept* in $y$?", context=HOSTILE)
    shown = HOSTILE.replace("\u200b", "\\u200b").replace("\u202e", "\\u202e")
    assert texts(page) == ["Who *slept* in $y$?", shown] * 2
    assert page.page.locator("[data-testid=stMain] :is(.katex, script, [data-testid=stHtml] b)").count() == 0
    page.assert_clean()


def test_without_a_model_it_says_so(visit):
    page = visit("attribution", experiment="predictions")
    page.page.get_by_text("has no model").wait_for()
    page.assert_clean()
