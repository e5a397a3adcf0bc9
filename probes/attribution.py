"""Attribute a fixed target to the words of question and context, by Captum.

A method of Captum is one entry in METHODS. It is given the target's score as a function of hidden states
(see `probes.embedded`), so it works for every architecture and with whatever attention runs, the fast one
included. Scores of a token are in logits of the target: positive ones speak for it. *Convergence delta* is
what the scores sum to less what they should, the score of the window less that of its baseline; integrated
gradients are computed in more and more steps until it is a small share of that.

The trap: only integrated gradients promise a small delta. For gradient × input it says how far from linear
the model is, and a saliency has no sign at all, so sums of it mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, Saliency
from numpy.typing import NDArray

from probes.embedded import BASELINES, BATCH_BYTES, Embedded, differentiable
from probes.encoders import describe
from probes.maps import Attention
from probes.targets import Asked, Fixed, Target
from probes.word_scores import Word, by_word, words_of_layout
from qa.errors import UserError
from qa.spans import Float
from qa.windows import Progress

# Scores [B] of hidden states [B, T, D].
Function = Callable[[torch.Tensor], torch.Tensor]

TOLERANCE = 1e-3
FIRST_STEPS, MOST_STEPS = 32, 1024


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a method is given.

    Attributes:
        function: the target's score [B] of hidden states [B, T, D].
        own: hidden states of the window [1, T, D].
        base: of the baseline [1, T, D].
        words: the word of each token, from 0 [T].
        steps: between baseline and window, for methods that take steps.
        batch: how many variants to read at a time.
    """

    function: Function
    own: torch.Tensor
    base: torch.Tensor
    words: torch.Tensor
    steps: int
    batch: int


@dataclass(frozen=True, slots=True)
class Method:
    """One of Captum's methods.

    Attributes:
        label: for people.
        captum: its class, made with the function.
        options: what its `attribute` is to be given besides the hidden states.
        reduce: its attributions [T, D] as scores of tokens [T].
        signed: whether a score says for or against.
        stepped: whether it takes steps, more of which bring the delta to 0.
        reads: how many variants of the window it reads.
    """

    label: str
    captum: Callable[[Function], Any]
    options: Callable[[Problem], dict[str, Any]]
    reduce: Callable[[torch.Tensor, Problem], torch.Tensor] = lambda found, problem: found.sum(-1)
    signed: bool = True
    stepped: bool = False
    reads: Callable[[Problem], int] = lambda problem: 1


def _integrated(problem: Problem) -> dict[str, Any]:
    return {"baselines": problem.base, "n_steps": problem.steps, "internal_batch_size": problem.batch}


def _occluded(problem: Problem) -> dict[str, Any]:
    return {
        "baselines": problem.base,
        "feature_mask": problem.words[None, :, None],
        "perturbations_per_eval": problem.batch,
    }


