"""A probe leaves no trace, sees its own thread only, and keeps no more than the maps.

Nested probes, forwards that raise, threads, dropout, memory.
"""

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from probes.attention import AttentionProbe
from probing import assert_close, capture, every_implementation, every_kind


def state_of(model):
    """Whatever a probe could leave behind."""
    modules = {
        name: (
            type(module),
            module.training,
            *map(
                len,
                (
                    module._forward_hooks,
                    module._forward_pre_hooks,
                    module._forward_hooks_with_kwargs,
                    module._forward_pre_hooks_with_kwargs,
                    module._forward_hooks_always_called,
                    module.__dict__,
                ),
            ),
        )
        for name, module in model.named_modules()
    }
    parameters = {
        name: (parameter.requires_grad, parameter._version) for name, parameter in model.named_parameters()
    }
    return modules, parameters, model.config.to_dict(), model.config._attn_implementation


@every_implementation
def test_leaves_the_model_as_it_was(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    before = state_of(model)
    capture(model, inputs)
    assert state_of(model) == before
    with AttentionProbe(model):
        assert state_of(model) != before
    assert state_of(model) == before


@every_kind
def test_a_forward_that_raises(architecture, attention, encoder_of, inputs_of, expected_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    before = state_of(model)

    def fail(*_):
        raise ZeroDivisionError

    with torch.inference_mode(), AttentionProbe(model, dtype=torch.float32) as probe:
        handle = model.base_model.get_submodule("encoder.layer.1").register_forward_hook(fail)
        try:
            with pytest.raises(ZeroDivisionError):
                model(**inputs)
        finally:
            handle.remove()
        assert probe.captures == []
        model(**inputs)
    for one, expected in zip(probe.captures, expected_of(architecture), strict=True):
        assert_close(one.probabilities, expected, 1e-6)
    assert state_of(model) == before


@every_kind
def test_nested_probes_remove_only_their_own(architecture, attention, encoder_of, inputs_of, expected_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    before = state_of(model)
    with torch.inference_mode(), AttentionProbe(model, [0], dtype=torch.float32) as outer:
        between = state_of(model)
        with AttentionProbe(model, [1], heads=[1]) as inner:
            model(**inputs)
        assert state_of(model) == between
        model(**inputs)
    assert state_of(model) == before
    count = len(inputs["input_ids"])
    assert (len(outer.captures), len(inner.captures)) == (2 * count, count)
    for number, expected in enumerate(expected_of(architecture)):
        assert_close(inner.captures[number].probabilities, expected[1:, 1:], 5e-4)
        assert_close(outer.captures[number].probabilities, expected[:1], 1e-6)
        assert_close(outer.captures[count + number].probabilities, expected[:1], 1e-6)


def test_a_probe_holds_nothing_once_it_is_dropped(encoder_of, inputs_of):
    # A cycle would keep gigabytes until the next collection.
    gc.disable()
    try:
        with AttentionProbe(encoder_of("bert").model) as probe:
            encoder_of("bert").model(**inputs_of("bert"))
        gone = weakref.ref(probe.captures[0].probabilities)
        del probe
        assert gone() is None
    finally:
        gc.enable()


@every_kind
def test_two_threads_on_one_model(architecture, attention, encoder_of, inputs_of, expected_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    before, expected = state_of(model), expected_of(architecture)
    together = threading.Barrier(3)

    @torch.inference_mode()
    def work(example):
        together.wait()
        found = []
        for _ in range(20):
            with AttentionProbe(model, dtype=torch.float32) as probe:
                model(**{name: tensor[example : example + 1] for name, tensor in inputs.items()})
            found += probe.captures
        return found

    with ThreadPoolExecutor(3) as threads:
        for example, found in enumerate(threads.map(work, range(3))):
            assert len(found) == 20
            for one in found:
                assert_close(one.probabilities, expected[example], 1e-6)
    assert state_of(model) == before


def test_a_probe_does_not_see_other_threads(encoder_of, inputs_of):
    model, inputs = encoder_of("bert").model, inputs_of("bert")
    with AttentionProbe(model) as probe, ThreadPoolExecutor(1) as other:
        other.submit(model, **inputs).result()
    assert probe.captures == []


@every_implementation
def test_in_training_the_probabilities_are_those_before_dropout(
    architecture, attention, encoder_of, inputs_of, expected_of
):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    without_dropout = expected_of(architecture)  # of the same model, so while it is not training
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    rates, before = [dropout.p for dropout in dropouts], state_of(model)
    try:
        model.train()
        torch.manual_seed(1)
        expected = model(**inputs).start_logits
        torch.manual_seed(1)
        with AttentionProbe(model, dtype=torch.float32) as probe:
            assert torch.equal(model(**inputs).start_logits, expected)  # no random number was taken
        for one in probe.take():
            assert_close(one.probabilities.sum(-1), torch.ones(one.probabilities.shape[:-1]), 1e-6)

        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Dropout):
                of_probabilities = name.endswith(
                    ("self.dropout", "attn.dropout", "attention.dropout", "attention_dropout")
                )
                module.p = 0.5 if of_probabilities else 0.0
        with AttentionProbe(model, [0], dtype=torch.float32) as probe:
            model(**inputs)
        # Nothing is random before the first layer's probabilities now.
        for one, maps in zip(probe.captures, without_dropout, strict=True):
            assert_close(one.probabilities, maps[:1], 1e-6)
    finally:
        for dropout, rate in zip(dropouts, rates, strict=True):
            dropout.p = rate
        model.eval()
    assert state_of(model) == before


@every_kind
def test_under_autocast_probabilities_are_still_float32(
    architecture, attention, encoder_of, inputs_of, expected_of
):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    with torch.autocast("cpu", torch.bfloat16):
        captures = capture(model, inputs, dtype=torch.float32)
    for one, expected in zip(captures, expected_of(architecture), strict=True):
        assert_close(one.probabilities.sum(-1), torch.ones(expected.shape[:-1]), 5e-3)
        assert_close(one.probabilities, expected, 0.2)  # bfloat16 has three digits


PEAK = """
import resource, sys
from contextlib import nullcontext
import torch
from transformers import DebertaV2Config, DebertaV2ForQuestionAnswering
from probes.attention import AttentionProbe
from qa.disentangled import install_fast_attention

torch.set_num_threads(1)
torch.manual_seed(0)
config = DebertaV2Config(
    vocab_size=100, hidden_size=192, num_hidden_layers=12, num_attention_heads=12, intermediate_size=768,
    relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=256, share_att_key=True,
    norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0,
)
model = DebertaV2ForQuestionAnswering(config).eval()
install_fast_attention(model)
ids = torch.randint(5, 100, (1, 384))
with torch.inference_mode(), AttentionProbe(model) if sys.argv[1] == "capture" else nullcontext() as probe:
    model(ids)
if probe:
    assert probe.captures[0].probabilities.shape == (12, 12, 384, 384)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_memory_is_that_of_the_maps():
    """The maps of deberta-v3-base at 384 tokens, in fresh processes with a narrower model."""
    processes = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(PEAK), what], stdout=subprocess.PIPE)
        for what in ("nothing", "capture")
    ]
    without, with_probe = (int(process.communicate()[0]) for process in processes)
    above = with_probe - without
    maps = 12 * 12 * 384 * 384 * 2
    print(f"{above / 1e6:.1f} MB above, maps {maps / 1e6:.1f} MB")
    assert above <= 1.2 * maps
