"""Compare in a browser: every part within its budgets, a click on the two by two, foreign text, a crowd."""

import re

import pytest

import browsing
import comparisons
import small_runs
from qa.comparison import compare
from qa.experiment import Experiment
from qa.importing import import_predictions
from qa.metrics import read_predictions
from qa.squad import load_questions

PARTS = ("Scores", "Questions", "Slices", "Curves", "Settings", "Seeds", "Export")
SYSTEMS = ("r-net-plus", "bert-ensemble")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, serve):
    """Trained experiments in two seed groups, some on hostile questions, some on other data."""
    root = tmp_path_factory.mktemp("compared") / "experiments"
    questions = load_questions("pocket", "validation").limited(80)
    for rate in (1e-5, 1e-4):
        for seed in (1, 2, 3):
            share = 0.4 + 0.1 * seed + 1000 * rate
            name = f"lr-{rate:g}-seed-{seed}"
            group = f"lr-{rate:g}"
            comparisons.trained(
                root, name, questions, share=share, seed=seed, group=group, learning_rate=rate
            )
    for seed, name in enumerate(("hostile", "hostile-twin")):
        comparisons.trained(root, name, comparisons.hostile(), share=0.5, seed=seed)
    return serve(root)


@pytest.fixture(scope="module")
def systems(tmp_path_factory, serve, squad_dir):
    """Two systems on SQuAD's development set."""
    root = tmp_path_factory.mktemp("systems") / "experiments"
    questions = load_questions(str(squad_dir / "dev-v1.1.json"))
    for name in SYSTEMS:
        answers = read_predictions(squad_dir / "predictions" / f"{name}-v1.1.json")
        import_predictions(answers, questions, root=root, name=name, source=name)
    return serve(root)


RUNS = "lr-1e-05-seed-1,lr-1e-05-seed-2,lr-0.0001-seed-3"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_part_is_clean_and_within_the_budgets(visit, compared, part, dark):
    page = visit("compare", at=compared, dark=dark, runs=RUNS, part=part)
    page.page.get_by_role("heading", name="Compare", exact=True).wait_for()
    page.assert_clean()
    page.assert_fits()
    assert 0 < page.cost() <= browsing.FIRST_LOAD
    assert page.page.locator("[data-testid=stVegaLiteChart]").count() <= 3
    assert page.longest_task() < 5


@pytest.mark.parametrize("width", [800, 1920])
def test_every_part_fits_narrow_and_wide(visit, compared, width):
    page = visit("compare", at=compared, width=width, runs=RUNS)
    for part in PARTS:
        page.page.get_by_role("radio", name=part, exact=True).click()
        page.settle()
        page.assert_fits()
        assert page.cost() <= browsing.FIRST_LOAD
    page.assert_clean()


def test_a_change_of_part_costs_a_click_and_is_in_the_address(visit, compared):
    page = visit("compare", at=compared, runs=RUNS)
    page.cost()
    for part in PARTS[1:]:
        page.page.get_by_role("radio", name=part, exact=True).click()
        page.settle()
        assert page.cost() <= browsing.CLICK, part
        assert f"part={part}" in page.query()
    page.page.reload()
    page.settle()
    page.page.get_by_role("button", name="Report (HTML)").wait_for()


def test_a_click_on_a_cell_shows_its_questions(visit, systems):
    page = visit("compare", at=systems, runs=",".join(SYSTEMS), part="Questions")
    found = compare(*(Experiment(systems.experiments / name) for name in SYSTEMS))
    _, first, second, _ = found.right
    chart = page.page.locator(".st-key-compare_quadrants")
    for count, name in ((second, SYSTEMS[1]), (first, SYSTEMS[0])):
        page.cost()
        chart.locator("svg text", has_text=re.compile(f"^{count}$")).click()
        page.settle()
        page.page.get_by_text(f"{count} questions of {sum(found.right):,}").wait_for()
        assert page.page.get_by_role("radio", name=f"right only in {name}").is_checked()
        assert page.cost() <= browsing.CLICK
    page.assert_clean()


def test_pages_of_questions_and_the_way_to_ask(visit, systems):
    page = visit("compare", at=systems, runs=",".join(SYSTEMS), part="Questions")
    first = page.page.get_by_role("link", name="Ask this question").first.get_attribute("href")
    assert re.search(r"^/?ask\?experiment=r-net-plus", first)
    assert "other=bert-ensemble" in first
    assert "id=" in first
    page.cost()
    page.page.get_by_role("button", name="Page 2", exact=True).click()
    page.settle()
    assert page.cost() <= browsing.CLICK
    assert page.page.get_by_role("link", name="Ask this question").first.get_attribute("href") != first
    page.assert_clean()