def _shared_out(found: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Every number of a word has the effect of the whole word: its tokens share it."""
    return found[:, 0] / torch.bincount(problem.words)[problem.words]


METHODS = {
    "integrated_gradients": Method(
        "integrated gradients",
        IntegratedGradients,
        _integrated,
        stepped=True,
        reads=lambda problem: problem.steps,
    ),
    "gradient_x_input": Method("gradient × input", InputXGradient, lambda problem: {}),
    "saliency": Method("saliency (no sign)", Saliency, lambda problem: {"abs": True}, signed=False),
    "occlusion": Method(
        "occlusion by word",
        FeatureAblation,
        _occluded,
        _shared_out,
        reads=lambda problem: 1 + len(problem.words.unique()),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """How much each of T tokens of one window speaks for a target.

    Attributes:
        scores: in logits of the target [T]; without sign where `signed` is false.
        layout: tokens, characters, words and regions of the window; it has no maps.
        method: one of METHODS.
        target: what is explained, and the window.
        baseline: one of BASELINES.
        layer: the layer whose input the scores are of; None: the embedding output.
        steps: how many were taken; 0 for methods that take none.
        score: of the target, for the window.
        base_score: likewise for the baseline.
        tolerance: the share of delta to which steps were raised; None where their number was given.
    """

    scores: Float
    layout: Attention
    method: str
    target: Fixed
    baseline: str
    layer: int | None
    steps: int
    score: float
    base_score: float
    tolerance: float | None

    @property
    def signed(self) -> bool:
        """Whether a score says for or against."""
        return METHODS[self.method].signed

    @property
    def delta(self) -> float:
        """Convergence delta: what the scores sum to, less the score of the window less the baseline's."""
        return float(self.scores.sum()) - (self.score - self.base_score)

    @property
    def delta_share(self) -> float:
        """The size of the delta as a share of the difference of the scores."""
        difference = abs(self.score - self.base_score)
        return abs(self.delta) / difference if difference else float(np.inf if self.delta else 0.0)

    @property
    def label(self) -> str:
        """Method, target, baseline and delta, for people."""
        where = "" if self.layer is None else f", input of layer {self.layer}"
        steps = f", {self.steps} steps" if self.steps else ""
        return (
            f"{METHODS[self.method].label}{where} of {self.target.target.label}; baseline: "
            f"{BASELINES[self.baseline]}{steps}; convergence delta {self.delta:+.2g} "
            f"({self.delta_share:.2%} of the difference)"
        )

    @property
    def word_scores(self) -> Float:
        """Sums over the tokens of each word of question and context [W]."""
        return by_word(self.scores, self.layout)

    def words(self) -> tuple[Word, ...]:
        """The words of question and context in this window, where they are in the texts [W]."""
        return words_of_layout(self.layout)


def attribute(
    asked: Asked,
    target: Target | Fixed,
    *,
    method: str = "integrated_gradients",
    baseline: str = "mask",
    layer: int | None = None,
    steps: int | None = None,
    tolerance: float = TOLERANCE,
    batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute a target to the tokens of the window that gave its answer.

    Integrated gradients: Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365. Gradient × input:
    Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713. Saliency: Simonyan et al. 2013,
    https://arxiv.org/abs/1312.6034. Occlusion: Zeiler and Fergus 2014, https://arxiv.org/abs/1311.2901.

    Args:
        asked: the question.
        target: what to explain.
        method: one of METHODS.
        baseline: one of `probes.embedded.BASELINES`.
        layer: attribute to what enters this layer, along the way from the baseline's; None: to the embedding
            output.
        steps: how many; None: as many as bring the delta below the tolerance, MOST_STEPS at most.
        tolerance: the delta as a share of the difference of scores.
        batch_bytes: what the activations of one batch may take, about; a batch has one variant at least.
        progress: called with (variants read, variants in all); begins anew whenever more steps are needed.

    Raises:
        UserError: another method or baseline, a layer that is not there, a target that cannot be fixed, or an
            architecture that is not covered.
    """
    fixed = target if isinstance(target, Fixed) else asked.fix(target)
    _check(method, steps, tolerance)
    embedded = Embedded(asked, fixed.window, baseline=baseline, layer=layer)
    weights = torch.from_numpy(fixed.weights).to(embedded.own)
    reads = embedded.batch(batch_bytes, gradients=method != "occlusion")
    with differentiable(asked.reader.encoder.model), embedded:
        problem = Problem(
            function=lambda hidden: (embedded.read(hidden) * weights).sum((1, 2)),
            own=embedded.own,
            base=embedded.base,
            words=torch.from_numpy(embedded.layout.words).long().to(embedded.own.device),
            steps=steps or FIRST_STEPS,
            batch=reads,
        )
        score, base_score = (embedded.scores * weights).double().sum((1, 2)).tolist()
        scores, taken = solve(
            METHODS[method],
            problem,
            difference=score - base_score,
            tolerance=None if steps else tolerance,
            progress=progress,
        )
    return Attribution(
        scores=scores,
        layout=embedded.layout,
        method=method,
        target=fixed,
        baseline=baseline,
        layer=layer,
        steps=taken,
        score=score,
        base_score=base_score,
        tolerance=None if steps else tolerance,
    )


def attribute_layers(
    asked: Asked,
    target: Target | Fixed,
    *,
    method: str = "integrated_gradients",
    baseline: str = "mask",
    steps: int | None = None,
    tolerance: float = TOLERANCE,
    batch_bytes: int = BATCH_BYTES,
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """The same for what enters each of L layers; with the default, layer integrated gradients [L].

    Args:
        asked: the question.
        target: what to explain.
        method: one of METHODS.
        baseline: one of `probes.embedded.BASELINES`.
        steps: see `attribute`.
        tolerance: likewise.
        batch_bytes: likewise.
        progress: called with (layers done, layers in all).

    Raises:
        UserError: as `attribute`.
    """
    fixed = target if isinstance(target, Fixed) else asked.fix(target)
    L = len(describe(asked.reader.encoder.model).layers)
    found = []
    for layer in range(L):
        found.append(
            attribute(
                asked,
                fixed,
                method=method,
                baseline=baseline,
                layer=layer,
                steps=steps,
                tolerance=tolerance,
                batch_bytes=batch_bytes,
            )
        )
        if progress is not None:
            progress(layer + 1, L)
    return tuple(found)


def solve(
    method: Method,
    problem: Problem,
    *,
    difference: float,
    tolerance: float | None,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float64], int]:
    """Scores of the tokens [T], and the number of steps that were taken, 0 for a method without.

    Args:
        method: of METHODS, or another.
        problem: with the first number of steps.
        difference: of the scores of window and baseline.
        tolerance: share of it to which to bring the delta; None: leave the steps as they are.
        progress: see `attribute`.
    """
    while True:
        own = problem.own.detach().clone().requires_grad_()
        function = problem.function if progress is None else _counted(method, problem, progress)
        found = method.captum(function).attribute(own, **method.options(problem))[0]
        scores = method.reduce(found.detach(), problem).double().cpu().numpy()
        if not method.stepped:
            return scores, 0
        enough = tolerance is None or abs(scores.sum() - difference) <= tolerance * abs(difference)
        if enough or problem.steps >= MOST_STEPS:
            return scores, problem.steps
        problem = replace(problem, steps=2 * problem.steps)


def _counted(method: Method, problem: Problem, progress: Progress) -> Function:
    """The function of a problem, which tells how much of the method's work is done."""
    done, total = 0, method.reads(problem)

    def function(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal done
        found = problem.function(hidden)
        done += len(hidden)
        progress(done, total)
        return found

    return function


def _check(method: str, steps: int | None, tolerance: float) -> None:
    if method not in METHODS:
        raise UserError(f"method: {method!r}; choose {', '.join(METHODS)}")
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise UserError(f"steps: {steps}; give 1 to {MOST_STEPS}, or none to have enough taken")
    if not 0 < tolerance < 1:
        raise UserError(
            f"tolerance: {tolerance}; give a share of the difference between 0 and 1, such as {TOLERANCE}"
        )
