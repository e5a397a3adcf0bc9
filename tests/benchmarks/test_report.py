"""The table, the JSON and the README's table, from results made by hand."""

import json
import re
from dataclasses import replace

import pytest

from benchmark_cases import Hungry, case
from benchmarks.comparison import Result
from benchmarks.report import BEGIN, END, check_readme, json_line, markdown_row, table, write_readme
from qa.errors import UserError

FAST = Result(
    case=case(Hungry, name="fast"),
    ours=0.25,
    theirs=1.0,
    ratio=4.0,
    spread=(3.5, 4.25),
    max_difference=2.5e-6,
    ours_peak_mb=210.4,
    theirs_peak_mb=1840.2,
    machine="a processor, 2 cores, torch 2",
)
RATE = replace(FAST, case=case(Hungry, name="rate", unit="questions"), ours=0.01, theirs=0.02)
BARE = replace(
    FAST,
    case=case(Hungry, name="bare", compared="none: another model"),
    max_difference=None,
    ours_peak_mb=None,
    theirs_peak_mb=0.25,
    machine="a GPU",
)
OTHER = "# Title\n\nText | with `marks` |\n"


def readme(tmp_path, inside=""):
    file = tmp_path / "README.md"
    file.write_text(f"{OTHER}\n{BEGIN}{inside}{END}\n\n## After\n")
    return file


def names_of(file):
    inside = file.read_text().partition(BEGIN)[2].partition(END)[0]
    return [line.split("`")[1] for line in inside.splitlines() if line.startswith("| `")]


def test_json_is_one_object_with_a_key_for_each_case():
    line = json_line([FAST, BARE])
    assert "\n" not in line
    found = json.loads(line)
    assert found == {"fast": FAST.as_dict(), "bare": BARE.as_dict()}


def test_the_table_says_what_how_fast_and_where():
    lines = table([FAST, RATE, BARE]).splitlines()
    fast, rate, bare = (next(line for line in lines if line.startswith(f"{name} ")) for name in NAMES)
    cells = ["fast", "250 ms", "1 s", "4.00", "(3.50 to 4.25)", "210 MB", "1,840 MB", "2.5e-06 (results)"]
    assert re.split(" {2,}", fast) == cells
    assert "100 questions/s  50 questions/s" in rate
    assert bare.endswith("not measured  0.2 MB    none: another model")
    assert "fast: work; theirs: other work" in lines
    assert lines[-2:] == ["Measured on a processor, 2 cores, torch 2", "Measured on a GPU"]


NAMES = ("fast", "rate", "bare")


def test_a_row_of_the_readme():
    assert markdown_row(FAST) == (
        "| `fast` | work | other work | 250 ms | 1 s | 4.00 (3.50 to 4.25) | 210 MB, 1,840 MB "
        "| 2.5e-06 (results) |"
    )


def test_the_readme_gets_a_table_for_each_machine_and_keeps_the_rest(tmp_path):
    file = readme(tmp_path)
    write_readme(file, [RATE, FAST, BARE])
    text = file.read_text()
    assert text.startswith(f"{OTHER}\n{BEGIN}\n\nMeasured on a processor, 2 cores, torch 2:\n\n| benchmark |")
    assert text.endswith(f"\n\n{END}\n\n## After\n")
    assert "Measured on a GPU:\n\n| benchmark |" in text
    assert names_of(file) == ["fast", "rate", "bare"]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {9}


def test_rows_that_were_not_measured_stay(tmp_path):
    file = readme(tmp_path)
    write_readme(file, [FAST, RATE, BARE])
    before = file.read_text()
    write_readme(file, [FAST, BARE])
    assert file.read_text() == before
    write_readme(file, [replace(FAST, ours=0.125)])
    assert file.read_text() == before.replace("250 ms", "125 ms", 1)


def test_a_row_measured_elsewhere_moves_to_the_other_machine(tmp_path):
    file = readme(tmp_path)
    write_readme(file, [FAST, BARE])
    write_readme(file, [replace(FAST, machine="a GPU")])
    assert names_of(file) == ["bare", "fast"]
    assert "a processor" not in file.read_text()


@pytest.mark.parametrize(
    "text", ["no marker", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"], ids=range(5)
)
def test_a_file_without_a_place_for_the_table_is_refused(tmp_path, text):
    file = tmp_path / "README.md"
    file.write_text(text)
    with pytest.raises(UserError, match="no place for the table; put the lines"):
        check_readme(file)
    with pytest.raises(UserError, match="no place for the table"):
        write_readme(file, [FAST])
    assert file.read_text() == text


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"README\.md: cannot be read"):
        check_readme(tmp_path / "README.md")
