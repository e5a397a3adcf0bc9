"""Linear layers through oneDNN against torch's own, in outputs and gradients, and where torch's must run."""

import copy

import pytest
import torch
from torch import nn

import tiny_models
from qa.fast_linear import COVERED, FEWEST_ROWS, FastLinear, install_fast_linear, product_with
from qa.model import load_encoder

ONEDNN = pytest.mark.skipif(not COVERED, reason="oneDNN is used on x86 only")


def pair(width=48, out=40, *, bias=True):
    """The same layer twice."""
    torch.manual_seed(0)
    plain = nn.Linear(width, out, bias=bias)
    fast = copy.deepcopy(plain)
    install_fast_linear(fast)
    assert type(fast) is FastLinear
    return plain, fast


def through(layer, given, direction):
    """Output and all gradients."""
    layer.zero_grad()
    given = given.detach().clone().requires_grad_()
    out = layer(given)
    (out * direction).sum().backward()
    return [out.detach(), given.grad, *(weight.grad.clone() for weight in layer.parameters())]


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (FEWEST_ROWS,), (3, 70), (2, 2, 33)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients(shape, bias):
    plain, fast = pair(bias=bias)
    given, direction = torch.randn(*shape, 48), torch.randn(*shape, 40)
    for found, expected in zip(
        through(fast, given, direction), through(plain, given, direction), strict=True
    ):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@ONEDNN
def test_its_product_is_no_further_from_the_exact_one_than_torchs():
    torch.manual_seed(1)
    left, right, bias = torch.randn(300, 400), torch.randn(200, 400), torch.randn(200)
    exact = nn.functional.linear(left.double(), right.double(), bias.double())
    errors = [
        (product.double() - exact).square().mean().sqrt()
        for product in (product_with(left, right, bias), nn.functional.linear(left, right, bias))
    ]
    assert errors[0] < 3 * errors[1], errors


@ONEDNN
def test_onednn_is_what_runs(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "qa.fast_linear.product_with",
        lambda left, right, bias=None: calls.append(left.shape) or nn.functional.linear(left, right, bias),
    )
    _, fast = pair()
    fast(torch.randn(2, FEWEST_ROWS, 48))
    assert calls == [(2 * FEWEST_ROWS, 48)]


@pytest.mark.parametrize("given", ["few", "empty", "float64", "bfloat16", "autocast", "turned off"])
def test_what_torch_does_itself(given, monkeypatch):
    def never(*_):
        raise AssertionError("oneDNN was asked")

    monkeypatch.setattr("qa.fast_linear.product_with", never)
    if given == "turned off":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    plain, fast = pair()
    rows = torch.randn({"few": 2, "empty": 0}.get(given, 64), 48)
    if given in ("float64", "bfloat16"):
        dtype = getattr(torch, given)
        plain, fast, rows = plain.to(dtype), fast.to(dtype), rows.to(dtype)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=given == "autocast"),
        torch.no_grad(),
    ):
        assert torch.equal(fast(rows), plain(rows))


def test_rows_that_are_slices_of_wider_ones():
    plain, fast = pair()
    wide = torch.randn(50, 3, 48)
    with torch.no_grad():
        torch.testing.assert_close(fast(wide[:, 1]), plain(wide[:, 1]), atol=1e-5, rtol=0)
        expanded = wide[:1].expand(50, 3, 48)
        torch.testing.assert_close(fast(expanded), plain(expanded), atol=1e-5, rtol=0)


def test_frozen_weights_get_no_gradient():
    _, fast = pair()
    fast.weight.requires_grad_(False)
    given = torch.randn(64, 48, requires_grad=True)
    fast(given).sum().backward()
    assert fast.weight.grad is None
    assert fast.bias.grad is not None
    torch.testing.assert_close(given.grad, fast.weight.sum(0).expand(64, 48))


def test_training_after_inference():
    _, fast = pair()
    with torch.inference_mode():
        fast(torch.randn(64, 48))
    fast(torch.randn(64, 48)).sum().backward()


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_auto_takes_them_for_every_encoder_and_a_named_implementation_does_not(architecture, tmp_path):
    folder = str(tiny_models.save(tmp_path / "model", architecture))
    kinds = {
        attention: {type(module) for module in load_encoder(folder, attention).model.modules()}
        for attention in ("auto", "eager", "sdpa")
    }
    assert FastLinear in kinds["auto"]
    assert nn.Linear not in kinds["auto"]
    assert FastLinear not in kinds["eager"] | kinds["sdpa"]
