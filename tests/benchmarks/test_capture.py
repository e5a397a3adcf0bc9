"""The cases of capturing at a tiny size: they run, agree, and would notice maps that are wrong."""

from pathlib import Path

import pytest
import torch

from benchmarks import capture
from benchmarks.comparison import Options, compare
from benchmarks.models import V3_BASE, Shape
from qa.disentangled import FastSelfAttention

TINY = Shape("tiny", layers=2, width=32, heads=2, buckets=8, vocabulary=50, lifted=False)
CASES = {case.name: case for case in capture.cases(Options(Path("scratch")))}


def small(against):
    return capture.Capturing.of("capture", TINY, against=against, rounds=1, length=24)


def test_the_cases_are_all_maps_of_v3_base_at_384_tokens():
    assert {name: case.way for name, case in CASES.items()} == {
        "capture": "output_attentions",
        "capture-eager": "eager",
        "capture-fast": "fast",
    }
    for case in CASES.values():
        assert (case.shape, case.length) == (V3_BASE, 384)
        assert case.what == (
            "forward pass of DeBERTa-v3-base (12 × 768, 12 heads), 384 tokens, "
            "all 144 maps in float16 (42 MB)"
        )


@pytest.mark.parametrize(
    ("against", "most"), [("output_attentions", 5e-4), ("eager", 1e-5), ("fast", 0)], ids=str
)
def test_both_sides_agree(against, most):
    result = compare(small(against), peak=lambda _case, _side: None, say=lambda _: None)
    assert (result.max_difference == 0) == (most == 0)
    assert result.max_difference <= most
    assert min(result.ours, result.theirs, result.ratio) > 0


def test_each_side_is_what_it_says():
    ours = small("eager").prepare("ours")
    for against, fast, maps in (("output_attentions", 0, 2), ("eager", 0, 0), ("fast", 2, 0)):
        theirs = small(against).prepare("theirs")
        layers = [module for module in theirs.model.modules() if isinstance(module, FastSelfAttention)]
        assert (len(layers), len(theirs().maps)) == (fast, maps)
    output = ours()
    assert [(one.shape, one.dtype) for one in output.maps] == [((2, 24, 24), torch.float16)] * 2
    assert output.states.shape == (1, 24, 32)


@pytest.mark.parametrize("against", ["output_attentions", "eager"])
def test_a_wrong_layer_shows(against):
    case = small(against)
    ours, theirs = case.prepare("ours"), case.prepare("theirs")
    with torch.no_grad():
        ours.model.encoder.layer[1].attention.self.key_proj.weight.zero_()
    assert case.difference(ours, theirs) > 1e-3
