"""Tables that survive a kill, and are refused where they are of something else."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probes.analyses import (
    FOLDER,
    Header,
    Kind,
    Parts,
    checkpoint_fingerprint,
    find_analyses,
    read_analysis,
    write_analysis,
)
from qa.errors import UserError
from qa.experiment import Experiment

COLUMNS = pa.schema([("id", pa.string()), ("value", pa.float64())])
KIND = Kind("sample", 2, COLUMNS, "python -m probes sample NAME")
HEADER = Header(KIND, "a" * 64, {"dataset": "pocket", "limit": 3})


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "one").mkdir()
    return Experiment(tmp_path / "one")


def part(number):
    return pa.table({"id": [f"q{number}", f"r{number}"], "value": [float(number), None]})


def make(experiment, numbers=range(3)):
    with Parts.open(experiment, HEADER) as parts:
        for number in parts.missing(3):
            if number in numbers:
                parts.add(number, part(number))
        return parts.missing(3) or parts.finish(3)


def test_parts_become_one_table_in_their_order(experiment):
    with Parts.open(experiment, HEADER) as parts:
        for number in (2, 0, 1):
            parts.add(number, part(number))
        assert parts.read(2).equals(part(2))
        path = parts.finish(3)
    found = read_analysis(path, KIND, model="a" * 64)
    assert found.about == {"dataset": "pocket", "limit": 3}
    assert found.table.equals(pa.concat_tables([part(0), part(1), part(2)]))
    assert pq.ParquetFile(path).num_row_groups == 3
    assert [file.name for file in path.parent.iterdir()] == [HEADER.file_name]


def test_what_was_kept_is_not_made_again_and_the_file_is_the_same(experiment, tmp_path):
    assert make(experiment, [0, 2]) == [1]
    assert not find_analyses(experiment, KIND)
    path = make(experiment, [1])
    (tmp_path / "other").mkdir()
    assert make(Experiment(tmp_path / "other")).read_bytes() == path.read_bytes()


def test_a_part_that_is_cut_short_is_made_again(experiment):
    make(experiment, [0, 1])
    folder = next((experiment.path / FOLDER).iterdir())
    file = folder / "000001.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    (folder / ".000002.parquet.999999999.0.tmp").write_bytes(b"half")
    assert make(experiment, []) == [1, 2]
    assert not list(folder.glob("*.tmp"))
    with Parts.open(experiment, HEADER) as parts, pytest.raises(AssertionError, match=r"\[1, 2\]"):
        parts.finish(3)


def test_two_commands_do_not_work_on_one_table(experiment):
    with Parts.open(experiment, HEADER):
        with pytest.raises(UserError, match="another process is making this table"):
            Parts.open(experiment, HEADER)
        # Processes of one command share the parts: only the first of them takes the lock.
        with Parts(experiment, HEADER) as parts:
            parts.add(0, part(0))
    assert make(experiment, []) == [1, 2]


def test_other_questions_models_and_versions_have_files_of_their_own(experiment):
    path = make(experiment)
    for header in (
        Header(KIND, "b" * 64, HEADER.about),
        Header(KIND, HEADER.model, {"dataset": "pocket", "limit": 4}),
    ):
        other = write_analysis(experiment, header, part(7))
        assert other != path
        assert find_analyses(experiment, KIND)[0] == other
    assert len(find_analyses(experiment, KIND)) == 3
    assert not find_analyses(experiment, Kind("samp", 2, COLUMNS, ""))


def test_another_version_model_or_shape_is_refused(experiment):
    path = write_analysis(experiment, HEADER, part(0))
    assert read_analysis(path, KIND, model=None).table.equals(part(0))
    assert read_analysis(path, KIND, model=None, columns=["value"]).table.equals(part(0).select(["value"]))
    again = "make it again: python -m probes sample NAME"
    with pytest.raises(UserError, match=f"another model than this experiment has now; {again}"):
        read_analysis(path, KIND, model="b" * 64)
    with pytest.raises(UserError, match="version 2, but this program reads 'sample' of version 3"):
        read_analysis(path, Kind("sample", 3, COLUMNS, KIND.command), model=None)
    with pytest.raises(UserError, match="'sample' of version 2, but this program reads 'other'"):
        read_analysis(path, Kind("other", 2, COLUMNS, KIND.command), model=None)
    wider = pa.schema([*COLUMNS, ("more", pa.int64())])
    with pytest.raises(UserError, match=f"columns are not those of 'sample'; {again}"):
        read_analysis(path, Kind("sample", 2, wider, KIND.command), model=None)


def test_what_is_no_whole_analysis_is_refused_in_one_line(experiment, tmp_path):
    path = write_analysis(experiment, HEADER, part(0))
    whole = path.read_bytes()
    middle = whole[:4] + b"\xff" * 60 + whole[64:]
    for content in (whole[:-1], whole[: len(whole) // 2], b"", b"PAR1", middle):
        path.write_bytes(content)
        with pytest.raises(UserError, match="make it again") as error:
            read_analysis(path, KIND, model=None)
        assert "\n" not in str(error.value)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(part(0), foreign)
    for file in (foreign, tmp_path / "nothing.parquet"):
        with pytest.raises(UserError, match="no analysis"):
            read_analysis(file, KIND, model=None)
    for value in ([], {"kind": "sample"}, {"kind": "sample", "version": 2, "model": "", "about": 3}):
        pq.write_table(part(0).replace_schema_metadata({"analysis": json.dumps(value)}), foreign)
        with pytest.raises(UserError, match="make it again"):
            read_analysis(foreign, KIND, model=None)


def test_the_fingerprint_is_of_all_files_of_a_model(tmp_path):
    for name, content in (("config.json", "{}"), ("model.safetensors", "weights"), (".hidden", "x")):
        (tmp_path / name).write_text(content)
    first = checkpoint_fingerprint(tmp_path)
    (tmp_path / ".hidden").write_text("y")
    assert checkpoint_fingerprint(tmp_path) == first
    (tmp_path / "model.safetensors").write_text("other weights")
    second = checkpoint_fingerprint(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    assert len({first, second, checkpoint_fingerprint(tmp_path)}) == 3
    with pytest.raises(UserError):
        checkpoint_fingerprint(tmp_path / "nowhere")
