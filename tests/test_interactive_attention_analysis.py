"""The terminal program as a user starts it: asked or told, left at any moment, its pictures real ones."""

import functools
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import small_runs
from interactive_attention_analysis import main
from qa import files
from qa.experiment import Experiment

SCRIPT = Path(__file__).resolve().parents[1] / "interactive_attention_analysis.py"
COLOR, CAT = "My favorite color is red.", "The cat sat on the mat in Denver while the river rose in 1745."
HOSTILE = "Who said \x1b[31m\u202edatum.value</text><script>'+now()+'\ud83d?"


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch):
    """Waiting for the disk would take most of the time."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    return small_runs.imported(tmp_path / "experiments", "one")


def run(experiment, *arguments, experiment_name="one"):
    place = ["--experiments-dir", str(experiment.path.parent)]
    named = ["--experiment", experiment_name] if experiment_name else []
    return main([*place, *named, *arguments])


def start(experiment, **options):
    """The program in a process of its own."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(SCRIPT), "--experiments-dir", str(experiment.path.parent)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # Where the tests run in the background of a shell, Ctrl-C is ignored, and a new process inherits that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, env=environment, preexec_fn=heed, **pipes, **options)


def size_of(picture):
    with Image.open(picture) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def test_asked_through_arguments(experiment, capsys):
    texts = ["--question", "Which color?", "--context", COLOR]
    assert run(experiment, *texts, "--layers", "0-1", "--heads", "1") == 0
    output = capsys.readouterr()
    folder = experiment.path / "attentions_vis"
    names = ["layer_0.png", "layer_0_head_1.png", "layer_1.png", "layer_1_head_1.png"]
    assert output.out.splitlines()[-4:] == [f"saved {folder / name}" for name in names]
    assert "Answer:" in output.out
    assert "Main attended token: " in output.out
    assert sorted(file.name for file in folder.glob("*.png")) == names
    for name in names:
        assert min(size_of(folder / name)) > 400


def test_without_layers_it_answers_and_saves_nothing(experiment, capsys):
    assert run(experiment, "--question", "Which color?", "--context", COLOR) == 0
    assert capsys.readouterr().out.splitlines()[1] == "Question:            Which color?"
    assert not (experiment.path / "attentions_vis").exists()


def test_no_question_overwrites_anothers_pictures(experiment, capsys):
    for question in ("Which color?", "Who sat?", "Which color?"):
        assert run(experiment, "--question", question, "--context", COLOR, "--layers", "0") == 0
    folder = experiment.path / "attentions_vis"
    pictures = {file.relative_to(folder).parts for file in folder.rglob("*.png")}
    assert {len(parts) for parts in pictures} == {1, 2}
    assert len(pictures) == 2
    owners = {file.parent.name: files.read_json(file)["question"] for file in folder.rglob("question.json")}
    assert owners.pop("attentions_vis") == "Which color?"
    assert list(owners.values()) == ["Who sat?"]
    contents = [folder.joinpath(*parts).read_bytes() for parts in pictures]
    assert contents[0] != contents[1]


def test_asked_in_a_conversation(experiment, monkeypatch, capsys):
    entries = ["nobody", "1", "Which color?", COLOR, "y", "1", "1", "0", "y", HOSTILE, CAT, "y", "0", "0"]
    text = "".join(f"{entry}\n" for entry in entries)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert run(experiment, experiment_name=None) == 0, "the input ends at the prompt for heads"
    output = capsys.readouterr()
    assert "experiment: 'nobody'; enter a number from 1 to 1" in output.out
    folder = experiment.path / "attentions_vis"
    assert {file.name for file in folder.rglob("*.png")} == {"layer_1.png", "layer_1_head_0.png"}
    assert not set(output.out) & {"\x1b", "\u202e", "\ud83d"}
    assert output.out.endswith("enter: none): \n")


