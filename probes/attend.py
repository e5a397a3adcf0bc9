"""Ask a question and see where the model looked: what terminal, page and notebook call.

The windows are those that the reader makes, and the attention is captured in the very forward that answers.
The trap: the reader sorts windows by length, so captures are told apart by the tokens they were made from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from probes.attention import AttentionProbe, Capture
from probes.joining import join
from probes.labels import attention_of
from probes.maps import Attention, check_bytes
from qa.batches import pad_windows
from qa.errors import UserError
from qa.evaluation import full_precision
from qa.reader import Read, Reader
from qa.spans import Answer
from qa.windows import Progress, WindowSet


@dataclass(frozen=True, slots=True)
class Attended:
    """An answer and where the model looked.

    Attributes:
        answer: as `Reader.answer` gives it.
        windows: the attention in each window of the context that was asked for, in the order of the text.
        read: the scores that the answer was chosen by; None where the answer was known before.
    """

    answer: Answer
    windows: tuple[Attention, ...]
    read: Read | None = None

    def window(self, ordinal: int | None = None) -> Attention:
        """The attention in one window, by its ordinal; None: in the one that gave the answer.

        Raises:
            UserError: a window that was not asked for.
        """
        wanted = self.answer.window if ordinal is None else ordinal
        here = {int(window.windows[0]): window for window in self.windows}
        if wanted not in here:
            raise UserError(f"window: {wanted}; captured are {sorted(here)}, ask for that one as well")
        return here[wanted]

    def each(self, change: Callable[[Attention], Attention]) -> Attended:
        """The same with every window changed: `attended.each(norm_weighted).joined()`."""
        return replace(self, windows=tuple(change(window) for window in self.windows))

    def joined(self, *, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> Attention:
        """All windows joined back onto the text; see `probes.joining.join`.

        Raises:
            UserError: layers or heads that were not captured, or too large a result.
        """
        selected = [window.select(layers=layers, heads=heads) for window in self.windows]
        return join(selected, first=self.answer.window)


def attend(
    reader: Reader,
    question: str,
    context: str,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    windows: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float16,
    answer: Answer | None = None,
    progress: Progress | None = None,
) -> Attended:
    """Answer a question, with the attention in the windows of its context, and the norms of the values.

    Args:
        reader: the model.
        question: any text that is not blank.
        context: likewise, of any length.
        layers: numbers of layers, counted from 0; None: all.
        heads: numbers of heads, counted from 0; None: all.
        windows: ordinals of windows; None: all. Where some are named, they are read once more for it.
        dtype: of the probabilities, torch.float16 or torch.float32.
        answer: the reader's own to this question, where it is known: only the windows named are read then.
        progress: called with (windows done, windows in all).

    Raises:
        UserError: blank text, a layer, head or window that is not there, or more than a few gigabytes.
    """
    asked = reader.windows([(question, context)])
    chosen = chosen_windows(windows, len(asked))
    probe = AttentionProbe(reader.encoder.model, layers, heads=heads, dtype=dtype, norms=True)
    maps = len(probe.layers) * len(probe.heads)
    squares = (asked.lengths[chosen] ** 2).sum()
    check_bytes(int(squares) * maps * dtype.itemsize, f"{len(chosen)} windows, {maps} maps each")
    read = None
    if answer is not None:
        with probe:
            read_again(reader, asked, chosen, progress=progress)
    elif windows is None:
        with probe:
            read = reader.read(asked, progress=progress)
        (answer,) = read.answers
    else:
        read = reader.read(asked, progress=progress)
        (answer,) = read.answers
        with probe:
            read_again(reader, asked, chosen)
    by_tokens = {_key(capture): capture for capture in probe.take()}
    return Attended(
        answer,
        tuple(
            attention_of(
                capture.probabilities,
                asked[number],
                tokenizer=reader.encoder.tokenizer,
                texts=(question, context),
                answer=answer,
                layers=probe.layers,
                heads=probe.heads,
                norms=capture.norms,
            )
            for number in chosen
            for capture in [by_tokens[asked[number].ids.tobytes()]]
        ),
        read,
    )


def chosen_windows(windows: Sequence[int] | None, count: int) -> list[int]:
    """The ordinals of windows that were asked for, in order; None: of all.

    Raises:
        UserError: one that is not there, or none at all.
    """
    if windows is None:
        return list(range(count))
    if not windows or not set(windows) <= set(range(count)):
        raise UserError(
            f"windows: {list(windows)}; this context has {count}: give numbers from 0 to {count - 1}"
        )
    return sorted(set(windows))


def read_again(
    reader: Reader, asked: WindowSet, chosen: Sequence[int], *, progress: Progress | None = None
) -> None:
    """Run the model on some windows, one at a time and so without padding, for a probe that watches it."""
    encoder = reader.encoder
    with full_precision(encoder.model) as model:
        for done, number in enumerate(chosen, start=1):
            inputs = pad_windows(asked, [number], encoder.tokenizer)
            model(**{name: tensor.to(encoder.device) for name, tensor in inputs.items()})
            if progress is not None:
                progress(done, len(chosen))


def _key(capture: Capture) -> bytes:
    assert capture.ids is not None
    return capture.ids.to(torch.int32).numpy().tobytes()
