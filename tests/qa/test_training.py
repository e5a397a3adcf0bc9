"""Runs from start to finish: what a folder holds, and what is refused or explained in one line."""

import pytest
import torch

import small_runs
from qa.errors import UserError
from qa.evaluation import evaluate
from qa.experiment import Experiment
from qa.reader import Reader
from qa.training import job, launch, resume_experiment, train_experiment, train_seeds
from qa.training.estimate import duration, measure
from qa.training.trainer import QATrainer


def test_a_finished_folder_holds_what_it_says(whole, model):
    expected = {"config.yaml", "status.json", "environment.json", "history.jsonl", "metrics.json"}
    assert expected | {"predictions.jsonl", "best_model"} <= {item.name for item in whole.path.iterdir()}
    assert whole.problems() == []
    assert whole.settings().model_name == str(model)
    assert whole.status()["total_steps"] == whole.status()["step"]
    assert whole.checkpoints() == {}, "what resume needs is not needed any more"
    environment = whole.environment()
    assert environment["seed"] == 42
    assert set(environment["data"]) == {"training", "validation"}
    metrics = whole.metrics()
    assert {"exact_match", "f1", "eval_loss", "count", "HasAns_f1", "NoAns_f1"} <= set(metrics)
    assert metrics["exact_match_interval"][0] <= metrics["exact_match"] <= metrics["exact_match_interval"][1]
    assert "folds" in metrics["no_answer_threshold_from"]
    assert metrics["seconds"] > 0
    assert metrics["peak_memory_mb"] > 50


def test_history_has_losses_and_scores(whole):
    history = whole.history()
    assert [row["step"] for row in history] == sorted({row["step"] for row in history})
    assert all({"loss", "learning_rate", "examples_per_second"} <= set(row) for row in history)
    scored = [row for row in history if "f1" in row]
    assert len(scored) == 4, "two epochs, two evaluations each"
    assert max(row["f1"] for row in scored) == pytest.approx(whole.status()["best_f1"])


def test_every_answer_is_a_slice_of_its_context(whole):
    contexts = {question.id: question.context for question in whole.validation_questions().questions}
    rows = whole.predictions()
    assert {row["id"] for row in rows} == set(contexts)
    for row in rows:
        assert contexts[row["id"]][row["start"] : row["end"]] == row["prediction"]
        assert row["windows"] >= 1
        assert 0 <= row["no_answer_probability"] <= 1


def test_the_best_model_answers_as_the_predictions_say(whole):
    reader = Reader.of(whole, device="cpu")
    questions = whole.validation_questions().questions[:5]
    found = reader.answers([(question.question, question.context) for question in questions])
    for answer, row in zip(found, whole.predictions(), strict=False):
        assert answer.n_best[0].text == row["n_best"][0]["text"]
        assert answer.no_answer_probability == pytest.approx(row["no_answer_probability"], abs=1e-5)


