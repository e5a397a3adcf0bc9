"""Attribution without a browser: every choice, what is said, what is kept, and what cannot be explained."""

import json
import re

import numpy as np
import pyarrow
import pytest

import asked
from asked import CONTEXT, HOSTILE, QUESTION, run
from dashboard.charts import heads
from dashboard.charts.attribution import contrast_chart, deletion_curves
from dashboard.charts.looks import DARK, LIGHT
from dashboard.data import attribution
from dashboard.data.attribution import SOURCES, gold_of
from dashboard.wording import plain
from probes.agreement import MEASURES
from probes.attribution import METHODS, attribute
from probes.contrast import contrast
from probes.contrast_files import finding
from probes.embedded import BASELINES
from probes.faithfulness import LABELS
from probes.targets import NAMES, Asked, Target
from qa.experiment import Experiment
from qa.reader import Reader
from qa.squad import Question

TYPED = {"question": QUESTION, "context": CONTEXT}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return asked.furnish(tmp_path_factory.mktemp("attribution") / "experiments")


@pytest.fixture
def page_of(open_page, root):
    def start(at=root, **query):
        page = open_page("attribution", at, **query)
        assert not page.exception
        return page

    return start


def said(page):
    kinds = ("title", "subheader", "markdown", "caption", "info", "error", "warning", "code", "html")
    found = [str(one.value) for kind in kinds if kind != "html" for one in page.get(kind)]
    found += [one.proto.body for one in page.get("html")]
    return "\n".join([*found, *(one.label for one in page.get("status"))])


def charts(page):
    found = {}
    for one in page.get("vega_lite_chart"):
        rows = [pyarrow.ipc.open_stream(data.data.data).read_pandas() for data in one.proto.datasets]
        found[one.proto.id.rsplit("-", 1)[-1]] = (json.loads(one.proto.spec), rows)
    return found


def drawn(page):
    """Specifications of all charts; those without a selection have no key."""
    return [one.proto.spec for one in page.get("vega_lite_chart")]


def is_masked(page):
    return any("words masked" in spec for spec in drawn(page))


def choose(page, key, value):
    page.selectbox(key=key).set_value(value)
    return run(page)


def test_the_attribution_is_the_one_of_probes(page_of, root):
    page = page_of(experiment="tiny", **TYPED)
    question = Asked.of(Reader.of(Experiment(root / "tiny")), QUESTION, CONTEXT)
    found = attribute(question, Target())
    first = found.words()[int(found.word_scores.argmax())].text
    assert f"**{plain(first)}** ({found.word_scores.max():+.3g})" in said(page)
    status = "\n".join(one.label for one in page.get("status"))
    assert f"{found.steps} steps; convergence delta" in status
    assert "Does a head look where the gradients point?" in said(page)


def test_the_map_holds_the_agreement_of_every_head(page_of):
    page = page_of(experiment="tiny", **TYPED)
    (spec, tables) = charts(page)["attribution_heads_tiny"]
    (rows,) = (table for table in tables if "value" in table)
    assert len(rows) == 4
    assert set(rows["sign"]) <= {"", "•"}
    assert heads.PICKED in json.dumps(spec)
    for name in MEASURES:
        page.segmented_control(key="agreement").set_value(name)
        page = run(page)
        assert "corrected p" in said(page)


def test_every_choice(page_of):
    page = page_of(experiment="tiny", **TYPED)
    for method in METHODS:
        page = choose(page, "method", method)
    page = choose(page, "method", "gradient_x_input")
    for key, values in {
        "target": ["runner_up", "no_answer", "predicted"],
        "against": ["no_answer", "nothing"],
        "score": ["start", "end", "sum"],
        "baseline": [*BASELINES],
        "place": ["input of layer 1", "embedding output"],
        "beside": [*SOURCES],
    }.items():
        for value in values:
            page = choose(page, key, value)
            assert not page.error
    assert "By layer" in said(page)
    assert page.query_params["layer"]
    page = choose(page, "attribution_head_box", 1)
    assert "head 1, from the answer" in said(page)


def test_a_target_against_itself_is_refused_in_a_line(page_of):
    page = page_of(experiment="tiny", **TYPED)
    page = choose(page, "against", "predicted")
    assert "against itself is always 0" in page.error[0].value.replace("\\", "")


def test_masking_waits_for_a_button_and_is_kept(page_of, monkeypatch):
    page = page_of(experiment="tiny", **TYPED)
    assert not is_masked(page)
    page.button(key="mask_tiny").click()
    page = run(page)
    assert is_masked(page)
    assert not [one for one in page.button if one.key == "mask_tiny"]
    (table,) = (one.value for one in page.table)
    assert list(table)[1:] == [*LABELS.values()]
    assert len(table) == 6
    page.segmented_control(key="masked").set_value("only")
    assert any("only the first words left (higher is better)" in spec for spec in drawn(run(page)))
    page.segmented_control(key="masked").set_value("without")
    page = run(page)
    monkeypatch.setattr(attribution, "faithfulness", lambda *_, **__: pytest.fail("it was not kept"))
    assert is_masked(run(page))


