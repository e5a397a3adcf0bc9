"""Capturing every attention map of a forward pass: `AttentionProbe` against `output_attentions`.

Ours runs the fast attention and stores the maps in float16. It is compared with the library's way to the same
maps, and with what one would run who wants none: the library's forward pass, and the fast one, beside which
the memory of ours is that of the maps.

The trap: who keeps the maps of one round while the next is made needs twice the memory; so a round gives its
maps away, and holds none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from benchmarks.attention import EAGER
from benchmarks.comparison import Case, Options, Side
from benchmarks.models import V3_BASE, Shape, random_encoder
from probes.attention import AttentionProbe
from qa.disentangled import install_fast_attention

# What is run: attention and whether the maps are kept.
Way = Literal["probe", "output_attentions", "eager", "fast"]
AGAINST: dict[Way, str] = {
    "output_attentions": f"{EAGER}, output_attentions=True",
    "eager": f"{EAGER}, no map captured",
    "fast": "fast attention, no map captured",
}


def cases(_options: Options) -> list[Case]:
    """The same maps, and the forward pass without any, eager and fast."""
    return [
        Capturing.of("capture", V3_BASE, against="output_attentions", rounds=10),
        Capturing.of("capture-eager", V3_BASE, against="eager", rounds=10),
        Capturing.of("capture-fast", V3_BASE, against="fast", rounds=10),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capturing(Case):
    """A forward pass over one example, with all its maps on our side.

    Attributes:
        shape: of the encoder.
        length: T tokens.
        way: of the alternative.
    """

    shape: Shape
    length: int
    way: Way

    @staticmethod
    def of(name: str, shape: Shape, *, against: Way, rounds: int, length: int = 384) -> Capturing:
        """The case, with its words."""
        maps = shape.layers * shape.heads
        megabytes = maps * length**2 * 2 / 1e6
        return Capturing(
            name=name,
            what=f"forward pass of {shape}, {length} tokens, all {maps} maps in float16 ({megabytes:.0f} MB)",
            against=AGAINST[against],
            rounds=rounds,
            compared="probabilities" if against == "output_attentions" else "outputs",
            shape=shape,
            length=length,
            way=against,
        )

    def prepare(self, side: Side) -> Pass:
        """The encoder with the same weights on both sides, and the example."""
        way = "probe" if side == "ours" else self.way
        model = random_encoder(self.shape.deberta(), "eager").eval()
        if way in ("probe", "fast"):
            install_fast_attention(model)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.shape.vocabulary, (1, self.length), generator=generator)
        return Pass(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, way)

    def difference(self, ours: Any, theirs: Any) -> float | None:
        """Of the maps, where both sides have them; otherwise of the hidden states that come out."""
        found, expected = ours(), theirs()
        if self.way != "output_attentions":
            return float((found.states - expected.states).abs().max())
        pairs = zip(found.maps, expected.maps, strict=True)
        return max(float((one.float() - other).abs().max()) for one, other in pairs)


@dataclass(frozen=True, slots=True)
class Output:
    """What a pass gives.

    Attributes:
        states: hidden states [1, T, D].
        maps: attention of each layer [H, T, T]; none where none is kept.
    """

    states: torch.Tensor
    maps: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass without gradients."""

    model: PreTrainedModel
    inputs: dict[str, torch.Tensor]
    way: Way

    @torch.inference_mode()
    def __call__(self) -> Output:
        """Hidden states and maps."""
        if self.way == "probe":
            with AttentionProbe(self.model) as probe:
                states = self.model(**self.inputs).last_hidden_state
            (capture,) = probe.captures
            return Output(states, tuple(capture.probabilities))
        if self.way == "output_attentions":
            output = self.model(**self.inputs, output_attentions=True)
            return Output(output.last_hidden_state, tuple(layer[0] for layer in output.attentions))
        return Output(self.model(**self.inputs).last_hidden_state, ())
