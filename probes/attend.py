"""Ask a question and see where the model looked: what terminal, page and notebook call.

The windows are those that the reader makes, and the attention is captured in the very forward that answers.
The trap: the reader sorts windows by length, so captures are told apart by the tokens they were made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from probes.attention import AttentionProbe, Capture
from probes.joining import join
from probes.labels import attention_of
from probes.maps import Attention, check_bytes
from qa.batches import pad_windows
from qa.errors import UserError
from qa.evaluation import full_precision
from qa.reader import Reader
from qa.spans import Answer
from qa.windows import Progress, WindowSet


@dataclass(frozen=True, slots=True)
class Attended:
    """An answer and where the model looked.

    Attributes:
        answer: as `Reader.answer` gives it.
        windows: the attention in each window of the context that was asked for, in the order of the text.
    """

    answer: Answer
    windows: tuple[Attention, ...]

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
    progress: Progress | None = None,
) -> Attended:
    """Answer a question, with the attention in the windows of its context.

    Args:
        reader: the model.
        question: any text that is not blank.
        context: likewise, of any length.
        layers: numbers of layers, counted from 0; None: all.
        heads: numbers of heads, counted from 0; None: all.
        windows: ordinals of windows; None: all. Where some are named, they are read once more for it.
        dtype: torch.float16 or torch.float32.
        progress: called with (windows done, windows in all).

    Raises:
        UserError: blank text, a layer, head or window that is not there, or more than a few gigabytes.
    """
    asked = reader.windows([(question, context)])
    chosen = _chosen(windows, len(asked))
    probe = AttentionProbe(reader.encoder.model, layers, heads=heads, dtype=dtype)
    maps = len(probe.layers) * len(probe.heads)
    squares = (asked.lengths[chosen] ** 2).sum()
    check_bytes(int(squares) * maps * dtype.itemsize, f"{len(chosen)} windows, {maps} maps each")
    if windows is None:
        with probe:
            read = reader.read(asked, progress=progress)
    else:
        read = reader.read(asked, progress=progress)
        _read_again(reader, asked, chosen, probe)
    by_tokens = {_key(capture): capture.probabilities for capture in probe.take()}
    return Attended(
        read.answers[0],
        tuple(
            attention_of(
                by_tokens[asked[number].ids.tobytes()],
                asked[number],
                tokenizer=reader.encoder.tokenizer,
                texts=(question, context),
                answer=read.answers[0],
                layers=probe.layers,
                heads=probe.heads,
            )
            for number in chosen
        ),
    )


def _chosen(windows: Sequence[int] | None, count: int) -> list[int]:
    if windows is None:
        return list(range(count))
    if not windows or not set(windows) <= set(range(count)):
        raise UserError(
            f"windows: {list(windows)}; this context has {count}: give numbers from 0 to {count - 1}"
        )
    return sorted(set(windows))


def _read_again(reader: Reader, asked: WindowSet, chosen: list[int], probe: AttentionProbe) -> None:
    encoder = reader.encoder
    with full_precision(encoder.model) as model, probe:
        for number in chosen:
            inputs = pad_windows(asked, [number], encoder.tokenizer)
            model(**{name: tensor.to(encoder.device) for name, tensor in inputs.items()})


def _key(capture: Capture) -> bytes:
    assert capture.ids is not None
    return capture.ids.to(torch.int32).numpy().tobytes()