def test_official_scores_are_on_the_page(visit, systems):
    page = visit("compare", at=systems, runs=",".join(SYSTEMS))
    text = page.text()
    assert "86.63 %" in text
    assert "92.24 %" in text
    assert "+2.45 points" in text
    page.assert_clean()


def test_foreign_texts_are_shown_as_text(visit, compared):
    page = visit("compare", at=compared, runs="hostile,hostile-twin", part="Questions")
    page.page.get_by_text("number 3 ends.").wait_for()
    text = page.text()
    assert "<img src=x onerror=alert(1)> **bold** [a](http://b) $x^2$ :smile: datum.value" in text
    assert r"\u200b\u202eabc\x07 שלום" in text
    assert page.page.locator("[data-testid=stHtml]").locator("img, b, a, i").count() == 0
    for part in PARTS:
        page.page.get_by_role("radio", name=part, exact=True).click()
        page.settle()
    page.assert_clean()


def test_every_export_is_downloaded_and_the_report_asks_for_nothing(visit, compared, chromium, tmp_path):
    page = visit("compare", at=compared, runs=RUNS, part="Export")
    saved = {}
    for label in (
        "Scores (CSV)",
        "Scores (LaTeX)",
        "Settings (CSV)",
        "Slices (CSV)",
        "Every answer (CSV)",
        "Report (HTML)",
    ):
        with page.page.expect_download() as waiting:
            page.page.get_by_role("button", name=label).click()
        saved[label] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(saved[label])
        assert saved[label].stat().st_size > 100
    page.assert_clean()
    context = chromium.new_context(color_scheme="dark")
    asked, errors = [], []
    context.on("request", lambda request: asked.append(request.url))
    context.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    report = context.new_page()
    report.goto(saved["Report (HTML)"].as_uri())
    assert report.locator("svg").count() >= 5
    assert report.locator("h2").first.inner_text() == "Scores: all questions, 80"
    context.close()
    assert asked == [saved["Report (HTML)"].as_uri()]
    assert errors == []


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, serve):
    return serve(comparisons.many(tmp_path_factory.mktemp("crowd") / "experiments"))


def test_a_thousand_experiments(visit, crowd):
    page = visit("compare", at=crowd, runs="run-0018,run-0019")
    page.page.get_by_text("20 folders of 1,000 with a problem").wait_for()
    assert "10,000 questions on 2,000 paragraphs" in page.text()
    assert page.cost() <= browsing.FIRST_LOAD
    for part in ("Questions", "Slices"):
        page.page.get_by_role("radio", name=part, exact=True).click()
        page.settle()
        assert page.cost() <= browsing.CLICK
    page.assert_clean()
    again = visit("compare", at=crowd, runs="run-0018,run-0019,run-0038,run-0990")
    assert "run-0990 cannot be paired" in again.text()
    again.assert_clean()
    again.assert_fits()


@pytest.fixture(scope="module")
def unlike(tmp_path_factory, serve):
    """A small model on questions of its own, and answers to others."""
    root = tmp_path_factory.mktemp("unlike") / "experiments"
    small_runs.imported(root, "model")
    others = load_questions(str(small_runs.write_questions(root.parent / "other.json", paragraphs=5, seed=6)))
    import_predictions(
        comparisons.answers(others, share=0.5, seed=1), others, root=root, name="texts", source="x"
    )
    return serve(root)


def test_an_evaluation_on_common_data_from_the_page(visit, unlike):
    page = visit("compare", at=unlike, runs="texts,model")
    page.page.get_by_text("cannot be paired with").wait_for()
    assert page.page.get_by_text("McNemar's exact test", exact=True).count() == 0
    page.page.get_by_role("button", name="Evaluate model").click()
    page.page.get_by_text("Evaluating model on other.json").wait_for()
    page.page.get_by_text("McNemar's exact test", exact=True).wait_for(timeout=180_000)
    page.settle()
    assert page.page.get_by_text("cannot be paired with").count() == 0
    assert "10 questions on 5 paragraphs" in page.text()
    page.assert_clean()
