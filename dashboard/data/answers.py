"""Models, and what they answered and attended to: kept once for all sessions, within bounds.

Sessions are threads of one process. A model is loaded once and used by one of them at a time, because
tokenizers remember the padding of their last use; what it found is kept by what was asked of which model
(fingerprint, question, context), never by who asked, so sessions share it and cannot mix it up.

The traps: Streamlit would hash arrays from a sample of their cells, so no array is ever a key; and
`st.cache_data` would copy 40 MB of maps a click, so they are handed out as they are, and are read-only.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.data.experiments import stamp
from dashboard.pictures import heads_png
from probes.attend import attend
from probes.encoders import describe
from probes.knockout import Effects, knock_out, knock_out_each
from probes.maps import CLS, SEP, Attention, Float
from probes.overview import moved as distances_of
from probes.summaries import rollout
from probes.term_shares import TermShares, read_term_shares
from probes.terms import Terms, read_terms, terms_of
from qa.experiment import Experiment
from qa.reader import Read, Reader
from qa.spans import Answer
from qa.windows import Progress

Value = TypeVar("Value")

MODELS = 4  # two people who compare two each
# Of 144 maps of 384 tokens in half precision, 42 MB each, more than 32.
STORE_BYTES = 3 << 29


class Store:
    """Values by key, for several threads; what was used longest ago is forgotten when all take too much."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._guard = threading.Lock()

    def known(self, key: Hashable) -> Any:
        """The value, None if there is none."""
        with self._guard:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get(self, key: Hashable, lock: threading.Lock, make: Callable[[], Value]) -> Value:
        """The value; if there is none it is made, while `lock` is held, and its arrays become read-only."""
        found = self.known(key)
        if found is None:
            with lock:
                found = self.known(key)  # somebody else may have made it while this thread waited
                if found is None:
                    found = make()
                    self.keep(key, found)
        return cast("Value", found)

    def size(self) -> int:
        """Bytes of all arrays."""
        with self._guard:
            return self._size()

    def keep(self, key: Hashable, value: object) -> None:
        """Keep a value, as one that was made on the way to another; its arrays become read-only."""
        for array in arrays_of(value):
            array.flags.writeable = False
        with self._guard:
            self._values[key] = value
            while len(self._values) > 1 and self._size() > self._most:
                self._values.popitem(last=False)

    def _size(self) -> int:
        return sum(array.nbytes for value in self._values.values() for array in arrays_of(value))


