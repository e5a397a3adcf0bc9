"""What the README says is true: its commands parse, its settings are the settings, its Python runs."""

import re
import shlex
from pathlib import Path

import pytest

import run_experiment
import small_runs
import tiny_models
from qa import __main__ as commands
from qa.config import ORIGINAL_KEYS, Settings, settings_table
from qa.importing import import_model
from qa.squad import load_questions

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
LINES = [
    line.partition("  #")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.split("\n")
]


def parse_line(line: str) -> None:
    """Let the command's own parser read the line; it exits on anything it does not know."""
    words = shlex.split(line)
    if "run_experiment.py" in words:
        run_experiment._parser().parse_args(words[words.index("run_experiment.py") + 1 :])
    elif words[:3] == ["python", "-m", "qa"]:
        commands._parser().parse_args(words[3:])


def test_every_command_of_ours_parses():
    ours = [line for line in LINES if "run_experiment.py" in line or line.startswith("python -m qa ")]
    assert len(ours) > 12
    for line in ours:
        parse_line(line)


def test_the_test_of_commands_would_notice():
    with pytest.raises(SystemExit):
        parse_line("python -m qa answers squad")
    with pytest.raises(SystemExit):
        parse_line("python run_experiment.py --nmae x")


def test_make_targets_exist():
    targets = {line.split()[1] for line in LINES if line.startswith("make ")}
    targets |= set(re.findall(r"`make ([a-z-]+)`", README))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"setup", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_setting_stands_in_the_table_as_it_is():
    missing = [row for row in map(table_row, settings_table()) if row not in README]
    assert missing == [], "the settings of the README are not those of qa.config: write these rows"


def table_row(setting) -> str:
    name, default, allowed, meaning = setting
    shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
    return f"| `{name}` | `{shown}` | {allowed} | {meaning} |"


def test_the_original_nine_come_first():
    rows = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert tuple(rows[:9]) == ORIGINAL_KEYS


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    model = tiny_models.save(tmp_path / "model")
    questions = load_questions(str(small_runs.write_questions(tmp_path / "q.json", paragraphs=4, seed=5)))
    import_model(
        str(model),
        questions,
        root=tmp_path / "experiments",
        name="squad",
        settings=Settings(stride=16, max_question_length=32, device="cpu", no_answer_threshold=None),
    )
    monkeypatch.chdir(tmp_path)
    (example,) = [block for language, block in BLOCKS if language == "python"]
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
