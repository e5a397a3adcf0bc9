"""Attention × gradient against the gradient that torch itself takes of the probabilities."""

import numpy as np
import pytest
import torch

import paper
from probes.head_gradients import attention_gradients, captured
from probes.targets import Asked, Target
from probing import CONTEXT, IMPLEMENTATIONS, QUESTION


def by_torch(asked, fixed):
    """Probabilities times their gradients [L, H, T, T], of the library's eager model."""
    model = asked.reader.encoder.model
    window = asked.windows[fixed.window]
    inputs = {"input_ids": window.ids, "token_type_ids": window.types}
    wanted = {name: torch.from_numpy(ids[None]).long() for name, ids in inputs.items()}
    if "token_type_ids" not in asked.reader.encoder.tokenizer.model_input_names:
        del wanted["token_type_ids"]
    output = model(**wanted, output_attentions=True)
    scores = torch.stack([output.start_logits, output.end_logits], 1)[0]
    total = (scores * torch.from_numpy(fixed.weights).float()).sum()
    gradients = torch.autograd.grad(total, output.attentions)
    return torch.cat([maps * own for maps, own in zip(output.attentions, gradients, strict=True)]).detach()


@pytest.mark.parametrize(("architecture", "attention"), IMPLEMENTATIONS)
def test_the_gradients_of_torch(architecture, attention, reader_of):
    asked = Asked.of(reader_of(architecture, attention), QUESTION, CONTEXT)
    fixed = asked.fix(Target(against="no_answer"))
    model = asked.reader.encoder.model
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    found = attention_gradients(asked, fixed)
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    expected = by_torch(Asked.of(reader_of(architecture, "eager"), QUESTION, CONTEXT), fixed)
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-4 * expected.abs().max())
    assert found.probabilities.dtype == np.float32
    assert (found.probabilities < 0).any()
    assert found.norms is None


def test_the_head_that_carries_the_answer():
    """The answer's token gets 2 * 20 * 2 from `favorite` for each unit of probability, which is nearly 1."""
    asked = Asked.of(paper.reader(), paper.QUESTION, paper.CONTEXT)
    fixed = asked.fix(Target())
    found = attention_gradients(asked, Target(), attention=captured(asked, fixed.window))
    (places,) = np.argwhere(found.probabilities[0, 0] > 1)
    known = asked.reader.encoder.tokenizer(paper.QUESTION).char_to_token(paper.QUESTION.index(paper.WORD))
    assert places.tolist() == [fixed.tokens[0], known]
    assert found.probabilities[0, 0][tuple(places)] == pytest.approx(2 * paper.SCALE * paper.VALUE, rel=1e-4)
