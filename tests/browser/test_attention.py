"""Attention in a browser: within its budgets, quiet, clickable, and each session with its own maps."""

import pytest

import browsing

MOST_SECONDS = 5.0  # of one task of the browser's main thread, on a machine that does other things as well


def drawn(visit, charts=2):
    """Wait until so many charts are drawn."""
    visit.page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg.marks").nth(
        charts - 1
    ).wait_for(timeout=browsing.WAIT_MS)
    visit.settle()


def grid(visit):
    return visit.page.locator("[class*=st-key-attention_grid]").first


def marks(visit):
    """Marks of all charts that are elements of the page, which is what a browser must lay out."""
    return visit.page.locator("[data-testid=stVegaLiteChart] svg.marks path").count()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [800, 1280, 1920])
def test_every_head_and_one_head_within_the_budgets(visit, width, dark):
    page = visit("attention", experiment="pocket", width=width, dark=dark)
    drawn(page)
    page.assert_clean()
    page.assert_fits()
    assert 0 < page.cost() <= browsing.FIRST_LOAD
    assert marks(page) <= 10_000
    assert page.longest_task() < MOST_SECONDS


@pytest.mark.parametrize("extent", ["around the answer", "the whole window"])
def test_a_large_model_fits_the_budgets(visit, extent):
    page = visit("attention", experiment="huge", extent=extent)
    drawn(page)
    first = page.cost()
    assert first <= browsing.FIRST_LOAD
    assert marks(page) <= 10_000
    page.page.get_by_label("Layer", exact=True).fill("7")
    page.page.keyboard.press("Enter")
    page.settle()
    assert "layer=7" in page.query()
    assert page.cost() <= browsing.CLICK, "the picture of all heads is not sent again"
    assert page.longest_task() < MOST_SECONDS
    page.assert_clean()


def test_a_click_in_the_grid_reads_that_head(visit):
    page = visit("attention", experiment="pocket", layer=0, head=0)
    drawn(page)
    page.cost()
    chart = grid(page).locator("svg.marks, canvas").first
    box = chart.bounding_box()
    # The lower right corner is the last head of the last layer.
    chart.click(position={"x": box["width"] - 18, "y": box["height"] - 22})
    page.settle()
    page.page.get_by_role("heading", name="Layer 5, head 11").wait_for()
    assert page.cost() <= browsing.CLICK
    assert "layer=5" in page.query()
    assert "head=11" in page.query()
    page.assert_clean()


def test_a_click_in_the_map_pins_its_words(visit):
    page = visit("attention", experiment="pocket")
    drawn(page)
    chart = page.page.locator(".st-key-attention_head").locator("canvas, svg.marks").first
    box = chart.bounding_box()
    chart.click(position={"x": box["width"] / 2, "y": box["height"] / 3})
    page.settle()
    page.page.get_by_text("gets from the others").wait_for()
    assert page.page.get_by_label("This word").input_value()
    page.assert_clean()


def test_heads_are_switched_off_and_the_effect_is_a_map(visit):
    page = visit("attention", experiment="pocket", more="heads switched off")
    drawn(page)
    page.page.get_by_role("button", name="Switch off every head").click()
    page.page.locator(".st-key-attention_off svg.marks, .st-key-attention_off canvas").wait_for(
        timeout=browsing.WAIT_MS
    )
    page.page.get_by_text("Heads stand in for each other").wait_for()
    page.assert_clean()


def test_two_experiments_and_their_difference(visit):
    page = visit("attention", experiment="huge", other="huge-twin")
    drawn(page, charts=5)
    assert page.cost() <= browsing.FIRST_LOAD
    assert marks(page) <= 25_000
    page.page.get_by_role("heading", name="Difference").wait_for()
    page.assert_clean()


def test_a_picture_is_saved(visit):
    page = visit("attention", experiment="pocket")
    drawn(page)
    files = page.page.locator(".st-key-attention_head_files_0 button")
    with page.page.expect_download() as download:
        files.first.click()
    assert download.value.suggested_filename.endswith(".png")


def test_without_a_model_it_says_so(visit):
    page = visit("attention", experiment="predictions")
    page.page.get_by_text("has no model").wait_for()
    page.assert_clean()


def test_eight_sessions_have_their_own_maps(visit):
    cities = ("Denver", "Boston", "Zurich", "Oslo", "Lima", "Cairo", "Delhi", "Perth")
    sessions = [
        visit(
            "attention",
            experiment="pocket",
            question=f"Where did {city} sleep?",
            context=f"In {city} nobody slept, says the chronicle of {city}.",
        )
        for city in cities
    ]
    for session, city in zip(sessions, cities, strict=True):
        drawn(session)
        words = session.page.locator(".st-key-attention_head").inner_text()
        assert city in words
        assert not any(other in words for other in cities if other != city)
        session.assert_clean()