def test_hostile_text_in_arguments(experiment, capsys):
    assert run(experiment, "--question", HOSTILE, "--context", f"{CAT} {HOSTILE} " * 3, "--layers", "0") == 0
    assert r"\x1b[31m\u202edatum.value</text><script>'+now()+'\ud83d?" in capsys.readouterr().out
    assert min(size_of(experiment.path / "attentions_vis" / "layer_0.png")) > 400


def test_a_context_of_many_windows(tmp_path, capsys):
    experiment = small_runs.imported(tmp_path / "experiments", "one", max_length=64)
    arguments = ["--question", "Who sat?", "--context", f"{CAT} " * 40, "--layers", "1", "--heads", "0"]
    assert run(experiment, *arguments) == 0
    picture = experiment.path / "attentions_vis" / "layer_1_head_0.png"
    assert np.prod(size_of(picture)) > 400**2


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nobody", ["--question", "q", "--context", "c"], "no experiment 'nobody' in"),
        ("../one", ["--question", "q", "--context", "c"], "is not allowed"),
        ("one", ["--question", "q"], "give --experiment, --question and --context together"),
        ("one", [], "give --experiment, --question and --context together"),
        (None, ["--layers", "0"], "give --experiment, --question and --context together"),
        (None, ["--question", "q", "--context", "c"], "give --experiment, --question and --context"),
        ("one", ["--question", "", "--context", "c"], "--question: it is empty"),
        ("one", ["--question", "q", "--context", " "], "--context: it is empty"),
        (
            "one",
            ["--question", "q", "--context", "c", "--layers", "0-7"],
            "--layers: '0-7'; there are",
        ),
        ("one", ["--question", "q", "--context", "c", "--heads", "\x1b"], r"--heads: '\x1b'; there are"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(experiment, capsys, name, arguments, message):
    assert run(experiment, *arguments, experiment_name=name) == 2
    output = capsys.readouterr()
    assert output.err.startswith("interactive_attention_analysis: ")
    assert message in output.err
    assert len(output.err.splitlines()) == 1
    assert output.out == ""
    assert not (experiment.path / "attentions_vis").exists()


def test_nothing_to_ask(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EXPERIMENTS_DIR", str(tmp_path / "elsewhere"))
    assert main([]) == 2
    folder = tmp_path / "elsewhere"
    said = f"no experiments in {folder}, which does not exist; make some with"
    assert said in capsys.readouterr().err


def test_ctrl_c_leaves_quietly(experiment, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("one\nWhich color?\n" + COLOR + "\n"))

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("probes.inspection.attend", interrupted)
    assert run(experiment, experiment_name=None) == 0
    assert capsys.readouterr().err == ""


def test_ctrl_c_at_a_prompt_of_the_real_program(experiment):
    with start(experiment) as process:
        read = b""
        while not read.endswith(b"name): "):
            read += process.stdout.read(1)
        while psutil.Process(process.pid).status() != psutil.STATUS_SLEEPING:
            pass  # a signal just before the reading begins would wait for a line
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
        process.stdin.close()


@pytest.mark.parametrize("entered", [b"", b"\xff\xfe\x00\n", b"\n\n\xf0\x9f\x91\x8d\n99"])
def test_the_input_of_the_real_program_ends(experiment, entered):
    with start(experiment) as process:
        output, errors = process.communicate(entered, timeout=60)
    assert process.returncode == 0
    assert errors == b""
    assert output.count(b"Experiment (number or name): ") == len(entered.splitlines()) + 1
    assert output.endswith(b"\n")


@pytest.mark.parametrize("entered", [b"", b"nobody\n" * 2000])
def test_whoever_reads_the_output_may_have_had_enough(experiment, entered):
    with start(experiment) as process:
        process.stdout.close()
        process.stdin.write(entered)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_the_first_prompt_does_not_wait_for_torch(experiment):
    code = (
        "import io, sys; sys.stdin = io.StringIO(); from interactive_attention_analysis import main; "
        f"status = main(['--experiments-dir', {str(experiment.path.parent)!r}]); "
        "sys.exit(status or bool({'torch', 'altair', 'transformers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=SCRIPT.parent).returncode == 0
