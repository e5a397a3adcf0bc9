"""The commands `python -m qa ...`, as a user types them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import small_runs
import tiny_models
from qa.__main__ import main
from qa.comparison import compare, describe
from qa.errors import UserError
from qa.experiment import Experiment, read_dataset
from qa.importing import import_model
from qa.printing import decimal
from qa.squad import load_questions
from qa.training import resume_experiment

OFFICIAL = {"exact": "exact_match", "f1": "f1", "total": "count"}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    tiny_models.save(folder / "model")
    small_runs.write_questions(folder / "questions.json", paragraphs=6, seed=3)
    return folder


@pytest.fixture(scope="module")
def root(files) -> Path:
    """A folder of experiments with one imported model in it."""
    arguments = ["import", "one", "--model", str(files / "model"), "--dataset", str(files / "questions.json")]
    arguments += ["--experiments-dir", str(files / "experiments"), "--set", "stride=16"]
    assert main([*arguments, "--set", "max_question_length=32"]) == 0
    return files / "experiments"


def last_json(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_score_equals_the_official_script(squad_dir, capsys, version):
    official = json.loads((squad_dir / "predictions" / "official_scores.json").read_text())
    for name, expected in official.items():
        if version not in expected["dataset"]:
            continue
        arguments = ["--dataset", str(squad_dir / expected["dataset"])]
        arguments += ["--predictions", str(squad_dir / "predictions" / name)]
        assert main(["score", *arguments, "--json"]) == 0
        found = last_json(capsys)
        for key, ours in OFFICIAL.items():
            assert found[ours] == pytest.approx(expected[key], abs=1e-9)
        if version == "2.0":
            for group in ("HasAns", "NoAns"):
                for key, ours in OFFICIAL.items():
                    value = expected[f"{group}_{key}"]
                    assert found[f"{group}_{ours}"] == pytest.approx(value, abs=1e-9)


def test_score_counts_missing_and_extra_ids(tmp_path, files, capsys):
    predictions = tmp_path / "predictions.json"
    predictions.write_text('{"3-0-0": "", "other": "x"}')
    arguments = ["--dataset", str(files / "questions.json"), "--predictions", str(predictions)]
    assert main(["score", *arguments]) == 0
    output = capsys.readouterr()
    assert "11 ids without a prediction score 0 (3-0-1, 3-1-0, 3-1-1, ...)" in output.err
    assert "1 ids are not in the data (other)" in output.err
    assert "HasAns_count" in output.out


def test_answer(root, capsys):
    context = "The answer is: forty-two (42), which nobody in the city had expected."
    arguments = ["answer", "one", "--question", "Who?", "--context", context, "--experiments-dir", str(root)]
    assert main([*arguments, "--json"]) == 0
    found = last_json(capsys)
    keys = {"text", "start", "end", "probability", "no_answer_probability", "no_answer_threshold"}
    assert set(found) == keys
    assert found["no_answer_threshold"] == Experiment(root / "one").metrics()["no_answer_threshold"]
    assert context[found["start"] : found["end"]] == found["text"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert output.out.strip() == (found["text"] or "(no answer)")
    said = "probability" if found["text"] else "it refuses above"
    assert said in output.err


def test_a_refusal_says_above_what(root, capsys, monkeypatch):
    monkeypatch.setattr("qa.reader.Reader.answer", lambda *_, **__: Refusal)
    assert main(["answer", "one", "--question", "q", "--context", "c", "--experiments-dir", str(root)]) == 0
    output = capsys.readouterr()
    threshold = Experiment(root / "one").metrics()["no_answer_threshold"]
    assert output.out == "(no answer)\n"
    assert f"no answer 0.000082: it refuses above {decimal(threshold, 3)}\n" in output.err


class Refusal:
    """An answer that is none."""

    text = ""
    probability = no_answer_probability = 8.16e-5


def test_compare(root, files, capsys):
    where = ["--experiments-dir", str(root)]
    questions = str(files / "questions.json")
    predictions = files / "predictions.json"
    predictions.write_text(json.dumps({q.id: "" for q in load_questions(questions).questions}))
    imported = ["import", "theirs", "--dataset", questions, "--predictions", str(predictions)]
    assert main([*imported, *where]) == 0
    try:
        capsys.readouterr()
        assert main(["compare", "one", "theirs", "--json", *where]) == 0
        found = last_json(capsys)
        expected = compare(Experiment(root / "one"), Experiment(root / "theirs"))
        assert found["experiments"] == ["one", "theirs"]
        assert found["p_value"] == expected.p_value
        assert list(found["right"].values()) == list(expected.right)
        for row in expected.differences:
            own = found["metrics"][row.metric]
            assert (own["first"], own["second"], own["difference"]) == (row.first, row.second, row.difference)
            assert own["interval"] == list(row.interval)
        assert main(["compare", "one", "theirs", "--dataset", questions, *where]) == 0
        assert capsys.readouterr().out == f"{describe(expected)}\n"
        assert main(["compare", "one", "theirs", "--dataset", "pocket", *where]) == 2
        command = f"python -m qa evaluate one --dataset FILE --experiments-dir {root}"
        assert f"'one' has no scores on these questions; make them with: {command}" in capsys.readouterr().err
        assert main(["compare", "theirs", "one", "--dataset", "pocket", *where]) == 2
        assert "it has no model to make them with" in capsys.readouterr().err
        assert main(["compare", "one", "", *where]) == 2
        assert main(["compare", "one", "theirs", "--limit", "4", *where]) == 2
        assert "--limit has a meaning with --dataset only" in capsys.readouterr().err
        evaluated = ["evaluate", "one", "--dataset", questions, "--limit", "4"]
        assert main([*evaluated, *where]) == 0
        capsys.readouterr()
        assert main(["compare", "one", "one", "--dataset", questions, "--limit", "4", "--json", *where]) == 0
        assert last_json(capsys)["metrics"]["f1"]["count"] == 4
    finally:
        shutil.rmtree(root / "theirs")
        shutil.rmtree(root / "one" / "evaluations", ignore_errors=True)


def test_evaluate_repeats_what_the_import_found(root, files, capsys):
    arguments = ["evaluate", "one", "--dataset", str(files / "questions.json")]
    assert main([*arguments, "--experiments-dir", str(root), "--json"]) == 0
    found = last_json(capsys)
    imported = Experiment(root / "one").metrics()
    # Imported scores are cross-fitted, these use the one stored threshold; the loss knows no threshold.
    assert found["eval_loss"] == imported["eval_loss"]
    assert found["count"] == imported["count"] == 12
    assert [entry["f1"] for entry in Experiment(root / "one").evaluations().values()] == [found["f1"]]


def test_evaluate_v1_ignores_the_threshold(root, squad_dir, capsys):
    arguments = ["evaluate", "one", "--dataset", str(squad_dir / "dev-v1.1.json"), "--limit", "3"]
    assert main([*arguments, "--experiments-dir", str(root), "--json"]) == 0
    found = last_json(capsys)
    assert found["no_answer_threshold_from"] == "none: every question is answered"
    assert found["count"] == 3
    assert "HasAns_f1" not in found


def test_what_was_evaluated_on_is_kept_and_can_be_named_by_its_fingerprint(root, tmp_path, capsys):
    data = small_runs.write_questions(tmp_path / "other.json", paragraphs=2, seed=8)
    arguments = ["evaluate", "one", "--experiments-dir", str(root), "--json", "--dataset"]
    assert main([*arguments, str(data)]) == 0
    first = last_json(capsys)
    sha = load_questions(str(data)).sha256()
    assert read_dataset(root, sha, "").name == "other.json"
    data.unlink()
    assert main([*arguments, sha]) == 0
    assert last_json(capsys) == first
    assert main([*arguments, "0" * 64]) == 2
    assert "not in" in capsys.readouterr().err


def test_import_of_predictions_makes_an_experiment_without_a_model(tmp_path, squad_dir, capsys):
    arguments = ["import", "theirs", "--dataset", str(squad_dir / "dev-v1.1.json")]
    arguments += ["--predictions", str(squad_dir / "predictions" / "r-net-plus-v1.1.json")]
    arguments += ["--experiments-dir", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    official = json.loads((squad_dir / "predictions" / "official_scores.json").read_text())
    assert last_json(capsys)["f1"] == pytest.approx(official["r-net-plus-v1.1.json"]["f1"], abs=1e-9)
    experiment = Experiment(tmp_path / "theirs")
    assert experiment.problems() == []
    contexts = {question.id: question.context for question in experiment.validation_questions().questions}
    placed = [row for row in experiment.predictions() if row["start"] is not None]
    assert len(placed) > 1000
    assert all(contexts[row["id"]][row["start"] : row["end"]] == row["prediction"] for row in placed)
    assert main(["answer", "theirs", "--question", "q", "--context", "c", "--experiments-dir", str(tmp_path)])
    assert "has no model" in capsys.readouterr().err
    assert main(arguments) == 2, "the name is taken now"


def test_list_names_every_experiment_and_what_is_wrong(root, capsys):
    (root / "broken").mkdir(exist_ok=True)
    (root / "broken" / "config.yaml").write_text(": : :")
    assert main(["list", "--experiments-dir", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("broken")
    assert "config.yaml" in lines[0]
    assert "finished" in lines[1]
    assert "EM" in lines[1]
    assert main(["list", "--experiments-dir", str(root), "--json"]) == 0
    broken, whole = last_json(capsys)["experiments"]
    assert (broken["name"], broken["state"], whole["state"]) == ("broken", "broken", "finished")
    assert broken["problems"] == Experiment(root / "broken").problems()
    assert whole["metrics"] == Experiment(root / "one").metrics()
    assert (whole["name"], whole["data"]) == ("one", "questions.json")


def test_list_of_nothing_says_how_to_begin(tmp_path, capsys):
    assert main(["list", "--experiments-dir", str(tmp_path / "none")]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "which does not exist" in output.err
    assert "run_experiment.py" in output.err
    assert main(["list", "--experiments-dir", str(tmp_path), "--json"]) == 0
    assert last_json(capsys) == {"experiments": []}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["answer", "nobody", "--question", "q", "--context", "c"], "no experiment 'nobody'"),
        (["answer", "../x", "--question", "q", "--context", "c"], "is not allowed"),
        (["answer", "one", "--question", " ", "--context", "c"], "--question: it is empty"),
        (["answer", "one", "--question", "q", "--context", "\n\t"], "--context: it is empty"),
        (["evaluate", "one", "--dataset", "missing.json"], "missing.json: cannot be read"),
        (["score", "--dataset", "missing.json", "--predictions", "x"], "missing.json: cannot be read"),
        (["import", "two", "--dataset", "QUESTIONS", "--model", "./nothing"], "no model in"),
        (["import", "two", "--dataset", "QUESTIONS", "--model", "MODEL", "--set", "strid=1"], "'stride'"),
        (["import", "one", "--dataset", "QUESTIONS", "--model", "MODEL"], "exists already"),
    ],
)
def test_bad_input_is_one_line_and_status_2(root, files, capsys, arguments, message):
    places = {"QUESTIONS": str(files / "questions.json"), "MODEL": str(files / "model")}
    arguments = [places.get(argument, argument) for argument in arguments]
    if arguments[0] != "score":
        arguments = [*arguments, "--experiments-dir", str(root)]
    before = sorted(item.name for item in root.iterdir())
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert output.out == ""
    assert sorted(item.name for item in root.iterdir()) == before


@pytest.mark.parametrize("words", [["list"], ["compare", "one", "one"]])
def test_light_commands_do_not_import_torch(root, words):
    arguments = [*words, "--experiments-dir", str(root)]
    code = f"import sys; from qa.__main__ import main; sys.exit(main({arguments}) or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_checkpoint_without_a_head_is_not_imported(files, tmp_path):
    from transformers import AutoModel

    from qa.config import Settings
    from qa.errors import UserError

    encoder = AutoModel.from_pretrained(files / "model")
    encoder.save_pretrained(tmp_path / "bare")
    for item in (files / "model").glob("token*"):
        (tmp_path / "bare" / item.name).write_bytes(item.read_bytes())
    with pytest.raises(UserError, match="no trained question-answering head"):
        import_model(
            str(tmp_path / "bare"),
            load_questions(str(files / "questions.json")),
            root=tmp_path,
            name="x",
            settings=Settings(),
        )


def test_an_answer_is_printed_as_text(root, monkeypatch, capsys):
    """Escape sequences and halves of a surrogate pair, which a byte on the command line may be."""
    context = "\udcff\x1b[31mred"
    answer = SimpleNamespace(text=context, probability=1.0, no_answer_probability=0.0)
    monkeypatch.setattr("qa.reader.Reader.answer", lambda *_, **__: answer)
    arguments = ["answer", "one", "--question", "Who?", "--context", context]
    assert main([*arguments, "--experiments-dir", str(root)]) == 0
    assert capsys.readouterr().out == "\\udcff\\x1b[31mred\n"


def test_a_threshold_that_was_given_flatters_nobody(root, files, tmp_path, capsys):
    questions = load_questions(str(files / "questions.json"))
    settings = Experiment(root / "one").settings().changed(no_answer_threshold=0.3)
    source = str(Experiment(root / "one").model_folder())
    import_model(source, questions, root=tmp_path, name="given", settings=settings)
    arguments = ["evaluate", "given", "--dataset", str(files / "questions.json")]
    assert main([*arguments, "--experiments-dir", str(tmp_path)]) == 0
    assert "flatter" not in capsys.readouterr().err


def test_memory_that_runs_out_is_one_line(root, files, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr("qa.evaluation.evaluate", fail)
    arguments = ["evaluate", "one", "--dataset", str(files / "questions.json")]
    assert main([*arguments, "--experiments-dir", str(root)]) == 2
    assert capsys.readouterr().err.endswith(
        "qa evaluate: out of memory; end other programs or ask for less, and try again\n"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_import_that_fails_leaves_its_name_free(root, files, tmp_path, monkeypatch, error):
    questions, source = load_questions(str(files / "questions.json")), Experiment(root / "one").model_folder()
    settings = Experiment(root / "one").settings()

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("qa.importing.save_encoder", fail)
        with pytest.raises((KeyboardInterrupt, UserError)):
            import_model(str(source), questions, root=tmp_path, name="new", settings=settings)
    assert not (tmp_path / "new").exists()
    import_model(str(source), questions, root=tmp_path, name="new", settings=settings)
    assert Experiment(tmp_path / "new").state() == "finished"


def test_an_import_that_was_killed_is_not_trained_on(root, tmp_path):
    killed = tmp_path / "killed"
    shutil.copytree(root / "one", killed)
    shutil.rmtree(killed / "best_model")
    status = json.loads((killed / "status.json").read_text())
    (killed / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    with pytest.raises(UserError, match=r"was cut off: remove .*killed and import it again"):
        resume_experiment(root=tmp_path, name="killed")
    with pytest.raises(UserError, match=r"was cut off: remove .*killed and import it again"):
        Experiment(killed).model_folder()


def test_a_file_with_an_odd_name_becomes_a_whole_experiment(files, tmp_path, capsys):
    predictions = tmp_path / "pre\tdictions.json"
    predictions.write_text("{}")
    arguments = ["import", "odd", "--dataset", str(files / "questions.json"), "--predictions"]
    assert main([*arguments, str(predictions), "--experiments-dir", str(tmp_path)]) == 0
    assert Experiment(tmp_path / "odd").problems() == []
    assert Experiment(tmp_path / "odd").settings().model_name == "predictions of pre dictions.json"
