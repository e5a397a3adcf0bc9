"""DeBERTa's attention: `qa.disentangled` against the library's, and against a BERT of the same size.

The BERT, with torch's fused attention, is the bound: it has no position terms at all. The trap: the sum of
a normalised output hardly depends on the weights, so gradients are taken of the output's product with fixed
random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from benchmarks.comparison import Case, Options, Side, Work
from benchmarks.models import POCKET, V3_BASE, Shape, random_encoder
from qa.disentangled import install_fast_attention

EAGER = "Hugging Face, eager"


def cases(_options: Options) -> list[Case]:
    """Forward, forward and backward, the bound, the geometry of v3-base, and a training step on CUDA."""
    return [
        Attention.of("attention-forward", "forward", POCKET, batch=8, rounds=20),
        Attention.of("attention-backward", "backward", POCKET, batch=8, rounds=10),
        Attention.of("attention-bert", "forward", POCKET, batch=8, rounds=20, peer="bert"),
        Attention.of("attention-base", "forward", V3_BASE, batch=4, rounds=10),
        Attention.of("attention-cuda", "step", V3_BASE, batch=16, rounds=20, device="cuda"),
    ]


Pass = Literal["forward", "backward", "step"]
PASSES: dict[Pass, str] = {
    "forward": "forward pass in float32",
    "backward": "forward and backward pass in float32 with dropout",
    "step": "training step in bfloat16 with dropout and fused AdamW",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Case):
    """One pass of an encoder over one batch without padding.

    Attributes:
        passes: which pass.
        shape: of the encoder.
        batch: B examples.
        length: T tokens each.
        peer: the alternative: the same model as the library runs it, or a BERT.
    """

    passes: Pass
    shape: Shape
    batch: int
    length: int
    peer: Literal["eager", "bert"]

    @staticmethod
    def of(
        name: str,
        passes: Pass,
        shape: Shape,
        *,
        batch: int,
        rounds: int,
        length: int = 384,
        peer: Literal["eager", "bert"] = "eager",
        device: str = "cpu",
    ) -> Attention:
        """The case, with its words."""
        compared = "outputs" if passes == "forward" else "gradients, of each tensor's largest entry"
        return Attention(
            name=name,
            what=f"{PASSES[passes]} of {shape}, batch {batch} × {length} tokens",
            against=EAGER if peer == "eager" else "BERT of the same size, torch's fused attention",
            rounds=rounds,
            compared=compared if peer == "eager" else "none: another model",
            device=device,
            passes=passes,
            shape=shape,
            batch=batch,
            length=length,
            peer=peer,
        )

    def prepare(self, side: Side) -> Work:
        """The encoder with the same weights on both sides, and the batch."""
        if side == "theirs" and self.peer == "bert":
            model = random_encoder(self.shape.bert(), "sdpa")
        else:
            model = random_encoder(self.shape.deberta(), "eager")
        if side == "ours":
            install_fast_attention(model)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.shape.vocabulary, (self.batch, self.length), generator=generator)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs = {key: value.to(self.device) for key, value in inputs.items()}
        model.to(self.device)  # type: ignore[arg-type]  # the library wraps torch's method without its types
        if self.passes == "forward":
            return Forward(model.eval(), inputs)
        direction = torch.randn(self.batch, self.length, self.shape.width, generator=generator)
        optimizer = None
        if self.passes == "step":
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        return Backward(model.train(), inputs, direction.to(self.device), optimizer)

    def difference(self, ours: Any, theirs: Any) -> float | None:
        """Of outputs, absolute; of gradients, relative to the largest entry of each; None for a BERT."""
        if self.peer == "bert":
            return None
        if self.passes == "forward":
            return float((ours() - theirs()).abs().max())
        expected, found = theirs.gradients(), ours.gradients()
        return max(_relative(found[key], value) for key, value in expected.items())


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@dataclass(frozen=True, slots=True)
class Forward:
    """A pass without gradients."""

    model: PreTrainedModel
    inputs: dict[str, torch.Tensor]

    def __call__(self) -> torch.Tensor:
        """Hidden states [B, T, D]."""
        with torch.inference_mode():
            states: torch.Tensor = self.model(**self.inputs).last_hidden_state
        return states


@dataclass(frozen=True, slots=True)
class Backward:
    """A pass and its gradients in training mode; with an optimizer a whole step, in bfloat16."""

    model: PreTrainedModel
    inputs: dict[str, torch.Tensor]
    direction: torch.Tensor
    optimizer: torch.optim.Optimizer | None

    def __call__(self) -> None:
        """Gradients of new random dropout, and the step if there is an optimizer."""
        with torch.autocast(self.direction.device.type, torch.bfloat16, enabled=self.optimizer is not None):
            self._backward()
        if self.optimizer is not None:
            self.optimizer.step()

    def gradients(self) -> dict[str, torch.Tensor]:
        """The gradient of every weight that has one, without dropout, in float32.

        The bias of a projection of positions for keys has none: it adds the same to all scores of a query.
        """
        self.model.eval()
        self._backward()
        self.model.train()
        parameters = [item for item in self.model.named_parameters() if "pos_key_proj.bias" not in item[0]]
        return {key: value.grad.clone() for key, value in parameters if value.grad is not None}

    def _backward(self) -> None:
        self.model.zero_grad()
        states = self.model(**self.inputs).last_hidden_state
        (states * self.direction).sum().backward()
