"""Turns, and the figures made of given times."""

import statistics

import pytest

from benchmark_cases import Counting, case
from benchmarks.comparison import Times, compare, conclude, time_in_turn

KEYS = {
    "ours",
    "theirs",
    "ratio",
    "max_difference",
    "ours_peak_mb",
    "theirs_peak_mb",
    "spread",
    "machine",
}
TIMES = Times(ours=(1.0, 2.0, 4.0), theirs=(3.0, 3.0, 6.0))


def figures(**changes):
    return conclude(case(Counting, calls=[], **changes), TIMES, difference=0.5, peaks=(7.0, None))


def test_the_two_take_turns_and_each_goes_first_every_other_round():
    counting = case(Counting, calls=[], warm_up=1)
    ours, theirs = counting.prepare("ours"), counting.prepare("theirs")
    times = time_in_turn(ours, theirs, case=counting, rounds=3, say=lambda _: None)
    warm_up, first, second, third = zip(*[iter(counting.calls)] * 2, strict=True)
    assert warm_up == first == third == ("ours", "theirs")
    assert second == ("theirs", "ours")
    assert len(times.ours) == len(times.theirs) == 3
    assert min(times.ours + times.theirs) > 0


def test_medians_of_times_and_of_the_ratios_of_rounds():
    found = figures()
    assert (found.ours, found.theirs) == (2.0, 3.0)
    assert found.ratio == statistics.median([3 / 1, 3 / 2, 6 / 4])
    assert found.spread == (1.5, 3.0)


def test_rounds_of_different_work_are_added_up():
    found = figures(alike=False)
    assert (found.ours, found.theirs) == (7 / 3, 4.0)
    assert found.ratio == pytest.approx(12 / 7)
    assert found.spread == (1.5, 3.0)


def test_json_keys_are_those_of_the_design():
    row = figures().as_dict()
    assert row.keys() == KEYS
    assert row["spread"] == [1.5, 3.0]
    assert (row["max_difference"], row["ours_peak_mb"], row["theirs_peak_mb"]) == (0.5, 7.0, None)
    assert "torch" in row["machine"]
    assert "transformers" in row["machine"]
    assert "cores" in row["machine"]


def test_a_comparison_takes_the_difference_first_and_measures_memory_of_both():
    counting, said = case(Counting, calls=[], warm_up=0), []

    def peak(measured, side):
        assert measured is counting
        return {"ours": 1.0, "theirs": 2.0}[side]

    result = compare(counting, peak=peak, rounds=2, say=said.append)
    assert counting.calls == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert (result.max_difference, result.ours_peak_mb, result.theirs_peak_mb) == (2.0, 1.0, 2.0)
    assert sum("round" in line for line in said) == 2
    assert all(line.startswith("fake: ") for line in said)


def test_without_a_number_of_rounds_the_case_decides():
    counting = case(Counting, calls=[], warm_up=2, rounds=4)
    compare(counting, peak=lambda _case, _side: None, say=lambda _: None)
    assert len(counting.calls) == 2 * (1 + 2 + 4)
