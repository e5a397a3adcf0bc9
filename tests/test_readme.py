"""What the README says is true: its commands parse, its settings are the settings, its Python runs."""

import re
import shlex
from pathlib import Path

import pytest

import interactive_attention_analysis
import run_experiment
import small_runs
from benchmarks import __main__ as benchmark_commands
from probes import __main__ as probe_commands
from qa import __main__ as qa_commands
from qa.config import ORIGINAL_KEYS, settings_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
LINES = [
    line.partition("  #")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.split("\n")
]
MODULES = {"qa": qa_commands, "probes": probe_commands, "benchmarks": benchmark_commands}


def parse_line(line: str) -> None:
    """Let the command's own parser read the line; it exits on anything it does not know."""
    words = shlex.split(line)
    if "run_experiment.py" in words:
        run_experiment._parser().parse_args(words[words.index("run_experiment.py") + 1 :])
    elif "interactive_attention_analysis.py" in words:
        place = words.index("interactive_attention_analysis.py")
        interactive_attention_analysis._parser().parse_args(words[place + 1 :])
    elif words[:2] == ["python", "-m"] and words[2] in MODULES:
        MODULES[words[2]]._parser().parse_args(words[3:])


def test_every_command_of_ours_parses():
    scripts = ("run_experiment.py", "interactive_attention_analysis.py")
    ours = [
        line
        for line in LINES
        if any(script in line for script in scripts)
        or any(line.startswith(f"python -m {module} ") for module in MODULES)
    ]
    assert len(ours) > 18
    for line in ours:
        parse_line(line)


def test_the_test_of_commands_would_notice():
    with pytest.raises(SystemExit):
        parse_line("python -m qa answers squad")
    with pytest.raises(SystemExit):
        parse_line("python -m probes atlas pocket-base --limits 3")
    with pytest.raises(SystemExit):
        parse_line("python run_experiment.py --nmae x")
    with pytest.raises(SystemExit):
        parse_line("python interactive_attention_analysis.py --layer")


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


EXAMPLES = [block for language, block in BLOCKS if language == "python"]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_python_examples_run(tmp_path, monkeypatch, capsys, example):
    (name,) = re.findall(r'find_experiment\(Path\("experiments"\), "([\w-]+)"\)', example)
    small_runs.imported(tmp_path / "experiments", name)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        content = (ROOT / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 300_000
