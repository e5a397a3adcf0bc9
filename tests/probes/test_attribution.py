"""Attributions are what paper says on models set by hand, and sum to what they should on any."""

import numpy as np
import pytest
import torch

import paper
from probes.attribution import METHODS, TOLERANCE, Attribution, Problem, attribute, attribute_layers, solve
from probes.embedded import BASELINES, Embedded
from probes.maps import CLS, SEP
from probes.targets import Asked, Target
from probes.word_scores import word_numbers
from probing import CONTEXT, QUESTION, every_implementation
from qa.errors import UserError
from qa.evaluation import Reading
from qa.model import load_encoder
from qa.reader import Reader
from qa.squad import load_questions

every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def known():
    return Asked.of(paper.reader(), paper.QUESTION, paper.CONTEXT)


@pytest.fixture(scope="module")
def linear():
    """Without queries and keys every token attends to all T alike: each score is linear in the embeddings."""
    start = paper.CONTEXT.index(paper.ANSWER)
    gold = (start, start + len(paper.ANSWER))
    return Asked.of(paper.reader(query=0.0, key=0.0), paper.QUESTION, paper.CONTEXT, gold=gold)


def problem(**changes):
    """Three tokens of two numbers, the last two one word; f(x) = 2 x00 - 3 x01 + x10 + 4 x21."""
    weights = torch.tensor([[2.0, -3], [1, 0], [0, 4]])
    values = {
        "function": lambda hidden: (hidden * weights).sum((1, 2)),
        "own": torch.tensor([[[1.0, 2], [3, 4], [5, 6]]]),
        "base": torch.tensor([[[0.0, 1], [1, 1], [5, 2]]]),
        "words": torch.tensor([0, 1, 1]),
        "steps": 3,
        "batch": 2,
    }
    return Problem(**(values | changes))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("integrated_gradients", [2 * 1 - 3 * 1, 2, 4 * 4]),
        ("gradient_x_input", [2 * 1 - 3 * 2, 3, 4 * 6]),
        ("saliency", [2 + 3, 1, 4]),
        ("occlusion", [2 * 1 - 3 * 1, (2 + 16) / 2, (2 + 16) / 2]),  # the word's two tokens share its effect
    ],
)
def test_a_linear_function_on_paper(method, expected):
    scores, steps = solve(METHODS[method], problem(), difference=17.0, tolerance=None)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert steps == (3 if method == "integrated_gradients" else 0)


def test_steps_are_doubled_until_the_delta_is_small():
    """From 0 to 1, nearly all of it at one place of the path, which few steps miss."""
    steep = problem(
        function=lambda hidden: torch.sigmoid(400 * (hidden[:, 0, 0] - 0.7)),
        own=torch.ones(1, 1, 1),
        base=torch.zeros(1, 1, 1),
        words=torch.tensor([0]),
        steps=4,
    )
    scores, steps = solve(METHODS["integrated_gradients"], steep, difference=1.0, tolerance=1e-3)
    assert steps > 64
    assert abs(scores.sum() - 1) <= 1e-3
    assert solve(METHODS["integrated_gradients"], steep, difference=1.0, tolerance=None)[1] == 4
    again, most = solve(METHODS["integrated_gradients"], steep, difference=2.0, tolerance=1e-3)
    assert most == 1024  # it is given up, with the delta for everyone to see
    assert abs(again.sum() - 1) <= 1e-3


@every_method
@pytest.mark.parametrize("baseline", ["mask", "zero"])
def test_a_linear_model_on_paper(linear, method, baseline):
    """Of T tokens each gets 1/T of the value 2 of `favorite`; start and end score are 20 times that each."""
    found = attribute(linear, Target("gold"), method=method, baseline=baseline)
    share = 2 * paper.SCALE * paper.VALUE / len(found.scores)
    words = [word.text for word in found.words()]
    if method == "saliency":
        # The value of every token reaches the answer's, which adds what it is itself, [4] and [2].
        sizes = np.bincount(word_numbers(found.layout)[word_numbers(found.layout) >= 0])
        expected = share * sizes + 2 * (paper.SCALE + 1) * (np.array(words) == paper.ANSWER)
    else:
        expected = share * (np.array(words) == paper.WORD)
        assert found.delta == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(found.word_scores, expected, atol=1e-4)
    assert found.score == pytest.approx(share, abs=1e-4)
    assert found.base_score == pytest.approx(0, abs=1e-4)


