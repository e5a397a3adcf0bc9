"""The page against BertViz: its words, the maps that BertViz is given, what is said where it cannot run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import small_runs
from benchmark_cases import Counting, case
from benchmarks import __main__ as command
from benchmarks import page
from benchmarks.comparison import Options, UnavailableError, compare
from benchmarks.memory import peak_mb
from benchmarks.report import table
from probes.attend import attend
from qa.reader import Reader

STAND_IN = """
import json
from types import SimpleNamespace


def model_view(layers, tokens, html_action):
    assert html_action == "return"
    assert all(layer.shape[0] == 1 for layer in layers)
    return SimpleNamespace(data=json.dumps([tokens, [layer[0].tolist() for layer in layers]]))
"""


@pytest.fixture
def showing(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "LARGE", replace(page.LARGE, layers=2, heads=2, width=16, vocabulary=120))
    data = small_runs.write_questions(tmp_path / "dev.json", paragraphs=2, seed=3)
    (time, _) = page.cases(Options(tmp_path, dataset=str(data)))
    return time


def test_the_cases_are_time_and_bytes():
    time, size = page.cases(Options(Path("scratch"), dataset="dir/dev.json"))
    assert time.what == "from the link to the picture, 12 × 12 heads at 384 tokens of dev.json"
    assert size.what == "bytes to the browser, 12 × 12 heads at 384 tokens of dev.json"
    assert (time.quantity, size.quantity) == ("seconds", "bytes")
    assert "not shown" in time.against


def test_bertviz_is_given_the_maps_of_the_page(showing, tmp_path, monkeypatch):
    (tmp_path / "bertviz.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(page, "environment", lambda folder: Path(sys.executable))
    work, html = showing.prepare("theirs"), tmp_path / "model_view.html"
    seen = []
    monkeypatch.setattr(Path, "unlink", lambda path: seen.append(path.read_text()))
    assert work() == html.stat().st_size
    experiment, question = page.material(showing.dataset, showing.scratch)
    tokens, maps = __import__("json").loads(seen[0])
    window = attend(Reader.of(experiment), question.question, question.context).window()
    assert tuple(tokens) == window.tokens
    np.testing.assert_allclose(maps, window.probabilities, atol=1e-3)


def test_where_it_cannot_be_installed_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(page.venv, "create", lambda folder, with_pip: None)
    failed = SimpleNamespace(returncode=1, stderr="a\nERROR: no such registry\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        UnavailableError, match=r"^bertviz==1\.4\.1 cannot be installed: ERROR: no such registry$"
    ):
        page.environment(tmp_path / "bertviz")


def test_what_cannot_run_is_left_out_unless_it_was_asked_for(monkeypatch, capsys):
    def unavailable(case, **_):
        raise UnavailableError("there is no chromium")

    monkeypatch.setattr(command, "COMPARISONS", {"fake": lambda options: [case(Counting, calls=[])]})
    monkeypatch.setattr(command, "compare", unavailable)
    assert command.main([]) == 0
    assert "fake: left out, there is no chromium" in capsys.readouterr().err
    assert command.main(["fake"]) == 2
    assert "benchmarks: there is no chromium" in capsys.readouterr().err


def test_bytes_are_what_the_work_returns():
    result = compare(case(Counting, calls=[], quantity="bytes"), peak=peak_mb_none, say=lambda _: None)
    assert (result.ours, result.theirs, result.ratio) == (1, 3, 3)
    large = replace(result, ours=204_000, theirs=977e6, ratio=4789.2)
    assert "0.2 MB" in table([large])
    assert "977 MB" in table([large])
    assert "4789.20 times less" in table([large])


def peak_mb_none(case, side):
    return None


def test_memory_of_other_processes_is_not_measured():
    assert peak_mb(case(Counting, calls=[], own_process=False), "ours") is None
