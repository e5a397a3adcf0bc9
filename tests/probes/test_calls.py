"""Hooks tell what happens in the order it happens, and what is computed with."""

import pytest
import torch

import tiny_models
from probes.calls import Call, Watch, visible
from probes.encoders import describe


class Diary:
    """A watcher that keeps everything."""

    def __init__(self):
        self.events = []
        self.calls = []

    def begin(self, ids):
        self.events.append("begin")
        self.ids = ids

    def attended(self, call):
        self.events.append(call.layer)
        self.calls.append(call)

    def end(self):
        self.events.append("end")


def watched(model, layers, inputs, **options):
    diary = Diary()
    with torch.inference_mode(), Watch(describe(model), layers, diary, **options):
        model(**inputs)
    return diary


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_a_forward_is_told_in_order(architecture, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture).model, inputs_of(architecture)
    assert watched(model, [0, 1], inputs).events == ["begin", 0, 1, "end"]
    diary = watched(model, [1], inputs)
    assert diary.events == ["begin", 1, "end"]
    assert torch.equal(diary.ids, inputs["input_ids"])


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_a_call_has_the_states_of_its_layer(architecture, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture).model, inputs_of(architecture)
    for call in watched(model, [0, 1], inputs).calls:
        layer = describe(model).layers[call.layer]
        with torch.inference_mode():
            assert torch.equal(call.query, layer.query(call.hidden))
            assert torch.equal(call.key, layer.key(call.hidden))
        has_positions = architecture in ("deberta", "deberta-v2", "deberta-v3")
        assert (call.pos_key is not None) == (call.pos_query is not None) == has_positions


@pytest.mark.parametrize(
    ("architecture", "attention"),
    [("deberta", "eager"), *((v, a) for v in ("deberta-v2", "deberta-v3") for a in ("fast", "eager"))],
)
def test_positions_are_the_projected_relative_embeddings(architecture, attention, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture, attention).model, inputs_of(architecture)
    (call,) = watched(model, [0], inputs).calls
    with torch.inference_mode():
        embeddings = model.base_model.encoder.get_rel_embedding()
        module = describe(model).layers[0].attention
        names = {"deberta": ("pos_proj", "pos_q_proj"), "deberta-v2": ("pos_key_proj", "pos_query_proj")}
        names["deberta-v3"] = ("key_proj", "query_proj")
        as_key, as_query = (module.get_submodule(name)(embeddings) for name in names[architecture])
    for seen, whole in ((call.pos_key, as_key), (call.pos_query, as_query)):
        rows = seen.reshape(-1, seen.shape[-1])
        assert any(
            torch.allclose(rows, whole[first : first + len(rows)], rtol=0, atol=1e-6)
            for first in range(len(whole) - len(rows) + 1)
        )


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_values_are_those_of_the_layer(architecture, states, encoder_of, inputs_of):
    model, inputs = encoder_of(architecture).model, inputs_of(architecture)
    calls = watched(model, [0, 1], inputs, states=states, values=True).calls
    assert len(calls) == 2
    for call in calls:
        layer = describe(model).layers[call.layer]
        with torch.inference_mode():
            assert torch.equal(layer.values(call.value), layer.states(call.hidden)[2])
        assert (call.query is not None) == states


def test_without_states_only_what_is_shown(encoder_of, inputs_of):
    model, inputs = encoder_of("deberta-v3", "eager").model, inputs_of("deberta-v3")
    (call,) = watched(model, [0], inputs, states=False).calls
    assert (call.query, call.key, call.value, call.pos_key, call.pos_query) == (None,) * 5
    assert call.probabilities.shape[:2] == (len(inputs["input_ids"]), 2)


def test_layers_that_are_called_alone_are_not_seen(encoder_of):
    model = encoder_of("bert").model
    diary = Diary()
    with torch.inference_mode(), Watch(describe(model), [0], diary):
        model.bert.encoder.layer[0](torch.zeros(1, 3, tiny_models.WIDTH))
    assert diary.events == []


def call_with(mask):
    return Call(0, torch.empty(0), mask)


def test_which_keys_are_visible():
    assert visible(call_with(None), multiplied_mask=True) is None
    two = torch.tensor([[1, 1, 0]])
    expected = torch.tensor([[[[True, True, False]]]])
    for mask in (two, two.bool(), two.float()):
        assert torch.equal(visible(call_with(mask), multiplied_mask=True), expected)
    pairs = two[:, None] * two[:, :, None]
    assert visible(call_with(pairs), multiplied_mask=True).tolist() == [[pairs[0].bool().tolist()]]
    added = torch.zeros(1, 1, 1, 3).masked_fill(~expected, torch.finfo(torch.float32).min)
    assert torch.equal(visible(call_with(added), multiplied_mask=False), expected)
    assert torch.equal(visible(call_with(expected), multiplied_mask=False), expected)
