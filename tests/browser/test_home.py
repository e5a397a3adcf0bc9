"""Home in a browser: ticking rows, moving cards, foreign text, a thousand experiments, and their budgets."""

import os

import pytest

import browsing
import folders
from qa import files

ROW = 35
NASTY = (
    "<b>bold</b> **stars** $x^2$ :smile: :red[red] [link](http://evil.example) www.evil.example "
    "a@evil.example `code` ~~gone~~ \u202eright \u200bzero שלום"
)


@pytest.fixture(scope="module")
def moving(tmp_path_factory, serve):
    """A dashboard over experiments that tests may change; this process stands for the runs."""
    root = tmp_path_factory.mktemp("moving") / "experiments"
    folders.write(root, "alone", "running", pid=os.getpid(), message=NASTY)
    for name in ("first", "second"):
        folders.write(root, name)
    return serve(root)


@pytest.fixture(scope="module")
def empty(tmp_path_factory, serve):
    return serve(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, serve):
    return serve(folders.many(tmp_path_factory.mktemp("crowd") / "experiments"))


def tick(visit, *rows):
    """Click the boxes of these rows of the table, which is a canvas."""
    table = visit.page.locator(".st-key-experiments_table canvas").first
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    for row in rows:
        visit.page.mouse.click(box["x"] + ROW / 2, box["y"] + ROW * (row + 1.5))
        visit.settle()


def test_ticked_rows_are_compared_or_asked(visit):
    page = visit()
    assert page.page.get_by_role("button", name="Compare").is_disabled()
    page.cost()
    tick(page, 0)
    assert page.cost() <= browsing.CLICK
    tick(page, 1)
    assert page.cost() <= browsing.CLICK
    page.page.get_by_role("button", name="Compare 2").click()
    page.page.wait_for_url("**/compare?runs=*")
    page.settle()
    page.assert_clean()
    page.page.go_back()
    page.settle()
    page.page.get_by_role("button", name="Compare 2").wait_for()


def test_foreign_text_is_shown_as_text(visit, moving):
    page = visit(at=moving)
    card = page.page.locator("[data-testid=stMarkdown]", has_text="alone").first
    # What cannot be seen is written out, and the joiner that keeps emoji apart is no part of the text.
    shown = card.inner_text().replace("\u2060", "")
    assert NASTY.replace("\u202e", "\\u202e").replace("\u200b", "\\u200b") in shown
    assert card.locator("b, a, em, code, del, .katex, img").count() == 0
    page.assert_clean()


def test_a_running_experiment_is_followed_without_a_click(visit, moving):
    page = visit(at=moving)
    page.page.get_by_text("step 60 of 120").wait_for()
    file = moving.experiments / "alone" / "status.json"
    before = files.read_object(file)
    page.cost()
    files.write_json(file, before | {"step": 90, "message": "training"})
    page.page.get_by_text("step 90 of 120").wait_for(timeout=20_000)
    assert page.cost() <= browsing.CLICK
    files.write_json(file, before | {"state": "failed", "message": "no memory"})
    # The rest of the page learns of it as well.
    page.page.get_by_text("1 run that ended early").wait_for(timeout=20_000)
    page.settle()
    assert page.page.get_by_role("button", name="Stop").count() == 0
    files.write_json(file, before)
    page.assert_clean()


def test_a_thousand_experiments_are_within_the_budgets(visit, crowd):
    page = visit(at=crowd)
    page.page.get_by_text("1,000 experiments").wait_for()
    page.page.get_by_text("20 folders with a problem").wait_for()
    assert page.cost() <= browsing.FIRST_LOAD
    tick(page, 0)
    assert page.cost() <= browsing.CLICK
    tick(page, 2)
    assert page.cost() <= browsing.CLICK
    search = page.page.get_by_placeholder("name, data, model, group …")
    search.fill("group-7")
    search.press("Enter")
    page.settle()
    assert page.cost() <= browsing.CLICK
    assert "find=group-7" in page.query()
    page.assert_clean()
    page.assert_fits()
    assert page.longest_task() < 5


@pytest.mark.parametrize("width", [800, 1280, 1920])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_an_empty_folder_says_how_to_begin(visit, empty, width, dark):
    page = visit(at=empty, width=width, dark=dark)
    page.page.get_by_text("There is no experiment here yet").wait_for()
    page.page.get_by_label("Settings").wait_for()
    page.assert_clean()
    page.assert_fits()


def test_a_start_that_is_refused_says_why(visit, serve, tmp_path):
    """From the form through `run_experiment.py` and back."""
    page = visit(at=serve(tmp_path / "experiments"))
    page.page.get_by_label("Name").fill("first")
    settings = page.page.get_by_label("Settings")
    settings.fill("model_name: pocket\ndataset: nowhere.json\n")
    page.page.get_by_role("button", name="Start", exact=True).click()
    page.page.get_by_text("first did not start").wait_for(timeout=60_000)
    page.page.get_by_text("nowhere.json").last.wait_for()
    page.page.get_by_role("button", name="Dismiss").click()
    page.page.get_by_text("first did not start").wait_for(state="detached")
    page.assert_clean()
