"""Mean and deviation of groups, by hand."""

import pytest

from qa.seeds import SeedRun, Spread, seed_groups


def test_mean_and_sample_deviation():
    found = Spread.of([1.0, 2.0, 4.0])
    assert found.mean == pytest.approx(7 / 3)
    assert found.deviation == pytest.approx((((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2) ** 0.5)
    assert (found.low, found.high) == (1, 4)
    assert str(found) == "2.33 ± 1.53"


def test_a_single_run_has_no_deviation():
    assert Spread.of([50.0]).deviation is None
    assert str(Spread.of([50.0])) == "50.00"


def test_groups_are_taken_apart_by_data():
    runs = [
        SeedRun("a", "a-seed-1", "x", 10, 20),
        SeedRun("b", "b-seed-1", "x", 1, 2),
        SeedRun("a", "a-seed-2", "x", 14, 26),
        SeedRun("a", "a-seed-3", "y", 90, 90),
    ]
    found = seed_groups(runs)
    assert [(group.name, group.sha, group.runs) for group in found] == [
        ("a", "x", ("a-seed-1", "a-seed-2")),
        ("b", "x", ("b-seed-1",)),
        ("a", "y", ("a-seed-3",)),
    ]
    assert (found[0].exact_match.mean, found[0].f1.mean) == (12, 23)
    assert found[0].f1.deviation == pytest.approx(18**0.5)
    assert seed_groups([]) == []