def test_what_was_found_is_kept(page_of, monkeypatch):
    page = page_of(experiment="tiny", **TYPED)
    for name in ("attribute", "captured", "agree"):
        monkeypatch.setattr(attribution, name, lambda *_, **__: pytest.fail("it was not kept"))
    page = choose(page, "beside", "rollout")
    assert "By attention rollout" in said(page)


def test_two_experiments_side_by_side_share_a_scale(page_of):
    page = page_of(experiment="tiny", other="bert", **TYPED)
    found = charts(page)
    assert {"attribution_heads_tiny", "attribution_heads_bert"} <= set(found)
    domains = [
        json.dumps(
            [
                layer["encoding"]["color"]["scale"]["domain"]
                for layer in found[key][0]["layer"]
                if "color" in layer["encoding"]
            ]
        )
        for key in ("attribution_heads_tiny", "attribution_heads_bert")
    ]
    assert domains[0] == domains[1]


def test_a_validation_question_can_be_explained_by_its_gold_answer(page_of, root):
    questions = Experiment(root / "tiny").validation_questions().questions
    one = next(question for question in questions if question.answers)
    none = next(question for question in questions if not question.answers)
    page = page_of(experiment="tiny", id=one.id)
    assert NAMES["gold"] in page.selectbox(key="target").options
    page = choose(page, "target", "gold")
    assert not page.error
    page = page_of(experiment="tiny", id=none.id)
    assert NAMES["gold"] not in page.selectbox(key="target").options
    assert gold_of(Question("", "", "", "", "a b", ("b", "a"), (-1, 0))) == (0, 1)
    assert gold_of(None) is None


def test_hostile_text_is_shown_as_it_is(page_of):
    page = page_of(experiment="tiny", question="Where did it <i>sit</i>?", context=HOSTILE)
    assert "<script>" not in said(page)
    assert "&lt;script&gt;" in re.sub(r"</?span[^<>]*>", "", said(page))


def test_a_model_that_is_not_there_and_no_experiment(page_of, tmp_path):
    page = page_of(experiment="predictions", **TYPED)
    assert "has no model" in said(page).replace("\\", "")
    page = page_of(tmp_path)
    assert "There is no experiment yet" in said(page)


def test_a_context_without_any_answer(page_of):
    page = page_of(experiment="bert", question="Who?", context="\u200b")
    assert "no token that could be an answer" in said(page).replace("\\", "")


def test_the_summary_of_the_experiment_is_shown_and_its_problems(page_of, tmp_path):
    root = asked.furnish(tmp_path / "experiments")
    assert "python -m probes contrast bert" in said(page_of(root, experiment="bert", **TYPED))
    experiment = Experiment(root / "bert")
    made = contrast(experiment, experiment.validation_questions())
    page = page_of(root, experiment="bert", **TYPED)
    assert finding(made.rows) in said(page)
    for measure, better in (("sufficiency", "lower"), ("comprehensiveness", "higher")):
        page.segmented_control(key="contrast").set_value(measure)
        page = run(page)
        assert any(f"{measure} ({better} is better)" in spec for spec in drawn(page))
    made.path.write_bytes(made.path.read_bytes()[:-7])
    assert "cut short" in said(page_of(root, experiment="bert", **TYPED))


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_curves_and_dots(look):
    shares = np.array([0, 0.05, 0.5, 1.0])
    lines = {"one": np.array([1, 0.5, 0.2, 0]), "two": np.array([1, 0.9, 0.5, 0])}
    spec = deletion_curves(
        lines, np.array([[1, 0.4, 0.1, 0], [1, 1, 0.6, 0]]), shares, title="words", look=look
    ).to_dict()
    tables = [*spec["datasets"].values()]
    assert {"share": 0.05, "probability": 0.9, "ranking": "two"} in [row for rows in tables for row in rows]
    assert {"share": 0.5, "low": 0.1, "high": 0.6} in [row for rows in tables for row in rows]
    rows = [
        {"method": "one", "mean": 0.5, "low": 0.4, "high": 0.6, "is_random": False},
        {"method": "chance", "mean": 0.2, "low": None, "high": None, "is_random": True},
    ]
    spec = contrast_chart(rows, title="measure (higher is better)", look=look).to_dict()
    shown = [row for table in spec["datasets"].values() for row in table]
    assert {**rows[1], "low": 0.2, "high": 0.2} in shown
    assert "higher is better" in json.dumps(spec)
