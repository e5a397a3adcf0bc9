"""An experiment's model in a terminal: what it answers, where it looked, and pictures of that.

The trap: 144 maps of a window are tens of megabytes, so of a long context only the window that gave the
answer is captured, though the model then reads that one twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from probes.attend import Attended, attend
from probes.encoders import describe
from probes.maps import View
from probes.summaries import AttendedWord, attended_words
from qa import files
from qa.experiment import Experiment
from qa.gallery import FOLDER, picture_folder
from qa.printing import decimal, visible
from qa.progress import Bar
from qa.reader import Reader

FEW_WINDOWS = 4
NEXT = 5  # attended words after the main one
MOST_PRINTED = 2000  # characters of a text


class Draw(Protocol):
    """Makes a picture of attention."""

    def __call__(
        self, view: View, layer: int, head: int | None, *, title: str, caption: Sequence[str]
    ) -> bytes:
        """A PNG of a layer's head, or of all its heads for None, as many words as can be read."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model that answers, and what draws where it looked.

    Attributes:
        experiment: whose model it is; pictures go into its folder.
        reader: the model.
        draw: see `Draw`.
        layers: how many the model has.
        heads: how many a layer has.
    """

    experiment: Experiment
    reader: Reader
    draw: Draw
    layers: int
    heads: int

    @staticmethod
    def of(experiment: Experiment, draw: Draw) -> Inspection:
        """The inspection of a finished experiment.

        Raises:
            UserError: it has no model, its files are broken, or the model is of an unknown architecture.
        """
        reader = Reader.of(experiment)
        parts = describe(reader.encoder.model)
        return Inspection(experiment, reader, draw, len(parts.layers), parts.heads)

    def answer(self, question: str, context: str) -> Attended:
        """Answer, and print question, answer and the words of the question that it attends to.

        Raises:
            UserError: a blank text, or more than a few gigabytes.
        """
        attended = self._attended(question, context)
        answer = attended.answer
        words = attended_words(attended.window())
        print()
        _print("Question", question)
        _print("Answer", f"{answer.text or '(no answer)'} (probability {decimal(answer.probability, 3)})")
        _print("Main attended token", ", ".join(map(_word, words[:1])) or "(none: there is no answer)")
        _print("The five next", ", ".join(map(_word, words[1 : 1 + NEXT])) or "(none)")
        return attended

    def _attended(self, question: str, context: str) -> Attended:
        with Bar("windows") as bar:
            if len(self.reader.windows([(question, context)])) <= FEW_WINDOWS:
                return attend(self.reader, question, context, progress=bar.at)
            answer = self.reader.answer(question, context, progress=bar.at)
        return attend(self.reader, question, context, windows=[answer.window], answer=answer)

    def save(self, attended: Attended, layers: Sequence[int], heads: Sequence[int]) -> None:
        """Draw layers, and single heads of each, into the experiment's folder, and print where.

        Raises:
            UserError: the folder cannot be written.
        """
        if not layers:
            return
        window = attended.window()
        folder = picture_folder(self.experiment, window.question, window.context)
        print()
        if folder.name != FOLDER:
            print(f"{FOLDER} holds pictures of another question; these go to a folder of their own in it")
        for layer in layers:
            view = window.select(layers=[layer]).by("word")
            for head in (None, *heads):
                self._save(view, layer, head, folder, caption=_caption(attended))

    def _save(
        self, view: View, layer: int, head: int | None, folder: Path, *, caption: Sequence[str]
    ) -> None:
        part = f"layer {layer}" if head is None else f"layer {layer}, head {head}"
        picture = self.draw(view, layer, head, title=f"{self.experiment.name}: {part}", caption=caption)
        path = folder / f"{part.replace(', ', '_').replace(' ', '_')}.png"
        with files.replacing(path) as temporary:
            temporary.write_bytes(picture)
        print(f"saved {path}")


def _caption(attended: Attended) -> list[str]:
    answer = attended.answer
    lines = [
        f"Question: {attended.window().question}",
        f"Answer: {answer.text or '(no answer)'} (probability {decimal(answer.probability, 3)})",
    ]
    if answer.windows > 1:
        lines.append(f"Window {answer.window + 1} of the {answer.windows} that the context is read in")
    return lines


def _print(label: str, text: str) -> None:
    print(f"{label + ':':<21}{visible(text[:MOST_PRINTED])}")


def _word(word: AttendedWord) -> str:
    return f"{word.text} ({word.weight:.1%})"