def arrays_of(value: object) -> Iterator[NDArray[Any]]:
    """Every array in a value made of dataclasses, mappings and tuples."""
    if isinstance(value, np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from arrays_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from arrays_of(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from arrays_of(item)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An experiment's model, ready to be asked.

    Attributes:
        name: of the experiment.
        fingerprint: tells this state of its files from any other.
        reader: the model; used only while `lock` is held.
        layers: how many it has.
        heads: how many a layer has.
        terms: of its scores (`probes.terms`); none if it is no DeBERTa.
        lock: held by whoever uses the reader.
    """

    name: str
    fingerprint: str
    reader: Reader
    layers: int
    heads: int
    terms: tuple[str, ...]
    lock: threading.Lock


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a model has answered.

    Attributes:
        question: as asked.
        context: likewise.
        read: the windows, their scores and the answer.
    """

    question: str
    context: str
    read: Read

    @property
    def answer(self) -> Answer:
        """The answer."""
        return self.read.answers[0]


def load(experiment: Experiment) -> Model:
    """The model of an experiment, loaded when it is first asked for or its files have changed.

    Raises:
        UserError: it has no model, its files are broken, or the model is of an unknown architecture.
    """
    return _load(str(experiment.path.resolve()), fingerprint_of(experiment))


def fingerprint_of(experiment: Experiment) -> str:
    """Path and stamps of the files that decide what the experiment answers.

    Raises:
        UserError: it has no model.
    """
    folder = experiment.model_folder()
    files = [experiment.path / "config.yaml", experiment.path / "metrics.json", *sorted(folder.iterdir())]
    # One that is missing is told when it is read; here it must not break the page.
    stats = [(file.name, stamp(file)) for file in files]
    return repr((str(experiment.path.resolve()), stats))


@st.cache_resource(max_entries=MODELS, show_spinner="Loading the model …")
def _load(path: str, fingerprint: str) -> Model:
    experiment = Experiment(Path(path))
    reader = Reader.of(experiment)
    parts = describe(reader.encoder.model)
    return Model(
        name=experiment.name,
        fingerprint=fingerprint,
        reader=reader,
        layers=len(parts.layers),
        heads=parts.heads,
        terms=terms_of(parts) if parts.architecture.positions else (),
        lock=threading.Lock(),
    )


@st.cache_resource(show_spinner=False)
def store() -> Store:
    """What all sessions share."""
    return Store(STORE_BYTES)


def ask(model: Model, question: str, context: str) -> Asked:
    """The answer to a question, and every token's scores.

    A context of one window, as most are, is captured in the same forward.

    Raises:
        UserError: a blank question or context.
    """

    def read() -> Asked:
        reader = model.reader
        windows = reader.windows([(question, context)])
        if len(windows) > 1:  # which of them will be looked at is known when there is an answer
            return Asked(question, context, reader.read(windows))
        attended = attend(reader, question, context)
        assert attended.read is not None
        asked = Asked(question, context, attended.read)
        store().keep(_key("maps", model, asked, 0), attended.window())
        return asked

    return store().get(("read", model.fingerprint, question, context), model.lock, read)


def look(model: Model, asked: Asked, window: int) -> Attention:
    """Every head's attention in one window, in half precision, and the lengths of the values."""

    def read() -> Attention:
        attended = attend(model.reader, asked.question, asked.context, windows=[window], answer=asked.answer)
        return attended.window(window)

    return store().get(_key("maps", model, asked, window), model.lock, read)


def roll_out(model: Model, asked: Asked, window: int) -> Attention:
    """What each token is made of after each layer (`probes.summaries.rollout`)."""
    attention = look(model, asked, window)
    return store().get(_key("rollout", model, asked, window), threading.Lock(), lambda: rollout(attention))


def picture(model: Model, asked: Asked, window: int, *, ink: str, special: bool) -> bytes:
    """Every head as a thumbnail in one picture, with or without the columns of special tokens."""
    return store().get(
        _key(("picture", ink, special), model, asked, window),
        threading.Lock(),
        lambda: heads_png(maps_shown(look(model, asked, window), special=special), ink),
    )


def maps_shown(attention: Attention, *, special: bool) -> NDArray[np.float16] | Float:
    """The maps of all heads; nothing in the columns of special tokens if they are not to be seen."""
    if special:
        return attention.probabilities
    maps = attention.probabilities.copy()
    maps[..., np.isin(attention.regions, (CLS, SEP))] = 0
    return maps


def moved(model: Model, asked: Asked, window: int, *, than: Model, other: Asked) -> Float:
    """How far each head moved from one model to another (`probes.overview.moved`).

    Args:
        model: the one.
        asked: what it answered.
        window: the ordinal of the window.
        than: the other model.
        other: what that answered to the same question.

    Raises:
        UserError: the two cannot be compared head by head.
    """
    first, second = look(model, asked, window), look(than, other, window)
    return store().get(
        _key(("moved", than.fingerprint), model, asked, window),
        threading.Lock(),
        lambda: distances_of(first, second),
    )


def terms(model: Model, asked: Asked, window: int, layer: int) -> Terms:
    """The terms of the scores of all heads of one layer.

    Raises:
        UserError: the model is no DeBERTa.
    """

    def read() -> Terms:
        texts = (asked.question, asked.context)
        return read_terms(model.reader, *texts, layers=[layer], window=window, answer=asked.answer)

    return store().get(_key(("terms", layer), model, asked, window), model.lock, read)


def term_shares(model: Model, asked: Asked, window: int) -> TermShares:
    """How much each term has to say in each head.

    Raises:
        UserError: the model is no DeBERTa.
    """

    def read() -> TermShares:
        return read_term_shares(model.reader, asked.question, asked.context, windows=[window])

    return store().get(_key("term shares", model, asked, window), model.lock, read)


def knock_out_one(model: Model, asked: Asked, head: tuple[int, int], *, how: str) -> Effects:
    """The effect of one head [1]; where those of all are known (`known_effects`), take it from there.

    Raises:
        UserError: a context without a token that could be an answer.
    """

    def read() -> Effects:
        return knock_out(model.reader, asked.question, asked.context, sets=[[head]], how=how)

    return store().get(_key(("off", head, how), model, asked), model.lock, read)


def knock_out_all(model: Model, asked: Asked, *, how: str, progress: Progress) -> Effects:
    """The effect of each head alone [L, H].

    Raises:
        UserError: a context without a token that could be an answer.
    """

    def read() -> Effects:
        return knock_out_each(model.reader, asked.question, asked.context, how=how, progress=progress)

    return store().get(_all_off(model, asked, how), model.lock, read)


def known_effects(model: Model, asked: Asked, *, how: str) -> Effects | None:
    """The effects of all heads, if they were worked out before."""
    found: Effects | None = store().known(_all_off(model, asked, how))
    return found


def _all_off(model: Model, asked: Asked, how: str) -> Hashable:
    return _key(("all off", how), model, asked)


def _key(what: Hashable, model: Model, asked: Asked, window: int | None = None) -> Hashable:
    return what, model.fingerprint, asked.question, asked.context, window