@every_method
@pytest.mark.parametrize("target", [Target(), Target(part="start"), Target(against="no_answer")])
def test_the_word_on_which_the_answer_depends_is_first(known, method, target):
    found = attribute(known, target, method=method)
    words = [word.text for word in found.words()]
    assert words[int(found.word_scores.argmax())] == paper.WORD
    score = paper.SCALE * paper.VALUE * (1 if target.part == "start" else 2)
    if target.against is not None:
        score -= score / len(found.scores)  # [CLS] attends to all alike, so to this word as well
    if method in ("integrated_gradients", "occlusion"):
        # All other words are as [MASK] is, so nothing is left for them.
        expected = score * (np.array(words) == paper.WORD)
        np.testing.assert_allclose(found.word_scores, expected, atol=0.01 * score)
    assert found.score - found.base_score == pytest.approx(score, rel=1e-4)


def test_no_answer_is_explained_by_nothing_in_the_text(known):
    found = attribute(known, Target("no_answer"), method="occlusion")
    assert np.abs(found.word_scores).max() < 10  # [CLS] attends to all alike, to `favorite` with 1/T
    assert found.score > 2 * paper.NO_ANSWER - 0.1


@every_implementation
def test_integrated_gradients_are_complete_for_fixed_positions(architecture, attention, reader_of):
    """To 1e-3 of the difference, of the scores at positions that are not the highest all along the path."""
    asked = Asked.of(reader_of(architecture, attention), QUESTION, CONTEXT)
    fixed = asked.fix(Target())
    found = attribute(asked, fixed)
    assert found.tolerance == TOLERANCE == 1e-3
    assert found.delta_share <= 1e-3
    assert found.score == pytest.approx(fixed.score, abs=1e-3)
    special = np.isin(found.layout.regions, (CLS, SEP))
    np.testing.assert_allclose(found.scores[special], 0, atol=1e-6)  # they stay, and so have no part in it
    assert found.word_scores.sum() == pytest.approx(found.scores.sum(), abs=1e-4)


def test_a_target_that_moved_along_the_path_would_be_seen(reader_of):
    """The start of the best span is elsewhere on the path: who followed the highest score would differ."""
    asked = Asked.of(reader_of("deberta-v3"), QUESTION, CONTEXT)
    fixed = asked.fix(Target(part="start"))
    (position,) = np.flatnonzero(fixed.weights[0])
    with torch.no_grad():
        embedded = Embedded(asked, fixed.window)
        steps = torch.linspace(0, 1, 11)[:, None, None]
        with embedded:
            start = embedded.read(embedded.base + steps * (embedded.own - embedded.base))[:, 0]
    assert len(set(start.argmax(1).tolist()) - {int(position)}) > 0
    found = attribute(asked, fixed)
    assert found.base_score == pytest.approx(float(start[0, position]), abs=1e-4)
    assert found.scores.sum() == pytest.approx(float(start[-1, position] - start[0, position]), rel=2e-3)


@pytest.mark.parametrize("architecture", ["bert", "albert", "deberta-v2"])
def test_gradients_are_those_of_torch(architecture, reader_of):
    """Gradient × input and saliency, by autograd through the model with its embeddings given to it."""
    asked = Asked.of(reader_of(architecture, "eager"), "Who?", "My favorite color is red.")
    fixed = asked.fix(Target(against="no_answer"))
    model = asked.reader.encoder.model
    inputs = asked.reader.encoder.tokenizer(asked.question, asked.context, return_tensors="pt")
    kept = []

    def keep(module, arguments, output):
        kept.append(output.detach().requires_grad_())
        return kept[0]

    with model.base_model.embeddings.register_forward_hook(keep):
        output = model(**inputs)
    weights = torch.from_numpy(fixed.weights).float()
    score = (torch.stack([output.start_logits, output.end_logits], 1)[0] * weights).sum()
    (gradient,) = torch.autograd.grad(score, kept)
    product = attribute(asked, fixed, method="gradient_x_input")
    size = attribute(asked, fixed, method="saliency")
    np.testing.assert_allclose(product.scores, (gradient * kept[0]).sum(-1)[0].detach(), atol=1e-3)
    np.testing.assert_allclose(size.scores, gradient.abs().sum(-1)[0], rtol=1e-3, atol=1e-4)
    assert product.signed
    assert not size.signed