def test_the_model_learns(whole):
    losses = [row["loss"] for row in whole.history()]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(model, tmp_path):
    chosen = small_runs.settings(model)
    with pytest.MonkeyPatch.context() as patch:
        real = QATrainer.training_step
        patch.setattr(QATrainer, "training_step", lambda *a, **k: real(*a, **k) * float("nan"))
        with pytest.raises(UserError, match=r"not finite .* lower learning_rate"):
            train_experiment(chosen, root=tmp_path, name="nan")
    status = Experiment(tmp_path / "nan").status()
    assert status["state"] == "failed"
    assert "learning_rate" in status["message"]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()],
)
def test_out_of_memory_names_the_settings(model, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(QATrainer, "training_step", fail)
    with pytest.raises(UserError, match=r"lower batch_size \(now 8"):
        train_experiment(small_runs.settings(model), root=tmp_path, name="oom")
    assert Experiment(tmp_path / "oom").status()["state"] == "failed"


def test_an_existing_name_is_refused(whole, model):
    with pytest.raises(UserError, match="exists already"):
        train_experiment(small_runs.settings(model), root=whole.path.parent, name=whole.name)
    with pytest.raises(UserError, match="is finished"):
        resume_experiment(root=whole.path.parent, name=whole.name)


def test_seeds_make_a_group_and_differ(model, tmp_path):
    chosen = small_runs.settings(model, epochs=1, limit_train=16)
    done = train_seeds(chosen, [1, 2], root=tmp_path, name="s")
    assert [experiment.name for experiment in done] == ["s-seed-1", "s-seed-2"]
    assert {experiment.settings().group for experiment in done} == {"s"}
    assert done[0].history()[0]["loss"] != done[1].history()[0]["loss"]
    again = train_seeds(chosen, [1, 2], root=tmp_path, name="s")
    assert [experiment.metrics() for experiment in again] == [experiment.metrics() for experiment in done]


def test_a_model_path_of_one_s_own(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = small_runs.settings(
        model, epochs=1, limit_train=16, best_model_path="models/experiment_1/best_model"
    )
    first = train_experiment(chosen, root=tmp_path / "e", name="one")
    assert first.model_folder() == tmp_path / "models" / "experiment_1" / "best_model"
    assert Reader.of(first, device="cpu").answer("Who?", "Ada went home.").text in "Ada went home."
    with pytest.raises(UserError, match="best_model_path"):
        train_experiment(chosen, root=tmp_path / "e", name="two")
    assert not (tmp_path / "e" / "two" / "config.yaml").exists()


def test_a_model_path_may_be_called_pocket(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = job.resolved(small_runs.settings(model, best_model_path="pocket"), tmp_path / "one")
    assert found.best_model_path == str(tmp_path / "pocket")


@pytest.mark.parametrize(
    ("part", "message"),
    [("evaluate", "lower evaluation_batch_size .now 32."), ("announce", "lower batch_size .now 8;")],
)
def test_the_folder_says_what_to_do_when_memory_runs_out(model, tmp_path, monkeypatch, part, message):
    def fail(*_, **__):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(launch, part, fail)
    with pytest.raises(UserError, match=message) as raised:
        train_experiment(small_runs.settings(model), root=tmp_path, name="oom")
    assert Experiment(tmp_path / "oom").status()["message"] == str(raised.value)


def test_layers_learn_at_their_own_rates(model, tmp_path, monkeypatch):
    groups = []
    real = QATrainer._layer_groups
    monkeypatch.setattr(QATrainer, "_layer_groups", lambda self: groups.extend(real(self)) or real(self))
    chosen = small_runs.settings(
        model, layer_decay=0.5, learning_rate=0.08, epochs=1, limit_train=16, warmup=0
    )
    train_experiment(chosen, root=tmp_path, name="decay")
    assert {round(group["lr"], 6) for group in groups} == {0.08, 0.04, 0.02, 0.01}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 90}, "stride: 90 tokens of overlap"),
        ({"max_length": 400}, "reads at most"),
        ({"model_name": "nowhere/nothing"}, "--pocket"),
        ({"dataset": "missing.json"}, "missing.json: cannot be read"),
        ({"held_out_articles": 2}, "both set"),
        ({"validation_dataset": None}, "has no validation split"),
        ({"device": "cuda"}, "device: 'cuda' is not available"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"report_to": "wandbb"}, "no tracker 'wandbb'"),
        ({"report_to": "wandb"}, "wandb is not installed"),
        ({"best_model_path": "~nobody_at_all/x"}, "is no path"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(model, tmp_path, changes, message):
    if changes == {"device": "cuda"} and torch.cuda.is_available():
        changes = {"device": "mps"}
        message = "device: 'mps' is not available"
    with pytest.raises(UserError, match=message):
        train_experiment(small_runs.settings(model, **changes), root=tmp_path, name="bad")
    assert not (tmp_path / "bad").exists()


def test_articles_set_aside_are_not_trained_on(model, tmp_path):
    chosen = small_runs.settings(
        model, held_out_articles=3, validation_dataset=None, epochs=1, limit_train=16
    )
    done = train_experiment(chosen, root=tmp_path, name="aside")
    titles = {question.title for question in done.validation_questions().questions}
    assert len(titles) == 3
    assert done.environment()["data"]["validation"]["name"].endswith("(3 articles set aside)")


def test_a_probe_is_called_before_the_first_step_and_after_each_evaluation(model, tmp_path):
    steps = []
    chosen = small_runs.settings(model, epochs=1, limit_train=16, evaluations_per_epoch=1)
    train_experiment(
        chosen,
        root=tmp_path,
        name="probe",
        on_evaluation=lambda network, step: steps.append((step, network.training)),
    )
    assert steps == [(0, False), (2, False)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_measuring_leaves_model_and_random_state_alone(model, checkpointing):
    prepared = job.prepare(small_runs.settings(model, gradient_checkpointing=checkpointing))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    step, forward = measure(prepared)
    assert step > 0
    assert forward > 0
    assert torch.equal(before, torch.get_rng_state())
    network = prepared.encoder.model
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.training


def test_broken_weights_are_one_line(model, tmp_path):
    prepared = job.prepare(small_runs.settings(model))
    with torch.no_grad():
        prepared.encoder.model.qa_outputs.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="scores are not finite"):
        evaluate(prepared.encoder, prepared.validation, prepared.reading)


@pytest.mark.parametrize(
    ("seeds", "changes", "message"),
    [
        ([1, -1], {}, "seed: -1 is not allowed"),
        ([1, 2], {"best_model_path": "x"}, "several seeds"),
        ([1, 2], {"epochs": 3}, "exists with other settings"),
    ],
)
def test_seeds_are_refused_before_any_is_trained(model, tmp_path, seeds, changes, message):
    chosen = small_runs.settings(model, epochs=1, limit_train=16)
    train_seeds(chosen, [2], root=tmp_path, name="s")
    with pytest.raises(UserError, match=message):
        train_seeds(chosen.changed(**changes), seeds, root=tmp_path, name="s")
    assert not (tmp_path / "s-seed-1").exists()


@pytest.mark.parametrize(("seconds", "text"), [(12.3, "12 s"), (700, "12 min"), (12000, "3 h 20 min")])
def test_duration_in_words(seconds, text):
    assert duration(seconds) == text
