"""Integrated gradients of an answer: `probes.attribution` against transformers-interpret.

Both take the same steps on the same BERT from the same baseline. The other library lets the target follow the
highest score along the path, gives the baseline other positions, and is one off in the token types. So the
model here has neither positions nor token types, and a head by which [CLS] scores highest all along the path:
what is attributed is "no answer", and the numbers of both must be equal.

The trap: the other library reads all steps in one batch unless it is told otherwise. That is how it comes,
and so it is timed; beside its time stands the memory that this takes.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    BertForQuestionAnswering,
    BertTokenizer,
)

from benchmarks.comparison import Case, Options, Side, UnavailableError, Work
from benchmarks.data import find_dataset, name_of
from benchmarks.models import POCKET
from probes.attribution import attribute
from probes.targets import Asked, Target
from qa.evaluation import Reading
from qa.model import load_encoder, quiet_library
from qa.reader import Reader
from qa.spans import Float
from qa.squad import Question, load_questions

PEER = "transformers-interpret==0.10.0"
STEPS, WORDS = 50, 150
# Of the path from baseline to window, where [CLS] is made to score highest.
PLACES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def cases(options: Options) -> list[Case]:
    """An answer's score, which the page explains; and start and end score each, as the other library does."""
    return [
        Attributing.of("attribution", options, parts=("sum",)),
        Attributing.of("attribution-parts", options, parts=("start", "end")),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributing(Case):
    """Attributions to every token for one question.

    Attributes:
        dataset: hub name, SQuAD JSON file or pocket.
        scratch: where the model and the other library go.
        parts: of the target, each attributed on its own.
    """

    dataset: str
    scratch: Path
    parts: tuple[str, ...]

    @staticmethod
    def of(name: str, options: Options, *, parts: tuple[str, ...]) -> Attributing:
        """The case for these options."""
        dataset = find_dataset(options, "validation")
        scores = "an answer" if parts == ("sum",) else "start and end score, each"
        about = f"about {WORDS} words of {name_of(dataset, 'validation')}"
        return Attributing(
            name=name,
            what=f"integrated gradients of {scores} in {STEPS} steps, BERT of pocket's size, {about}",
            against="transformers-interpret 0.10.0, which attributes start and end apart",
            rounds=5,
            warm_up=1,
            compared="attributions, of the largest",
            dataset=dataset,
            scratch=options.scratch,
            parts=parts,
        )

    def prepare(self, side: Side) -> Work:
        """The model and the question, loaded."""
        folder, question = material(self.dataset, self.scratch)
        if side == "ours":
            return Ours(folder, question, self.parts)
        return Theirs(folder, question, self.parts, library(self.scratch))

    def difference(self, ours: Ours, theirs: Theirs) -> float:
        """The largest of all tokens."""
        own, other = ours(), theirs()
        return float(np.abs(own - other).max() / np.abs(own).max())


@lru_cache(maxsize=1)
def material(dataset: str, scratch: Path) -> tuple[Path, Question]:
    """The checkpoint, and a question whose context has the usual length."""
    questions = load_questions(dataset, "validation").questions
    nearest = min(questions, key=lambda one: abs(len(one.context.split()) - WORDS))
    folder = scratch / "steady-bert"
    if not folder.exists():
        texts = dict.fromkeys([one.context for one in questions] + [one.question for one in questions])
        tokenizer = BertTokenizer().train_new_from_iterator(texts, POCKET.vocabulary, show_progress=False)
        save_steady(folder, tokenizer, nearest)
    return folder, nearest


def save_steady(folder: Path, tokenizer: BertTokenizer, question: Question) -> None:
    """A BERT with random weights, no positions, no token types, for which [CLS] always scores highest."""
    with torch.random.fork_rng(devices=[]), quiet_library(), torch.no_grad():
        torch.manual_seed(0)
        config = POCKET.bert()
        config.vocab_size = len(tokenizer)
        model = BertForQuestionAnswering(config).eval()
        model.bert.embeddings.position_embeddings.weight.zero_()
        model.bert.embeddings.token_type_embeddings.weight.zero_()
        read = tokenizer(question.question, question.context, return_tensors="pt")
        hidden = _along_the_path(model, read["input_ids"], tokenizer)
        apart = (hidden[:, 0] - hidden[:, 1:].mean(1)).mean(0)
        # Start and end differ, so that one in the place of the other would show.
        model.qa_outputs.weight.copy_(apart + 0.1 * apart.std() * torch.randn(2, len(apart)))
        scores = model.qa_outputs(hidden)
        if not bool((scores.argmax(1) == 0).all()):
            raise AssertionError("[CLS] does not score highest all along the path")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _along_the_path(
    model: BertForQuestionAnswering, ids: torch.Tensor, tokenizer: BertTokenizer
) -> torch.Tensor:
    """Last hidden states [places, T, D] between the baseline, every word as padding, and the window."""
    special = torch.isin(ids, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]))
    base, own = (
        model.bert.embeddings(input_ids=read)
        for read in (torch.where(special, ids, tokenizer.pad_token_id), ids)
    )
    path = torch.cat([base + place * (own - base) for place in PLACES])
    last: torch.Tensor = model.bert.encoder(path).last_hidden_state
    return last


@dataclass(slots=True, init=False)
class Ours:
    """As `probes` does it."""

    asked: Asked
    parts: tuple[str, ...]

    def __init__(self, folder: Path, question: Question, parts: tuple[str, ...]) -> None:
        reader = Reader(load_encoder(str(folder)), Reading(max_length=512), None)
        self.asked, self.parts = Asked.of(reader, question.question, question.context), parts

    def __call__(self) -> Float:
        """Scores of every token for each part [P, T]."""
        return np.stack([self._scores(part) for part in self.parts])

    def _scores(self, part: str) -> Float:
        target = Target("no_answer", part=part)
        return attribute(self.asked, target, baseline="pad", steps=STEPS).scores


class Theirs:
    """As transformers-interpret does it: start and end, whatever is asked."""

    def __init__(self, folder: Path, question: Question, parts: tuple[str, ...], peer: Any) -> None:
        with quiet_library():
            model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
            tokenizer = AutoTokenizer.from_pretrained(folder)
        self._explainer = peer.QuestionAnsweringExplainer(model, tokenizer)
        self._texts, self._parts = (question.question, question.context), parts

    def __call__(self) -> Float:
        """Scores of every token for each part [P, T], before it makes them of length 1."""
        self._explainer(*self._texts, n_steps=STEPS)
        both = [self._explainer.start_attributions, self._explainer.end_attributions]
        found = torch.stack([one._attributions[0].sum(-1) for one in both]).double()
        return (found if len(self._parts) == 2 else found.sum(0, keepdim=True)).detach().numpy()


def library(scratch: Path) -> Any:
    """The other library, from a folder of its own that is filled once; what it needs is here already.

    Raises:
        UnavailableError: the registry cannot be reached, or does not have it.
    """
    folder = scratch / "transformers-interpret"
    if not folder.exists():
        # Without what it requires: old versions, and a shell for notebooks.
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        run = subprocess.run([*command, PEER], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            why = (run.stderr.splitlines() or ["?"])[-1][:200]
            raise UnavailableError(f"{PEER} cannot be installed: {why}")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module("transformers_interpret")
