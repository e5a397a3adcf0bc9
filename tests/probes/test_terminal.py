"""The conversation: wrong entries are asked again, it can be left at any prompt, it goes on as asked."""

import io
import json
import shutil

import pytest

import small_runs
import tiny_models
from probes.terminal import converse, report
from qa.errors import UserError
from qa.experiment import Experiment
from qa.importing import import_predictions
from qa.squad import load_questions

COLOR, CAT = "My favorite color is red.", "The cat sat on the mat in Denver while the river rose in 1745."
# Experiment, question, context; see attentions, from layer, to layer, single heads; another question.
SCRIPT = ("one", "Which color?", COLOR, "y", "0", "1", "1", "y", "Who sat?", "", "n", "n")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two models, one called by a number; predictions, a broken folder, a run that was killed."""
    root = tmp_path_factory.mktemp("terminal") / "experiments"
    small_runs.imported(root, "one")
    small_runs.imported(root, "1")
    questions = load_questions(str(root.parent / "q.json"))
    import_predictions({}, questions, root=root, name="theirs", source="them")
    (root / "broken").mkdir()
    (root / "broken" / "config.yaml").write_text("batch_size: [\x1b")
    (root / "training").mkdir()
    (root / "training" / "config.yaml").write_text("epochs: 1\n")
    status = {"state": "running", "updated": "2020-01-01T00:00:00+00:00", "pid": 1}
    (root / "training" / "status.json").write_text(json.dumps(status))
    (root / "training" / "environment.json").write_text("{}")
    return root


@pytest.fixture
def drawn(root):
    """What would be drawn: (experiment, layer, head) of each picture."""
    calls = []

    def draw(view, layer, head, *, title, caption):
        assert f"layer {layer}" in title
        calls.append((title.partition(":")[0], layer, head))
        return f"{caption[0]}".encode()

    yield calls, draw
    for folder in root.glob("*/attentions_vis"):
        shutil.rmtree(folder)


def converse_with(monkeypatch, root, draw, entries):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{entry}\n" for entry in entries)))
    converse(root, draw)


def test_a_conversation(root, drawn, monkeypatch, capsys):
    calls, draw = drawn
    converse_with(monkeypatch, root, draw, SCRIPT)
    assert calls == [("one", 0, None), ("one", 0, 1), ("one", 1, None), ("one", 1, 1)]
    folder = root / "one" / "attentions_vis"
    assert (folder / "layer_1_head_1.png").read_text() == "Question: Which color?"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Experiments in {root}:"
    assert [line.split()[:2] for line in lines[1:6]] == [
        ["1", "1"],
        ["2", "broken"],
        ["3", "one"],
        ["4", "theirs"],
        ["5", "training"],
    ]
    assert lines[1].split()[2] == "EM"
    assert "config.yaml" in lines[2]
    assert lines[4].endswith("cannot answer: no model (imported predictions, or moved)")
    assert lines[5].endswith("cannot answer: no model (interrupted)")
    assert "one: 2 layers of 2 heads, counted from 0" in lines
    assert "Context (enter: the same as before): " in lines
    assert f"saved {folder / 'layer_0.png'}" in lines
    assert [line for line in lines if line.startswith("Question:  ")] == [
        "Question:            Which color?",
        "Question:            Who sat?",
    ]


WRONG = {
    0: [
        ("", "experiment: ''; enter a number from 1 to 5, or a listed name"),
        ("6", "experiment: '6'; enter"),
        ("../one", "experiment: '../one'; enter"),
        ("theirs", "experiment 'theirs' has no model"),
        ("broken", "config.yaml"),
        ("5", "experiment 'training' has no model yet (interrupted)"),
    ],
    1: [("", "question: it is empty; give some text"), (" \t ", "question: it is empty")],
    2: [("", "context: it is empty; give some text")],
    3: [("perhaps", "'perhaps': enter y or n"), ("\x1b[A", r"'\x1b[A': enter y or n")],
    4: [("2", "layers: '2'; there are 0 to 1"), ("-1", "layers: '-1'"), ("x", "layers: 'x'")],
    5: [("2", "layers: '2'; there are"), ("0-1", "layers: '0-1'; enter one number from 0 to 1")],
    6: [("2", "heads: '2'; there are 0 to 1"), ("0-9999999999", "heads: '0-9999999999'")],
    7: [("quit", "'quit': enter y or n")],
}


def test_wrong_entries_are_asked_again(root, drawn, monkeypatch, capsys):
    calls, draw = drawn
    entries = [
        entry
        for place, right in enumerate(SCRIPT)
        for entry in (*(wrong for wrong, _ in WRONG.get(place, ())), right)
    ]
    converse_with(monkeypatch, root, draw, entries)
    assert calls == [("one", 0, None), ("one", 0, 1), ("one", 1, None), ("one", 1, 1)]
    lines = capsys.readouterr().out.splitlines()
    for wrong, message in (pair for pairs in WRONG.values() for pair in pairs):
        assert any(message in line for line in lines), wrong
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("count", range(len(SCRIPT)))
def test_the_input_may_end_at_every_prompt(root, drawn, monkeypatch, count):
    with pytest.raises(EOFError):
        converse_with(monkeypatch, root, drawn[1], SCRIPT[:count])


@pytest.mark.parametrize("count", range(len(SCRIPT)))
def test_ctrl_c_at_every_prompt(root, drawn, monkeypatch, count):
    entries = iter(SCRIPT[:count])

    def type_or_interrupt(prompt):
        for entry in entries:
            return entry
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", type_or_interrupt)
    with pytest.raises(KeyboardInterrupt):
        converse(root, drawn[1])


@pytest.mark.parametrize(
    ("layers", "heads", "expected"),
    [
        (["", ""], "", [(0, None), (1, None)]),
        (["1", ""], "", [(1, None)]),
        (["0", "0"], "none", [(0, None)]),
        (["0-1"], "", [(0, None), (1, None)]),
        (["all"], "all", [(0, None), (0, 0), (0, 1), (1, None), (1, 0), (1, 1)]),
    ],
)
def test_which_layers_and_heads(root, drawn, monkeypatch, layers, heads, expected):
    calls, draw = drawn
    converse_with(monkeypatch, root, draw, ["one", "Which color?", COLOR, "", *layers, heads, "n"])
    assert [place for _, *place in calls] == [list(place) for place in expected]


def test_a_name_that_is_a_number_is_taken_by_its_place(root, drawn, monkeypatch, capsys):
    converse_with(monkeypatch, root, drawn[1], ["3", "Who?", CAT, "n", "n"])
    assert "one: 2 layers of 2 heads" in capsys.readouterr().out
    converse_with(monkeypatch, root, drawn[1], ["1", "Who?", CAT, "n", "n"])
    assert "1: 2 layers of 2 heads" in capsys.readouterr().out


def test_a_picture_that_cannot_be_written_is_no_reason_to_end(root, drawn, monkeypatch, capsys):
    (root / "one" / "attentions_vis").write_text("a file where the folder should be")
    entries = ["one", "Which color?", COLOR, "y", "0", "0", "", "y", "Who?", CAT, "n", "n"]
    try:
        converse_with(monkeypatch, root, drawn[1], entries)
    finally:
        (root / "one" / "attentions_vis").unlink()
    output = capsys.readouterr().out
    assert "attentions_vis: cannot be written" in output
    assert "Question:            Who?" in output


def test_a_model_that_cannot_be_read_is_no_reason_to_end(root, drawn, monkeypatch, capsys, tmp_path):
    small_runs.imported(tmp_path / "experiments", "one")
    spoilt = small_runs.imported(tmp_path / "experiments", "spoilt").path / "best_model"
    (spoilt / "model.safetensors").write_bytes(b"no weights")
    entries = ["spoilt", "one", "Who?", CAT, "n", "n"]
    converse_with(monkeypatch, tmp_path / "experiments", drawn[1], entries)
    assert "one: 2 layers of 2 heads" in capsys.readouterr().out


def test_nobody_who_could_answer(tmp_path, drawn):
    with pytest.raises(UserError, match=r"^no experiments in .*; make some with: .*make demo-experiments"):
        converse(tmp_path / "nothing", drawn[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^none of them can answer, as none has a model; make some with"):
        converse(tmp_path, drawn[1])


@pytest.mark.parametrize(
    ("layers", "heads", "expected"),
    [
        ("", "", []),
        ("0-1", "", [(0, None), (1, None)]),
        ("1", "0,1", [(1, None), (1, 0), (1, 1)]),
        ("", "1", [(0, None), (0, 1), (1, None), (1, 1)]),
    ],
)
def test_a_report(root, drawn, capsys, layers, heads, expected):
    calls, draw = drawn
    report(root, draw, name="one", texts=("Which color?", COLOR), layers=layers, heads=heads)
    assert [place for _, *place in calls] == [list(place) for place in expected]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Question:            Which color?"
    assert len([line for line in lines if line.startswith("saved ")]) == len(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "nobody"}, r"^no experiment 'nobody' in .*; there are: 1, broken, one"),
        ({"name": "../one"}, r"is not allowed"),
        ({"name": "theirs"}, r"^experiment 'theirs' has no model"),
        ({"texts": (" ", COLOR)}, r"^--question: it is empty"),
        ({"texts": ("Who?", "\n")}, r"^--context: it is empty"),
        ({"layers": "0-2"}, r"^--layers: '0-2'; there are 0 to 1"),
        ({"heads": "x"}, r"^--heads: 'x'; there are 0 to 1"),
        ({"layers": " "}, r"^--layers: nothing given"),
    ],
)
def test_a_report_that_cannot_be(root, drawn, capsys, changes, message):
    calls, draw = drawn
    arguments = {"name": "one", "texts": ("Who?", COLOR), "layers": "", "heads": ""} | changes
    with pytest.raises(UserError, match=message):
        report(root, draw, **arguments)
    assert (calls, capsys.readouterr().out) == ([], "")


def test_every_architecture_can_be_inspected(tmp_path, drawn, capsys):
    for architecture in tiny_models.ARCHITECTURES:
        root = tmp_path / architecture / "experiments"
        tiny_models.save(root.parent / "model", architecture)
        small_runs.imported(root, "one")
        report(root, drawn[1], name="one", texts=("Who?", CAT), layers="1", heads="")
        assert (Experiment(root / "one").path / "attentions_vis" / "layer_1.png").is_file()
