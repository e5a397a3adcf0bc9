"""What sessions share: loaded once, asked once, within bounds, read-only, and never mixed up."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import streamlit as st
import torch

import small_runs
import tiny
import tiny_models
from dashboard import measures
from dashboard.data import answers
from dashboard.data.answers import Store, arrays_of
from probes.attend import attend
from probes.knockout import knock_out_each
from probes.norms import norm_weighted
from probes.summaries import rollout, without_sinks
from probes.terms import read_terms
from qa.errors import UserError
from qa.reader import Reader

QUESTION, CONTEXT = "Who wrote the first book?", " ".join(tiny.SENTENCES[:3])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("answers") / "experiments"
    return small_runs.imported(root, "small", max_length=64)


@pytest.fixture(autouse=True)
def nothing_kept():
    st.cache_resource.clear()


@pytest.fixture
def model(experiment):
    return answers.load(experiment)


class Forwards:
    """Counts the forwards of a model."""

    def __init__(self, model):
        self.count = 0
        self.remove = model.reader.encoder.model.register_forward_pre_hook(self._one)

    def _one(self, module, arguments):
        self.count += 1

    def since(self):
        count, self.count = self.count, 0
        return count


def test_a_model_is_loaded_once_until_its_files_change(experiment):
    first = answers.load(experiment)
    assert answers.load(experiment) is first
    metrics = experiment.path / "metrics.json"
    metrics.write_text(metrics.read_text() + "\n")
    changed = answers.load(experiment)
    assert changed is not first
    assert changed.fingerprint != first.fingerprint


def test_a_missing_file_is_one_line(experiment, tmp_path):
    folder = shutil.copytree(experiment.path, tmp_path / "copy")
    (folder / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"metrics\.json"):
        answers.load(type(experiment)(folder))


def test_what_it_says_of_the_model(model):
    assert (model.name, model.layers, model.heads) == ("small", tiny_models.LAYERS, tiny_models.HEADS)
    assert model.terms == ("c2c", "c2p", "p2c")


def test_an_experiment_without_a_model_says_so(experiment, tmp_path):
    folder = tmp_path / "none"
    folder.mkdir()
    for name in ("config.yaml", "status.json"):
        (folder / name).write_bytes((experiment.path / name).read_bytes())
    with pytest.raises(UserError, match="has no model in"):
        answers.load(type(experiment)(folder))


def test_the_answer_and_the_maps_are_the_readers_own(experiment, model):
    asked = answers.ask(model, QUESTION, CONTEXT)
    own = Reader.of(experiment)
    assert asked.answer == own.answer(QUESTION, CONTEXT)
    expected = attend(own, QUESTION, CONTEXT)
    for window in range(asked.answer.windows):
        np.testing.assert_allclose(
            answers.look(model, asked, window).probabilities,
            expected.window(window).probabilities,
            rtol=0,
            atol=1e-3,
        )


def test_asking_again_and_switching_heads_run_no_model(model):
    forwards = Forwards(model)
    asked = answers.ask(model, QUESTION, CONTEXT)
    window = asked.answer.window
    answers.look(model, asked, window)
    assert forwards.since() >= 2
    for layer, head in np.ndindex(model.layers, model.heads):
        for name in ("attention", "text", "norms", "rollout"):
            measures.measured(name, model, asked, window=window, layer=layer, head=head)
        answers.ask(model, QUESTION, CONTEXT)
        answers.picture(model, asked, window, ink="#08306b", special=True)
    assert forwards.since() == 0
    for name in measures.offered(model):
        for head in range(model.heads):
            measures.measured(name, model, asked, window=window, layer=1, head=head)
    assert forwards.since() == 1, "the terms of a layer"
    forwards.remove.remove()


def test_a_context_of_one_window_is_answered_and_captured_in_one_forward(experiment, model):
    forwards = Forwards(model)
    asked = answers.ask(model, QUESTION, "red")
    attention = answers.look(model, asked, 0)
    assert forwards.since() == 1
    own = attend(Reader.of(experiment), QUESTION, "red")
    assert asked.answer == own.answer
    np.testing.assert_array_equal(attention.probabilities, own.window().probabilities)
    forwards.remove.remove()


def test_another_question_context_or_window_is_another_key(model):
    asked = answers.ask(model, QUESTION, CONTEXT)
    for question, context in ((QUESTION + "?", CONTEXT), (QUESTION, CONTEXT + ".")):
        assert answers.ask(model, question, context) is not asked
    first, second = (answers.look(model, asked, window).windows[0] for window in (0, 1))
    assert (first, second) == (0, 1)


def test_every_measure_is_what_probes_make_of_the_head(experiment, model):
    asked = answers.ask(model, QUESTION, CONTEXT)
    window, layer, head = asked.answer.window, 1, 0
    reader = Reader.of(experiment)
    whole = attend(reader, QUESTION, CONTEXT, dtype=torch.float32).window(window)
    one = whole.select(layers=[layer], heads=[head])
    terms = read_terms(reader, QUESTION, CONTEXT, layers=[layer], window=window)
    expected = {
        "attention": one.probabilities,
        "text": without_sinks(one).probabilities,
        "norms": norm_weighted(one).probabilities,
        "rollout": rollout(whole).select(layers=[layer]).probabilities,
        **{term: terms.centred(term)[:, [head]] for term in model.terms},
        **{f"no-{term}": terms.without(term).probabilities[:, [head]] for term in model.terms},
    }
    assert set(measures.offered(model)) == set(expected) == set(measures.MEASURES)
    for name, maps in expected.items():
        found, number = measures.measured(name, model, asked, window=window, layer=layer, head=head)
        np.testing.assert_allclose(found.probabilities, maps, rtol=0, atol=5e-3 if name == "norms" else 2e-3)
        assert found.heads == (number,)
        assert found.layers == (layer,)
        if measures.MEASURES[name].shares:
            np.testing.assert_allclose(found.probabilities.sum(-1, dtype=np.float32), 1, atol=2e-3)


def test_a_bert_has_no_terms(tmp_path):
    root = tmp_path / "experiments"
    tiny_models.save(tmp_path / "model", "bert")
    model = answers.load(small_runs.imported(root, "bert", max_length=64))
    assert measures.offered(model) == ["attention", "text", "norms", "rollout"]


def test_effects_of_all_heads_are_kept(experiment, model):
    asked = answers.ask(model, QUESTION, CONTEXT)
    assert answers.known_effects(model, asked, how="zero") is None
    steps = []
    found = answers.knock_out_all(model, asked, how="zero", progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == model.layers * model.heads * asked.answer.windows
    assert answers.known_effects(model, asked, how="zero") is found
    assert answers.known_effects(model, asked, how="mean") is None
    expected = knock_out_each(Reader.of(experiment), QUESTION, CONTEXT)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
    one = answers.knock_out_one(model, asked, (1, 0), how="zero")
    assert one.probability[0] == pytest.approx(found.probability[1, 0], abs=1e-6)


def test_maps_without_special_tokens(model):
    asked = answers.ask(model, QUESTION, CONTEXT)
    attention = answers.look(model, asked, 0)
    shown = answers.maps_shown(attention, special=False)
    special = np.isin(attention.regions, (0, 2))
    assert not shown[..., special].any()
    np.testing.assert_array_equal(shown[..., ~special], attention.probabilities[..., ~special])
    assert answers.maps_shown(attention, special=True) is attention.probabilities


def test_arrays_are_read_only(model):
    asked = answers.ask(model, QUESTION, CONTEXT)
    kept = [asked, answers.look(model, asked, 0), answers.terms(model, asked, 0, 0)]
    for value in kept:
        arrays = [*arrays_of(value)]
        assert arrays
        assert not any(array.flags.writeable for array in arrays)
    with pytest.raises(ValueError, match="read-only"):
        kept[1].probabilities[0] = 0


def test_all_who_ask_at_once_get_their_own(model, prove):
    sessions = 40 if prove else 8
    asked = [
        (f"Who wrote the {tiny.WORDS[n % len(tiny.WORDS)]} {n}?", " ".join(tiny.SENTENCES[n % 3 :]))
        for n in range(sessions)
    ]
    together = threading.Barrier(sessions)

    def one(pair):
        together.wait()
        found = answers.ask(model, *pair)
        return found, answers.look(model, found, found.answer.window)

    with ThreadPoolExecutor(sessions) as pool:
        all_found = [*pool.map(one, asked)]
    st.cache_resource.clear()
    for pair, (found, attention) in zip(asked, all_found, strict=True):
        alone = attend(model.reader, *pair)
        assert (found.question, found.context) == pair
        assert found.answer == alone.answer
        assert (attention.question, attention.context) == pair
        np.testing.assert_allclose(attention.probabilities, alone.window().probabilities, rtol=0, atol=1e-3)


def test_who_asks_the_same_at_once_waits_for_one_answer(model):
    forwards, together = Forwards(model), threading.Barrier(4)

    def one(_):
        together.wait()
        return answers.ask(model, QUESTION, "red")

    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(one, range(4))]
    assert all(one is found[0] for one in found)
    assert forwards.since() == 1
    forwards.remove.remove()


def test_the_store_forgets_what_was_used_longest_ago():
    store, lock = Store(most_bytes=100), threading.Lock()

    def array():
        return np.zeros(5)  # 40 bytes

    first, second = store.get("a", lock, array), store.get("b", lock, array)
    assert store.get("a", lock, array) is first
    store.get("c", lock, array)
    assert store.known("b") is None
    assert store.known("a") is first
    assert store.size() == 80
    assert store.get("b", lock, array) is not second
    store.get("large", lock, lambda: np.zeros(50))
    assert store.known("large") is not None, "the last one is kept, however large"
    assert store.size() == 400


def test_what_raises_is_not_kept():
    store, lock = Store(most_bytes=100), threading.Lock()
    with pytest.raises(UserError):
        store.get("a", lock, lambda: (_ for _ in ()).throw(UserError("no")))
    assert store.get("a", lock, lambda: 5) == 5
    assert not lock.locked()


def test_at_least_as_many_captures_as_promised():
    one_capture = 144 * 384 * 384 * 2
    assert answers.STORE_BYTES // one_capture >= 32
    assert answers.MODELS >= 4
