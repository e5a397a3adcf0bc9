"""Both recipes on a tiny model and a few questions: what differs between them, and that both train."""

import itertools

import numpy as np
import pytest
import torch

import small_runs
import tiny_models
from benchmarks import training
from benchmarks.comparison import Options, compare
from benchmarks.models import POCKET, V3_BASE, Shape
from qa.disentangled import FastSelfAttention
from qa.errors import UserError

SIZES = {"batch_size": 4, "max_length": 96, "stride": 16, "steps": 2}
TINY = Shape("tiny", layers=1, width=32, heads=2, buckets=8, vocabulary=300, lifted=True)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    data = small_runs.write_questions(folder / "train.json", paragraphs=12, seed=1)
    return Options(folder, dataset=str(data), model=str(tiny_models.save(folder / "model")))


@pytest.fixture(scope="module")
def case(options):
    return training.Training.of("training", options, shape=POCKET, device="cpu", **SIZES)


def test_the_cases_of_the_design(options):
    small, large = training.cases(options)
    assert (small.name, small.shape, small.device) == ("training", POCKET, "cpu")
    assert (large.name, large.shape, large.device) == ("training-cuda", V3_BASE, "cuda")
    for found in (small, large):
        assert (found.batch_size, found.max_length, found.stride) == (16, 384, 128)
        assert found.rounds * found.steps == 50
        assert "train.json" in found.what


def test_both_sides_train_and_agree_before(case):
    result = compare(case, rounds=2, peak=lambda _case, _side: None, say=lambda _: None)
    assert 0 <= result.max_difference < 1e-5
    assert min(result.ours, result.theirs) > 0


def test_the_recipes_differ_in_what_the_benchmark_says(case):
    ours, theirs = case.settings("ours"), case.settings("theirs")
    assert (ours.padding, theirs.padding) == ("longest", "max_length")
    assert (ours.group_by_length, theirs.group_by_length) == (True, False)
    assert (ours.attention, theirs.attention) == ("auto", "eager")
    assert (ours.precision, theirs.precision) == ("auto", "fp32")
    same = {"padding": "longest", "group_by_length": True, "attention": "auto", "precision": "auto"}
    assert theirs.changed(**same) == ours


def test_the_recipes_reach_model_and_batches(case):
    fast, padded = {}, {}
    for side in ("ours", "theirs"):
        trainee = case.prepare(side)
        assert trainee.encoder.model.training
        modules = trainee.encoder.model.modules()
        fast[side] = any(isinstance(module, FastSelfAttention) for module in modules)
        padded[side] = trainee.batch(next(trainee.batches))["input_ids"].shape[1]
    assert fast == {"ours": True, "theirs": False}
    assert padded["ours"] < padded["theirs"] == 96


def test_a_round_takes_steps_and_changes_the_weights(case):
    trainee = case.prepare("ours")
    left = first_batches(trainee, 5)
    trainee.batches = iter(left)
    before = trainee.encoder.model.qa_outputs.weight.clone()
    trainee()
    assert next(trainee.batches) == left[2]
    assert not torch.equal(trainee.encoder.model.qa_outputs.weight, before)


def first_batches(trainee, count):
    epochs = trainee.epochs()
    return [next(epochs) for _ in range(count)]


def test_epochs_follow_each_other_in_whole_batches_of_another_order(case):
    trainee = case.prepare("theirs")
    count = len(trainee.data) // 4
    batches = first_batches(trainee, 2 * count)
    assert all(len(batch) == 4 for batch in batches)
    first, second = (list(itertools.chain(*batches[at : at + count])) for at in (0, count))
    assert len(set(first)) == len(first)
    assert first != second


def test_memory_is_measured_with_the_longest_windows(case):
    trainee = case.prepare_hardest("ours")
    lengths = trainee.data.windows.lengths
    longest = np.sort(lengths)[-4:]
    for batch in (next(trainee.batches), next(trainee.batches)):
        assert np.array_equal(np.sort(lengths[batch]), longest)
    assert trainee.steps == 1


def test_questions_are_counted_once_however_many_windows_they_have(case):
    _, prepared = training.material(case)
    assert case.items() == pytest.approx(2 * 4 * len(prepared.questions.questions) / len(prepared.windows))


def test_without_a_model_one_is_made_once(options, tmp_path):
    made = Options(tmp_path, dataset=options.dataset)
    case = training.Training.of("training", made, shape=TINY, device="cpu", **SIZES)
    assert "random weights" in case.what
    name, _ = training.material(case)
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(changed) == 1
    training.material.cache_clear()
    assert training.material(case)[0] == name
    assert all(path.stat().st_mtime_ns == time for path, time in changed.items())
    assert case.prepare("ours").encoder.model.config.num_hidden_layers == 1


def test_too_few_questions_for_a_step_are_refused(options):
    sizes = SIZES | {"batch_size": 400}
    with pytest.raises(UserError, match=r"fewer than the 400 of one step; give a larger SQuAD file"):
        training.material(training.Training.of("training", options, shape=POCKET, device="cpu", **sizes))
