"""Places and values of curves, by hand; foreign rows are left out."""

import numpy as np
import pytest

from qa.curves import curve, windows_a_step

ROWS = [
    {"step": 10, "epoch": 0.5, "loss": 3.0, "examples_per_second": 8.0},
    {"step": 20, "epoch": 1.0, "eval_loss": 2.5, "f1": 40.0},
    {"step": 30, "epoch": 1.5, "loss": 2.0, "examples_per_second": 4.0},
    {"step": 40, "epoch": 2.0, "f1": 50},
]


def test_by_step_and_epoch():
    assert curve(ROWS, "f1", by="step", windows=16) == ((20, 40), (40, 50))
    assert curve(ROWS, "loss", by="epoch", windows=16) == ((0.5, 3), (1.5, 2))
    assert curve(ROWS, "nothing", by="step", windows=16) == ()
    assert curve([], "f1", by="time", windows=16) == ()


def test_time_is_windows_over_speed():
    # 10 steps of 16 windows: 20 s at 8 windows a second, 40 s at 4; rows without a speed take the next one's.
    f1, loss = (np.array(curve(ROWS, metric, by="time", windows=16)) for metric in ("f1", "loss"))
    assert f1 == pytest.approx(np.array([(1.0, 40), (140 / 60, 50)]))
    assert loss == pytest.approx(np.array([(20 / 60, 3), (100 / 60, 2)]))


def test_without_any_speed_there_is_no_time():
    assert curve([{"step": 1, "f1": 3.0}], "f1", by="time", windows=16) == ()


def test_foreign_values_are_left_out():
    rows = [
        {"step": 1, "epoch": "one", "f1": 1.0},
        {"step": 2, "epoch": 1, "f1": True, "examples_per_second": 0},
        {"step": 3, "epoch": 1, "f1": float("inf"), "examples_per_second": "fast"},
        {"step": 4, "epoch": 2, "f1": 2.0},
    ]
    assert curve(rows, "f1", by="epoch", windows=1) == ((2, 2),)
    assert curve(rows, "f1", by="time", windows=1) == ()


@pytest.mark.parametrize(
    ("environment", "windows"), [({}, 32), ({"processes": 3}, 96), ({"processes": "3"}, 32)]
)
def test_windows_a_step(environment, windows):
    assert windows_a_step({"batch_size": 16, "gradient_accumulation_steps": 2}, environment) == windows
