"""Two models' heads compared: distances on paper, heads that moved, vanished and appeared, and the file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import atlases
import small_runs
from probes.analyses import METADATA
from probes.atlas_difference import (
    Difference,
    Pair,
    _side,
    distances_of,
    find_differences,
    js_distances,
    make_difference,
    read_difference,
    shared_words,
)
from probes.atlas_processes import Processes
from probes.atlas_statistics import Means
from probes.maps import REGIONS, View
from qa.errors import UserError
from qa.experiment import Experiment


def distance(p, q):
    """In plain Python, of two rows."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        for x in (a, b):
            if x > 0:
                total += x / 2 * np.log2(2 * x / (a + b))
    return np.sqrt(total)


def test_distances_are_those_of_the_definition():
    draw = np.random.default_rng(0)
    first, second = (draw.dirichlet(np.full(7, 0.3), size=(n, 7)).astype(np.float32) for n in (3, 4))
    found = js_distances(first, second)
    assert found.shape == (3, 4)
    for a in range(3):
        for b in range(4):
            expected = np.mean([distance(first[a, row], second[b, row]) for row in range(7)])
            assert found[a, b] == pytest.approx(expected, abs=2e-4)
    one, other = np.eye(7, dtype=np.float32)[None], np.roll(np.eye(7, dtype=np.float32), 1, axis=1)[None]
    assert js_distances(one, one) == 0
    assert js_distances(one, other) == 1


def view(words, probabilities, chars):
    regions = np.array([REGIONS.index("[CLS]"), *[REGIONS.index("context")] * (len(words) - 1)])
    return View("word", probabilities, (0,), (0,), tuple(words), np.array(chars), regions, None)


def test_words_that_only_one_has_are_left_out():
    maps = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    first = view(["[CLS]", "a", "b"], maps, [(-1, -1), (0, 1), (2, 3)])
    second = view(["[CLS]", "a b"], np.ones((1, 1, 2, 2), np.float32), [(-1, -1), (0, 3)])
    ours, theirs = shared_words(first, second)
    assert ours.tolist() == theirs.tolist() == [[[1.0]]]
    ours, theirs = shared_words(first, first)
    np.testing.assert_allclose(ours, maps[0] / maps[0].sum(-1, keepdims=True))


def test_a_head_that_moved_is_found_and_one_that_is_gone_too():
    """[SEP] stands where "previous" stood; "same word" is gone, and "uniform" is there twice."""
    first = atlases.reader(atlases.planted(("previous", "[SEP]", "same word", "uniform")))
    second = atlases.reader(atlases.planted(("[SEP]", "previous", "uniform", "uniform")))
    _, distances = distances_of((first, second), atlases.questions().questions[0])
    assert distances.shape == (4, 4)
    assert distances.argmin(1).tolist()[:2] == [1, 0]
    assert distances[0, 1] < 1e-3
    assert distances[3, 2] < 1e-3
    assert distances[2].min() > 0.6
    assert distances[0, 0] > 0.9


@pytest.fixture
def pair(tmp_path):
    """A small model, and the same with the first head of the last layer turned around."""
    root = tmp_path / "experiments"
    here, other = (small_runs.imported(root, name) for name in ("here", "other"))
    from qa.model import load_encoder, save_encoder

    encoder = load_encoder(str(other.model_folder()))
    with torch.no_grad():
        layer = encoder.model.deberta.encoder.layer[1].attention.self
        layer.query_proj.weight[:16] *= -8
        layer.query_proj.bias[:16] *= -8
    save_encoder(encoder, other.model_folder())
    return here, other


def make(pair):
    questions = pair[0].validation_questions()
    return make_difference(
        Pair.of(*pair, questions, device="cpu"),
        stage=lambda name: lambda done, total: None,
        processes=Processes(),
    )


def test_the_table_says_which_heads_changed(pair):
    path = make(pair)
    found = read_difference(path)
    assert find_differences(pair[0]) == [path]
    assert (found.about["other"], found.about["questions"]) == ("other", 8)
    here, other = found.side("here"), found.side("other")
    assert len(here) == len(other) == 4
    assert here["place"].tolist() == other["place"].tolist()
    assert here["place"].tolist()[:2] == [0, 0]  # the first layer is the same, and so is its input
    assert here["place"].idxmax() == 2
    assert here["place"][2] > 0.5
    assert here["verdict"][2] in ("changed", "vanished")
    assert other["verdict"][2] in ("changed", "appeared")
    assert set(here["verdict"][:2]) == {""}
    assert (1, 0) in [*found.clear()["changed"], *found.clear()["vanished"]]
    assert (here["nearest"] <= here["place"]).all()
    assert (here["nearest_layer"][0], here["nearest_head"][0]) == (0, 0)


def test_each_verdict_is_said_once_of_the_side_it_is_of():
    verdicts = {
        "here": ["changed", "vanished", "", "changed"],
        "other": ["changed", "changed", "appeared", ""],
    }
    rows = [
        {"side": side, "layer": place // 2, "head": place % 2, "verdict": verdict}
        for side, column in verdicts.items()
        for place, verdict in enumerate(column)
    ]
    found = Difference(Path("none"), {}, pd.DataFrame(rows)).clear()
    assert found == {"changed": [(0, 0), (1, 1)], "vanished": [(0, 1)], "appeared": [(1, 0)]}


def test_another_architecture_is_compared_word_by_word(tmp_path):
    from tiny_models import save

    root = tmp_path / "experiments"
    here = small_runs.imported(root, "here")
    bert = save(tmp_path / "bert", "bert")
    from qa.importing import import_model

    settings = here.settings().changed(model_name=str(bert))
    other = import_model(str(bert), here.validation_questions(), root=root, name="bert", settings=settings)
    found = read_difference(make((here, other)))
    assert found.about["other_layers"] == 2
    assert found.side("here")["nearest"].between(0, 1).all()


def test_what_cannot_be_read_or_compared_is_refused(pair, tmp_path):
    with pytest.raises(UserError, match="that is the same experiment"):
        Pair.of(pair[0], Experiment(pair[0].path), pair[0].validation_questions())
    path = make(pair)
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[METADATA])
    for change in ({"other_layers": 1}, {"layers": None}):
        metadata = {METADATA: json.dumps({**header, "about": header["about"] | change})}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
        with pytest.raises(UserError, match="layers"):
            read_difference(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="another model"):
        read_difference(path, model="0" * 64)


def test_models_of_other_shapes_have_neighbours_but_no_places():
    value = np.array([[0.7, 0.2, 0.9], [0.6, 0.8, 0.7]])
    means = Means(value, value - 0.1, value + 0.1, np.full((2, 3), 5))
    columns = _side(means, "here", (1, 2), (3, 1))
    assert np.isnan(columns["place"]).all()
    assert columns["nearest"].tolist() == [0.2, 0.6]
    assert list(zip(columns["nearest_layer"], columns["nearest_head"], strict=True)) == [(1, 0), (0, 0)]
    assert columns["verdict"].tolist() == ["", "vanished"]