@pytest.mark.parametrize("architecture", ["bert", "deberta-v3"])
def test_occlusion_is_the_score_without_the_word(architecture, reader_of):
    asked = Asked.of(reader_of(architecture), QUESTION, CONTEXT)
    fixed = asked.fix(Target())
    found = attribute(asked, fixed, method="occlusion")
    weights, numbers = torch.from_numpy(fixed.weights), word_numbers(found.layout)
    with torch.no_grad():
        embedded = Embedded(asked, fixed.window)
        with embedded:
            for word in (0, 7, numbers.max()):
                gone = torch.from_numpy(numbers == word)[None, :, None]
                left = (embedded.read(torch.where(gone, embedded.base, embedded.own)) * weights).sum()
                assert found.word_scores[word] == pytest.approx(found.score - float(left), abs=1e-3)


def test_layers_begin_with_the_embedding_output_and_are_complete(reader_of):
    asked = Asked.of(reader_of("deberta-v3"), QUESTION, CONTEXT)
    done = []
    layers = attribute_layers(asked, Target(), progress=lambda *at: done.append(at))
    assert [found.layer for found in layers] == [0, 1]
    assert done == [(1, 2), (2, 2)]
    for found in layers:
        assert found.delta_share <= 1e-3
        assert found.score - found.base_score == pytest.approx(
            layers[0].score - layers[0].base_score, abs=1e-3
        )
    np.testing.assert_allclose(layers[0].scores, attribute(asked, Target()).scores, atol=1e-3)
    assert np.abs(layers[0].scores - layers[1].scores).max() > 0.1
    assert "input of layer 1" in layers[1].label


@every_method
def test_progress_ends_when_all_is_read(known, method):
    told = []
    found = attribute(known, Target(), method=method, batch_bytes=1, progress=lambda *one: told.append(one))
    done, total = told[-1]
    assert done == total
    assert [count for count, of in told if of == total] == [*range(1, total + 1)]
    assert not found.steps or total == found.steps


def test_batches_of_any_size_give_the_same(reader_of):
    asked = Asked.of(reader_of("bert"), QUESTION, CONTEXT)
    for method in ("integrated_gradients", "occlusion"):
        small, large = (attribute(asked, Target(), method=method, batch_bytes=size) for size in (1, 1 << 30))
        np.testing.assert_allclose(small.scores, large.scores, atol=1e-4)
        assert small.steps == large.steps


def test_the_model_is_as_it_was(reader_of):
    reader = reader_of("bert")
    weights = list(reader.encoder.model.parameters())
    before = [weight.requires_grad for weight in weights]
    attribute(Asked.of(reader, QUESTION, CONTEXT), Target(), steps=4)
    assert [weight.requires_grad for weight in weights] == before
    assert all(weight.grad is None for weight in weights)


def test_the_label_says_what_was_done(known):
    found = attribute(known, Target(), steps=8, baseline="pad")
    assert found.label.startswith(
        "integrated gradients of predicted answer, start + end score; baseline: every word as padding, "
        "8 steps; convergence delta "
    )
    assert found.label.endswith("% of the difference)")
    assert found.tolerance is None
    other = attribute(known, Target(), method="saliency").label
    assert other.startswith("saliency (no sign) of predicted answer")
    assert "convergence delta +42" in other


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "guess"}, f"method: 'guess'; choose {', '.join(METHODS)}"),
        ({"baseline": "noise"}, f"baseline: 'noise'; choose {', '.join(BASELINES)}"),
        ({"steps": 0}, "steps: 0; give 1 to 1024"),
        ({"tolerance": 1.0}, "tolerance: 1.0; give a share"),
        ({"layer": 7}, "layer: 7; this model has layers 0 to 0"),
    ],
)
def test_what_cannot_be_done(known, options, said):
    with pytest.raises(UserError, match=said):
        attribute(known, Target(), **options)


@pytest.mark.timeout(1800)  # under `make prove`, where twenty questions take up to 1,024 steps each
def test_pocket(prove):
    """Complete to 1e-3 of the difference, for an answer and for another target."""
    reader = Reader(load_encoder("pocket"), Reading(), None)
    sentence = Asked.of(reader, "What is my favorite color?", "My favorite color is red.")
    pairs = [(sentence, Target()), (sentence, Target(against="no_answer"))]
    if prove:
        questions = load_questions("pocket", "validation").limited(20).questions
        pairs += [(Asked.of(reader, one.question, one.context), Target()) for one in questions]
    for asked, target in pairs:
        found = attribute(asked, target)
        assert isinstance(found, Attribution)
        assert found.delta_share <= 1e-3
