"""Heads without a browser: every section with and without files, and files that cannot be used."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pyarrow
import pyarrow.parquet as pq
import pytest

import small_runs
import tiny_models
from dashboard.charts import heads, heads_atlas
from dashboard.charts.looks import LIGHT
from probes.analyses import find_analyses
from probes.atlas import Work, make_atlas
from probes.atlas_details import by_answerability, companion, read_pruning, read_questions
from probes.atlas_difference import Pair, make_difference
from probes.atlas_files import QUESTIONS, find_atlases, read_atlas
from probes.atlas_processes import Processes
from probes.atlas_snapshots import SNAPSHOT, Snapshots
from qa.errors import UserError
from qa.experiment import Experiment
from qa.training import train_experiment


def quiet(_name):
    return lambda done, total: None


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """`both` has everything, `other` an atlas, `bare` nothing, `watched` a training that was watched."""
    root = tmp_path_factory.mktemp("heads") / "experiments"
    both, other, _ = (small_runs.imported(root, name) for name in ("both", "other", "bare"))
    for experiment in (both, other):
        work = Work.of(experiment, experiment.validation_questions(), device="cpu")
        make_atlas(work, stage=quiet, processes=Processes())
    pair = Pair.of(both, other, both.validation_questions(), device="cpu")
    make_difference(pair, stage=quiet, processes=Processes())
    model = tiny_models.save(root.parent / "watched-model")
    chosen = small_runs.settings(model, epochs=1, limit_train=16, atlas_snapshots=4)
    watched = Experiment(root / "watched")
    train_experiment(chosen, root=root, name="watched", on_evaluation=Snapshots(watched).take)
    return root


@pytest.fixture
def page(open_page, root):
    def start(at=root, **query):
        page = open_page("heads", at, **query)
        assert not page.exception
        return page

    return start


def said(page):
    kinds = ("title", "subheader", "markdown", "caption", "info", "error", "warning", "code")
    return "\n".join(str(one.value) for kind in kinds for one in page.get(kind))


def rows_of(page):
    return [
        pyarrow.ipc.open_stream(data.data.data).read_pandas()
        for one in page.get("vega_lite_chart")
        for data in one.proto.datasets
    ]


def test_the_map_shows_the_numbers_of_the_file(page, root):
    shown = page(experiment="both", layer=1, head=0)
    assert "Layer 1, head 0" in said(shown)
    assert "8 questions" in said(shown)
    atlas = read_atlas(find_atlases(Experiment(root / "both"))[0])
    (table,) = [rows for rows in rows_of(shown) if "value" in rows]
    assert table["value"].tolist() == pytest.approx(atlas.heads["knockout"].tolist(), abs=1e-6)
    links = [one.proto.query_string for one in shown.get("page_link") if "attention" in one.proto.page]
    assert links
    assert all("experiment=both" in link and "layer=1" in link and "head=0" in link for link in links)


@pytest.mark.parametrize("section", ["Map", "List", "Scatter", "Pruning", "Training", "Compared"])
@pytest.mark.parametrize("name", ["both", "bare"])
def test_every_section_says_something(page, section, name):
    shown = page(experiment=name, heads_section=section)
    assert len(said(shown)) > 20
    if name == "bare":
        assert "python -m probes atlas bare" in said(shown)


def test_over_the_questions_with_and_without_an_answer(page, root):
    experiment = Experiment(root / "both")
    atlas = read_atlas(find_atlases(experiment)[0])
    parts = by_answerability(atlas, experiment.validation_questions().questions)
    shown = page(experiment="both", heads_part="without an answer")
    assert shown.segmented_control(key="heads_part").value == "without an answer"
    for title, part in (("without an answer", "unanswerable"), ("with an answer", "answerable")):
        shown.segmented_control(key="heads_part").set_value(title).run()
        assert not shown.exception
        (table,) = [rows for rows in rows_of(shown) if "value" in rows]
        assert table["value"].tolist() == pytest.approx(parts[part].heads["knockout"].tolist(), abs=1e-6)
        links = [one.proto.query_string for one in shown.get("page_link") if "attention" in one.proto.page]
        assert links
        assert all(f"id={id_}" not in link for link in links for id_ in atlas_ids(atlas) - parts[part].only)
    shown = page(experiment="both", heads_section="Pruning")
    assert not shown.get("segmented_control")[1:], "pruning is of all questions"


def test_a_damaged_file_of_questions_leaves_the_page(page, root, tmp_path):
    """Whatever column the damage is in, the numbers over all questions are still drawn."""
    copy = tmp_path / "experiments"
    shutil.copytree(root / "both", copy / "both")
    shutil.copytree(root / ".datasets", copy / ".datasets")
    experiment = Experiment(copy / "both")
    path = companion(read_atlas(find_atlases(experiment)[0]), QUESTIONS)
    place = pq.ParquetFile(path).metadata.row_group(0).column(3)
    assert place.path_in_schema.startswith("evenness")
    data = bytearray(path.read_bytes())
    begin = place.dictionary_page_offset or place.data_page_offset
    data[begin : begin + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    path.write_bytes(data)
    atlas = read_atlas(find_atlases(experiment)[0])
    with pytest.raises(UserError, match="damaged"):
        by_answerability(atlas, experiment.validation_questions().questions)
    shown = page(copy, experiment="both")
    assert [rows for rows in rows_of(shown) if "value" in rows]
    assert len(shown.get("segmented_control")) == 1


def atlas_ids(atlas):
    return set(read_questions(atlas, "entropy").ids)


def test_another_measure(page):
    shown = page(experiment="both")
    shown.selectbox(key="heads_measure").set_value("entropy").run()
    assert not shown.exception
    assert "bits" in said(shown)


def test_training_has_a_slider(page):
    shown = page(experiment="watched", heads_section="Training")
    steps = shown.select_slider(key="heads_step")
    assert steps.options == ["0", "1", "2"]
    steps.set_value(0).run()
    assert not shown.exception
    assert "4 validation questions" in said(shown)


def test_a_snapshot_that_cannot_be_used_is_named(page, root, tmp_path):
    copy = tmp_path / "experiments"
    shutil.copytree(root / "watched", copy / "watched")
    path = find_analyses(Experiment(copy / "watched"), SNAPSHOT)[0]
    path.write_bytes(path.read_bytes()[:-5])
    shown = page(copy, experiment="watched", heads_section="Training")
    assert "cut short" in said(shown)
    assert not shown.get("vega_lite_chart")


def test_compared_shows_distances_scores_and_roles(page):
    shown = page(experiment="both", other="other", heads_section="Compared")
    assert [metric.label for metric in shown.metric] == ["Exact match of other", "F1 of other"]
    assert "none changed or vanished" in said(shown)
    assert "same role, or none, in both" in said(shown)
    shown = page(experiment="both", other="watched", heads_section="Compared")
    assert "python -m probes atlas both --against watched" in said(shown)


def test_what_cannot_be_used_is_named_and_not_drawn(page, root, tmp_path):
    copy = tmp_path / "experiments"
    experiment = small_runs.imported(copy, "cut")
    folder = experiment.path / "analyses"
    folder.mkdir()
    whole = find_atlases(Experiment(root / "both"))[0]
    (folder / whole.name).write_bytes(whole.read_bytes()[:-7])
    shown = page(copy, experiment="cut")
    assert "cut short" in said(shown)
    assert not shown.get("vega_lite_chart")


def test_no_experiments(page, tmp_path):
    assert "no experiment yet" in said(page(tmp_path))


def test_the_pruning_curve_has_the_band_of_random_orders(root):
    pruning = read_pruning(read_atlas(find_atlases(Experiment(root / "both"))[0]))
    chart = heads_atlas.pruning_curve(pruning, look=LIGHT).to_dict()
    band = next(iter(rows for rows in chart["datasets"].values() if "low" in rows[0] and "high" in rows[0]))
    random = pruning[pruning["order"].str.startswith("random")]
    for row in band:
        own = random[random["removed"] == row["removed"]]["f1"]
        assert (row["low"], row["high"]) == (own.min(), own.max())
    assert "smallest |effect| removed first" in json.dumps(chart)


def test_layers_are_shades_in_their_order_and_names_do_not_lie_on_one_another():
    rows = pd.DataFrame(
        {
            "layer": [0, 1, 2, 3],
            "head": [0, 0, 0, 0],
            "role": ["next", "next", "", "next"],
            "a": [0.0, 0.001, 0.5, 1.0],
            "b": [0.0, 0.001, 0.5, 1.0],
        }
    )
    chart = heads_atlas.scatter(rows, "a", "b", titles=("x", "y"), look=LIGHT).to_dict()
    dots, labels = chart["layer"]
    color = dots["encoding"]["color"]
    assert color["type"] == "quantitative"
    assert (color["scale"]["domain"], color["legend"]["values"]) == ([0, 3], [0, 1, 2, 3])
    named = {row["name"] for row in chart["datasets"][labels["data"]["name"]]}
    assert named == {"1.0", "2.0", "3.0"}, "0.0 would lie under 1.0"


def test_a_dot_a_head(root):
    atlas = read_atlas(find_atlases(Experiment(root / "both"))[0])
    chart = heads_atlas.scatter(atlas.heads, "entropy", "knockout", titles=("x", "y"), look=LIGHT).to_dict()
    assert max(len(rows) for rows in chart["datasets"].values()) == 4
    assert heads.PICKED in json.dumps(chart["params"])


@pytest.mark.parametrize(
    ("section", "key", "experiment"),
    [
        ("Map", "heads_measure", "both"),
        ("List", "heads_list_measure", "both"),
        ("Scatter", "heads_x", "both"),
        ("Training", "heads_course_measure", "watched"),
    ],
)
def test_a_link_chooses_the_measure(page, section, key, experiment):
    shown = page(experiment=experiment, heads_section=section, **{key: "entropy"})
    assert shown.selectbox(key=key).value == "entropy"


def test_examples_of_other_data_are_ids_alone(page, root, tmp_path):
    """Ids of one file may be those of other questions in another."""
    shutil.copytree(root, tmp_path / "experiments")
    other = Experiment(tmp_path / "experiments" / "bare")
    known = other.validation_questions()
    asked = [replace(one, question="What else?") for one in known.questions]
    work = Work.of(other, known.subset(asked[:4]), device="cpu")
    make_atlas(work, stage=quiet, processes=Processes())
    shown = page(tmp_path / "experiments", experiment="bare", layer=1, head=0)
    assert f"{asked[0].id} (not among its validation questions)" in said(shown).replace("\\", "")
    assert "(not among its validation questions)" not in said(page(experiment="both", layer=1, head=0))
