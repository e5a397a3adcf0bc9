"""Which questions and which model a comparison takes."""

from pathlib import Path

from benchmarks import data
from benchmarks.comparison import Options
from benchmarks.models import POCKET, V3_BASE, Shape
from qa.model import load_encoder
from qa.squad import load_questions
from qa.windows import make_windows

TINY = Shape("tiny", layers=1, width=32, heads=2, buckets=8, vocabulary=600, lifted=True)


def test_the_given_data_before_squad_before_pocket(monkeypatch, tmp_path):
    monkeypatch.delenv("SQUAD_DIR", raising=False)
    assert data.find_dataset(Options(tmp_path), "train") == "pocket"
    monkeypatch.setenv("SQUAD_DIR", "squad")
    assert data.find_dataset(Options(tmp_path), "train") == str(Path("squad", "train-v1.1.json"))
    assert data.find_dataset(Options(tmp_path), "validation") == str(Path("squad", "dev-v1.1.json"))
    assert data.find_dataset(Options(tmp_path, dataset="own.json"), "train") == "own.json"


def test_names_for_the_report():
    assert data.name_of("pocket", "train") == "pocket's train questions"
    assert data.name_of(str(Path("a", "dev-v1.1.json")), "validation") == "dev-v1.1.json"


def test_the_given_model_before_pocket_before_a_stand_in(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "POCKET_MODEL", tmp_path)
    assert data.find_model(Options(tmp_path, model="own"), POCKET) == "own"
    assert data.find_model(Options(tmp_path), POCKET) is None
    (tmp_path / "config.json").touch()
    assert data.find_model(Options(tmp_path), POCKET) == "pocket"
    assert data.find_model(Options(tmp_path), V3_BASE) is None


def test_a_stand_in_reads_its_questions(tmp_path):
    questions = load_questions("pocket", "validation").limited(20)
    name = data.checkpoint(None, shape=TINY, questions=questions, scratch=tmp_path)
    encoder = load_encoder(name)
    assert encoder.model.config.position_buckets == 8
    windows = make_windows(questions.questions, encoder.tokenizer, max_length=128, stride=32)
    assert len(windows) >= 20
    unknown = encoder.tokenizer.unk_token_id
    assert (windows.ids == unknown).mean() < 0.01
    assert windows.cls.tolist() == [0] * len(windows)
    assert data.checkpoint("own", shape=TINY, questions=questions, scratch=tmp_path) == "own"
