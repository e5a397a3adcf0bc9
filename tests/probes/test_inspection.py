"""What a terminal is told of an answer, and which pictures are saved where; what draws them is a stand-in."""

import numpy as np
import pytest

from probes.attend import attend
from probes.inspection import FEW_WINDOWS, Inspection
from probes.summaries import attended_words
from probing import CONTEXT, QUESTION, READING
from qa.errors import UserError
from qa.experiment import Experiment
from qa.reader import Reader

SHORT = "My favorite color is red, and her favorite color is blue."


class Drawn:
    """Draws nothing, and remembers what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, view, layer, head, *, title, caption):
        self.calls.append((view, layer, head, title, list(caption)))
        return f"picture {len(self.calls)}".encode()


@pytest.fixture
def drawn() -> Drawn:
    return Drawn()


@pytest.fixture
def inspection(tmp_path, reader_of, drawn) -> Inspection:
    return Inspection(Experiment(tmp_path / "one"), reader_of("deberta-v3"), drawn, 2, 2)


def test_answer_main_attended_word_and_the_five_next(inspection, capsys):
    attended = inspection.answer(QUESTION, SHORT)
    words = attended_words(attend(inspection.reader, QUESTION, SHORT).window())
    first, *others = [f"{word.text} ({word.weight:.1%})" for word in words]
    assert len(others) > 5
    answer = inspection.reader.answer(QUESTION, SHORT)
    assert attended.answer == answer
    assert capsys.readouterr().out.splitlines() == [
        "",
        f"Question:            {QUESTION}",
        f"Answer:              {answer.text} (probability {answer.probability:.3f})",
        f"Main attended token: {first}",
        f"The five next:       {', '.join(others[:5])}",
    ]


def test_a_refused_question_attends_to_nothing(inspection, drawn, capsys):
    strict = Inspection(inspection.experiment, Reader(inspection.reader.encoder, READING, 0.0), drawn, 2, 2)
    attended = strict.answer(QUESTION, CONTEXT)
    output = capsys.readouterr().out
    assert "Answer:              (no answer) (probability " in output
    assert "Main attended token: (none: there is no answer)" in output
    assert "The five next:       (none)" in output
    strict.save(attended, [0], [])
    assert drawn.calls[0][4][1].startswith("Answer: (no answer) (probability ")


def test_a_question_of_one_word_has_nothing_next(inspection, capsys):
    inspection.answer("Who", SHORT)
    output = capsys.readouterr().out
    assert "Main attended token: Who (100.0%)" in output
    assert "The five next:       (none)" in output


def test_hostile_text_is_printed_so_that_it_steers_nothing(inspection, capsys):
    inspection.answer("Who \x1b[2J said \u202eit\x07?", "The \x1b]0;owned\x07 cat sat \u202eon the mat. " * 3)
    output = capsys.readouterr().out
    assert r"Question:            Who \x1b[2J said \u202eit\x07?" in output
    assert not set(output) & {"\x1b", "\x07", "\u202e"}


def test_of_a_long_context_only_the_window_of_the_answer_is_captured(inspection, monkeypatch):
    every = attend(inspection.reader, QUESTION, CONTEXT)
    assert len(every.windows) > FEW_WINDOWS
    reads = []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda *a, **k: reads.append(1) or read(*a, **k))
    attended = inspection.answer(QUESTION, CONTEXT)
    assert len(reads) == 1
    assert attended.answer == every.answer
    assert len(attended.windows) == 1
    np.testing.assert_allclose(
        attended.window().probabilities.astype(np.float32),
        every.window().probabilities.astype(np.float32),
        rtol=0,
        atol=1e-3,
    )


def test_a_picture_of_each_layer_and_each_single_head(inspection, drawn, capsys):
    attended = inspection.answer(QUESTION, SHORT)
    capsys.readouterr()
    inspection.save(attended, [0, 1], [1])
    folder = inspection.experiment.path / "attentions_vis"
    names = ["layer_0.png", "layer_0_head_1.png", "layer_1.png", "layer_1_head_1.png"]
    assert [(layer, head) for _, layer, head, *_ in drawn.calls] == [(0, None), (0, 1), (1, None), (1, 1)]
    assert [folder.joinpath(name).read_text() for name in names] == [f"picture {n}" for n in (1, 2, 3, 4)]
    assert {file.name for file in folder.iterdir()} == {*names, "question.json", ".lock"}
    printed = capsys.readouterr().out.split("\n")
    assert printed == ["", *(f"saved {folder / name}" for name in names), ""]
    assert [title for *_, title, _ in drawn.calls[:2]] == ["one: layer 0", "one: layer 0, head 1"]
    for view, layer, *_ in drawn.calls:
        words = attended.window().by("word")
        assert (view.unit, view.layers, view.labels) == ("word", (layer,), words.labels)
        np.testing.assert_array_equal(view.probabilities[0], words.probabilities[layer])


def test_question_answer_and_window_are_in_the_caption(inspection, drawn):
    attended = inspection.answer(QUESTION, CONTEXT)
    answer = attended.answer
    inspection.save(attended, [0], [])
    assert drawn.calls[0][4] == [
        f"Question: {QUESTION}",
        f"Answer: {answer.text} (probability {answer.probability:.3f})",
        f"Window {answer.window + 1} of the {answer.windows} that the context is read in",
    ]
    inspection.save(inspection.answer(QUESTION, SHORT), [0], [])
    assert len(drawn.calls[1][4]) == 2


def test_no_picture_takes_the_place_of_another_questions(inspection, capsys):
    pairs = [(QUESTION, SHORT), ("Who wrote it?", SHORT), (QUESTION, SHORT + " So they say.")]
    for texts in (*pairs, *pairs):
        inspection.save(inspection.answer(*texts), [0], [])
    folder = inspection.experiment.path / "attentions_vis"
    pictures = {file.read_text() for file in folder.rglob("layer_0.png")}
    assert pictures == {"picture 4", "picture 5", "picture 6"}, "each drawn again, none lost"
    assert (folder / "layer_0.png").read_text() == "picture 4"
    assert capsys.readouterr().out.count("holds pictures of another question") == 4


def test_no_layers_no_folder(inspection, drawn):
    inspection.save(inspection.answer(QUESTION, SHORT), [], [0])
    assert not inspection.experiment.path.exists()
    assert not drawn.calls


def test_nowhere_to_write_is_one_clear_line(inspection):
    attended = inspection.answer(QUESTION, SHORT)
    inspection.experiment.path.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="attentions_vis: cannot be written"):
        inspection.save(attended, [0], [])
