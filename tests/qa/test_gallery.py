"""Each question has its own folder of pictures, however many ask at once and whatever lies there already."""

import os
import string
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa import files
from qa.errors import UserError
from qa.experiment import Experiment
from qa.gallery import FOLDER, OWNER, _name, picture_folder
from texts import awkward


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    return Experiment(tmp_path / "one")


def test_the_first_question_has_the_folder_and_every_other_one_its_own(experiment):
    first = picture_folder(experiment, "What colour?", "Red.")
    assert first == experiment.path / FOLDER
    assert files.read_json(first / OWNER) == {"question": "What colour?", "context": "Red."}
    others = [("Who?", "Red."), ("What colour?", "Blue."), ("what colour?", "Red."), ("What colour", "?Red.")]
    folders = [picture_folder(experiment, *texts) for texts in others]
    assert len({first, *folders}) == 5
    assert {folder.parent for folder in folders} == {first}
    again = [picture_folder(experiment, *texts) for texts in [("What colour?", "Red."), *others]]
    assert again == [first, *folders]
    assert files.read_json(folders[0] / OWNER) == {"question": "Who?", "context": "Red."}


def test_many_at_once_do_not_share_a_folder(experiment):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda n: picture_folder(experiment, f"Who is {n}?", "One."), range(16)))
    assert len(set(folders)) == 16
    assert experiment.path / FOLDER in folders


def test_pictures_that_nobody_marked_are_left_alone(experiment):
    folder = experiment.path / FOLDER
    folder.mkdir(parents=True)
    (folder / "layer_0.png").write_bytes(b"of somebody")
    assert picture_folder(experiment, "Who?", "One.").parent == folder
    assert not (folder / OWNER).exists()


@pytest.mark.parametrize("content", ["", "[]", '{"question": "Who?"}', "\x00"])
def test_a_broken_mark_is_somebody_elses(experiment, content):
    folder = experiment.path / FOLDER
    folder.mkdir(parents=True)
    (folder / OWNER).write_text(content)
    assert picture_folder(experiment, "Who?", "One.").parent == folder


def test_what_a_killed_program_left_is_removed_and_what_a_living_one_writes_is_not(experiment):
    folder = picture_folder(experiment, "Who?", "One.")
    dead, alive = folder / ".layer_0.png.999999999.0.tmp", folder / f".layer_1.png.{os.getpid()}.0.tmp"
    for file in (dead, alive):
        file.write_bytes(b"half a picture")
    assert picture_folder(experiment, "Who?", "One.") == folder
    assert not dead.exists()
    assert alive.exists()


def test_a_folder_that_cannot_be_written_is_one_clear_line(experiment):
    experiment.path.mkdir()
    (experiment.path / FOLDER).write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"attentions_vis: cannot be written \(File exists\)"):
        picture_folder(experiment, "Who?", "One.")


@given(awkward, st.text(max_size=80))
def test_whatever_the_question_the_name_is_safe_for_any_file_system(question, context):
    name = _name({"question": question, "context": context})
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
    assert len(name) <= 64
    assert name[0] != "-"
    assert name != _name({"question": question + "x", "context": context})
