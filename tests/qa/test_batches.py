"""Padded tensors against the library's own padding, and what is promised of the order of training."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from qa.batches import Collator, TrainingOrder, TrainingWindows, pad_windows
from qa.squad import Question
from qa.windows import answer_labels, make_windows

QUESTIONS = [
    Question("0", "", "/0", "Where did the cat sit?", tiny.SENTENCES[0], ("Denver",), (26,)),
    Question("1", "", "/1", "Which color?", "Red.", ("Red",), (0,)),
    Question("2", "", "/2", "When did it fall?", " ".join(tiny.SENTENCES[2:4]), (), ()),
]
LENGTHS = {"max_length": 40, "stride": 8, "max_question_length": 20}
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(params=tiny.TOKENIZERS, scope="module")
def tokenizer(request):
    return tiny.TOKENIZERS[request.param]()


@pytest.mark.parametrize("length", [None, 40, 48])
def test_padding_is_the_librarys(tokenizer, length):
    windows = make_windows(QUESTIONS, tokenizer, **LENGTHS)
    chosen = np.array([len(windows) - 1, 0, 2, 0])
    ours = pad_windows(windows, chosen, tokenizer, length=length)
    unpadded = [
        {"input_ids": windows[index].ids.tolist(), "token_type_ids": windows[index].types.tolist()}
        for index in chosen
    ]
    if "token_type_ids" not in tokenizer.model_input_names:
        unpadded = [{"input_ids": window["input_ids"]} for window in unpadded]
    padding = "longest" if length is None else "max_length"
    theirs = tokenizer.pad(unpadded, padding=padding, max_length=length, return_tensors="pt")
    assert ours.keys() == theirs.keys() == set(tokenizer.model_input_names)
    for key, tensor in ours.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, theirs[key])


def test_padding_reaches_the_longest_window_and_no_further(tokenizer):
    windows = make_windows(QUESTIONS, tokenizer, **LENGTHS)
    short = int(np.argmin(windows.lengths))
    batch = pad_windows(windows, [short, short], tokenizer)
    assert batch["input_ids"].shape == (2, windows.lengths[short])
    assert batch["attention_mask"].all()


def test_a_batch_for_training_holds_the_labels_of_its_windows(tokenizer):
    windows = make_windows(QUESTIONS, tokenizer, **LENGTHS)
    labels = answer_labels(windows, QUESTIONS)
    data = TrainingWindows(windows, labels)
    assert [data[position] for position in range(len(data))] == list(range(len(windows)))

    positions = list(reversed(range(len(data))))
    batch = Collator(data, tokenizer, length=None)(positions)
    inputs = pad_windows(windows, positions, tokenizer)
    assert batch.keys() == inputs.keys() | {"start_positions", "end_positions"}
    assert all(torch.equal(batch[key], tensor) for key, tensor in inputs.items())
    assert batch["start_positions"].tolist() == labels[0][::-1].tolist()
    assert batch["end_positions"].tolist() == labels[1][::-1].tolist()
    assert batch["start_positions"].dtype == torch.int64
    assert Collator(data, tokenizer, length=48)(positions)["input_ids"].shape == (len(data), 48)


@given(
    lengths=st.lists(st.integers(5, 40), max_size=300),
    batch_size=st.integers(1, 4),
    seed=SEEDS,
    epoch=st.integers(0, 100),
    group=st.booleans(),
)
def test_an_epoch_visits_every_window_once(lengths, batch_size, seed, epoch, group):
    order = TrainingOrder(np.array(lengths, dtype=np.int64), batch_size, seed=seed, group=group)
    order.set_epoch(epoch)
    assert sorted(order) == list(range(len(order))) == list(range(len(lengths)))


@pytest.mark.parametrize("group", [True, False])
def test_the_order_is_a_function_of_seed_and_epoch(group):
    lengths = np.random.default_rng(0).integers(5, 400, 1000)
    states = itertools.count()  # of the library's generator, which must not matter

    def order(seed, epoch):
        sampler = TrainingOrder(lengths, 8, seed=seed, group=group)
        sampler.set_epoch(epoch)
        torch.manual_seed(next(states))
        return list(sampler)

    orders = {(seed, epoch): order(seed, epoch) for seed in (0, 1, 42) for epoch in (2, 1, 0)}
    assert all(order(*key) == expected for key, expected in orders.items())
    assert len(set(map(tuple, orders.values()))) == len(orders)


def padding_of(order, lengths, batch_size):
    """Share of a batch's cells that hold no token, over the epoch."""
    batches = [lengths[order[at : at + batch_size]] for at in range(0, len(order), batch_size)]
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


def test_grouping_saves_padding_and_stays_random():
    lengths = np.random.default_rng(0).integers(20, 400, 2003)
    random, grouped, next_epoch = (
        TrainingOrder(lengths, 16, seed=0, group=group) for group in (False, True, True)
    )
    next_epoch.set_epoch(1)
    assert padding_of(list(random), lengths, 16) > 0.4
    assert padding_of(list(grouped), lengths, 16) < 0.03

    def batches(order):
        return {frozenset(list(order)[at : at + 16]) for at in range(0, 2000, 16)}

    assert not batches(grouped) & batches(next_epoch)
    # Neither long windows first nor short ones: the means of the epoch's halves agree.
    halves = np.array_split(lengths[list(grouped)], 2)
    assert abs(halves[0].mean() - halves[1].mean()) < 40


def test_only_the_last_batch_is_short():
    lengths = np.arange(1, 1004)
    order = list(TrainingOrder(lengths, 4, seed=0, group=True))
    groups = [order[at : at + 4] for at in range(0, len(order), 4)]
    # Windows of a batch are neighbours in length within their group of 200; three are left for the end.
    assert all(np.ptp(lengths[group]) < 60 for group in groups[:-1])
    assert len(groups[-1]) == 3
