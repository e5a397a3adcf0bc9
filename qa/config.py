"""The settings of an experiment: read, checked once, frozen, written back.

A setting's type, range and default stand in one place, the field's declaration; messages, the check and the
README's table are made from it. The traps of YAML: `3e-5` is a string to PyYAML, `1e3` too, `no` is a
boolean, and of a key that stands twice the last silently wins. Numbers are accepted in any spelling,
everything else must have its own type, and a repeated key is refused.
"""

from __future__ import annotations

import difflib
import math
import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from qa.errors import UserError

ATTENTIONS = ("auto", "fast", "eager", "sdpa")
Value = str | int | float | bool | None | list[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting may be.

    Attributes:
        types: accepted types; int is also accepted where float is.
        low: smallest number.
        high: largest number.
        above: the number must be greater than `low`, not equal.
        choices: accepted words.
        help: one line for the README and for people.
    """

    types: tuple[type | None, ...]
    help: str
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[str, ...] = ()

    def allowed(self) -> str:
        """The rule in words."""
        return " or ".join(self._phrase(type_) for type_ in self.types)

    def _phrase(self, type_: type | None) -> str:
        if type_ is str and self.choices:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}".removeprefix(" or ")
        return NAMES[type_] + (self._range() if type_ in (int, float) else "")

    def _range(self) -> str:
        if self.low is None:
            return ""
        if self.high is None:
            return f" {'above' if self.above else 'of at least'} {self.low:.10g}"
        if self.above:
            return f" above {self.low:.10g}, at most {self.high:.10g}"
        return f" from {self.low:.10g} to {self.high:.10g}"


NAMES: dict[type | None, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list of texts",
    None: "null",
}


def _setting(default: Value, types: type | tuple[type | None, ...], help: str, **limits: Any) -> Any:
    rule = Rule(types if isinstance(types, tuple) else (types,), help, **limits)
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of an experiment; the first nine are the original program's."""

    model_name: str = _setting(
        "microsoft/deberta-v3-base", str, "hub name or folder of the encoder, or pocket"
    )
    epochs: float = _setting(3.0, float, "passes over the training questions", low=0, high=1000, above=True)
    learning_rate: float = _setting(3e-5, float, "peak learning rate", low=0, high=1, above=True)
    batch_size: int = _setting(16, int, "windows in a training step, on each device", low=1, high=4096)
    max_length: int = _setting(512, int, "tokens in a window at most", low=16, high=8192)
    stride: int = _setting(128, int, "overlap of windows, in tokens", low=0, high=8191)
    padding: str = _setting(
        "longest",
        str,
        "pad a batch to its longest window or to max_length",
        choices=("longest", "max_length"),
    )
    patience: int = _setting(2, int, "epochs without a better F1 before training stops", low=1, high=1000)
    best_model_path: str | None = _setting(
        None, (str, None), "where the best model goes; null: best_model inside the experiment"
    )
    dataset: str = _setting(
        "rajpurkar/squad", str, "training questions: hub name, SQuAD JSON file, or pocket"
    )
    validation_dataset: str | None = _setting(
        None,
        (str, None),
        "validation questions; null: the hub data set's validation split, or held_out_articles",
    )
    held_out_articles: int | list[str] = _setting(  # noqa: RUF009  # it makes a field, not a value
        0, (int, list), "articles of the training data set aside for validation: how many, or titles", low=0
    )
    bad_answers: str = _setting(
        "skip", str, "training questions whose answer is not in the context", choices=("skip", "refuse")
    )
    gold_answers: str = _setting(
        "first",
        str,
        "train on a question's first gold answer, or on all of them, each with the same weight",
        choices=("first", "all"),
    )
    limit_train: int | None = _setting(None, (int, None), "train on this many questions only", low=1)
    limit_validation: int | None = _setting(None, (int, None), "validate on this many only", low=1)
    seed: int = _setting(42, int, "of everything random", low=0, high=2**32 - 1)
    device: str = _setting("auto", str, "where to train", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = _setting(
        "auto", str, "of the forward pass; weights stay float32", choices=("auto", "fp32", "bf16", "fp16")
    )
    attention: str = _setting("auto", str, "implementation; auto: the model's fastest", choices=ATTENTIONS)
    gradient_accumulation_steps: int = _setting(1, int, "batches added up before a step", low=1, high=4096)
    gradient_checkpointing: bool = _setting(False, bool, "less memory for a third more time")
    warmup: float = _setting(0.1, float, "share of the steps with a rising learning rate", low=0, high=0.9)
    weight_decay: float = _setting(0.01, float, "AdamW's weight decay", low=0, high=1)
    layer_decay: float = _setting(
        1.0, float, "learning rate of each layer relative to the one above", low=0, high=1, above=True
    )
    max_gradient_norm: float = _setting(
        1.0, float, "gradients are scaled down to this norm", low=0, above=True
    )
    group_by_length: bool = _setting(True, bool, "batches of windows of like length")
    max_question_length: int = _setting(64, int, "a longer question is cut, in tokens", low=4, high=4096)
    max_answer_length: int = _setting(30, int, "longest answer, in tokens", low=1, high=1024)
    n_best: int = _setting(20, int, "spans kept for each question", low=1, high=200)
    no_answer_threshold: float | str | None = _setting(
        "tune",
        (float, str, None),
        "refuse above this no-answer probability; tune: chosen on validation (v2.0); null: never refuse",
        low=0,
        high=1,
        choices=("tune",),
    )
    evaluations_per_epoch: int = _setting(2, int, "evaluations, each with a checkpoint", low=1, high=100)
    evaluation_batch_size: int = _setting(32, int, "windows read at once in evaluation", low=1, high=4096)
    atlas_snapshots: int = _setting(0, int, "questions to record heads on at evaluations", low=0, high=1000)
    workers: int = _setting(0, int, "processes that prepare batches beside the training", low=0, high=64)
    report_to: str | list[str] = _setting(  # noqa: RUF009  # as above
        "none", (str, list), "trackers the Hugging Face Trainer knows"
    )
    group: str | None = _setting(
        None, (str, None), "name that runs of one configuration share (set by --seeds)"
    )

    def as_dict(self) -> dict[str, Value]:
        """All settings in order, as `config.yaml` holds them."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def changed(self, **values: Value) -> Settings:
        """The same settings with some replaced, checked again.

        Raises:
            UserError: as `make_settings`.
        """
        return make_settings({**self.as_dict(), **values})


ORIGINAL_KEYS = tuple(item.name for item in fields(Settings))[:9]


class _Loader(yaml.SafeLoader):
    """Reads plain YAML and refuses a key that stands twice in one mapping."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002  # the signature of the method it extends
    ) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} stands there a second time", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings of a YAML file, with `key=value` overrides applied.

    Raises:
        UserError: unreadable, not YAML, not a mapping, or a key or value that is not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark in front
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a YAML file with settings"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not text in UTF-8 ({error.reason}); give a YAML file with settings"
        ) from error
    try:
        content = _read_yaml(text)
    except ValueError as error:
        raise UserError(f"{path}: not YAML ({error}); write one `key: value` a line") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds {type(content).__name__}, not settings; write one `key: value` a line"
        )
    settings = make_settings(content, origin=f"{path}: ")
    return make_settings({**settings.as_dict(), **parse_overrides(overrides)}, origin="--set ")


def _read_yaml(text: str) -> Any:
    """The value of a YAML text; a ValueError says in one line what is wrong with it."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        # What PyYAML's own constructors raise for a tag that does not fit its value, such as !!bool maybe.
        raise ValueError("a tag that does not fit its value") from error


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping; a value is read as YAML.

    Raises:
        UserError: no equals sign, or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: no '=' in it; write --set key=value, for example --set epochs=1")
        try:
            values[key.strip()] = _read_yaml(text)
        except ValueError as error:
            raise UserError(f"--set {pair}: the value is not YAML ({error}); quote it") from error
    return values


def make_settings(values: Mapping[Any, Any], *, origin: str = "") -> Settings:
    """Checked settings from plain values; what is not given has its default.

    Args:
        values: by name.
        origin: put before every message, to say which file is meant.

    Raises:
        UserError: an unknown key (with the nearest valid name), a wrong type or a value out of range.
    """
    known = {item.name: item for item in fields(Settings)}
    for key in values:
        if key not in known:
            alike = str(key).lower().replace("-", "_")
            near = difflib.get_close_matches(alike, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"{origin}unknown setting {_shown(key)}; {hint}")
    try:
        return Settings(**{key: _checked(known[key], value) for key, value in values.items()})
    except UserError as error:
        raise UserError(f"{origin}{error}") from error


def _checked(item: Field[Any], value: Any) -> Any:
    """The value in the field's type."""
    rule: Rule = item.metadata["rule"]
    for type_ in rule.types:
        try:
            return _as_type(type_, value, rule)
        except ValueError:
            continue
    raise UserError(
        f"{item.name}: {_shown(value)} is not allowed; use {rule.allowed()} (default {_shown(item.default)})"
    )


def _shown(value: Any) -> str:
    """The value as YAML words where it has some, cut to a length that fits into a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    return short.repr(value)


def _as_type(type_: type | None, value: Any, rule: Rule) -> Any:
    """The value in this type; a ValueError if it has none there or breaks the rule."""
    if type_ in (int, float):
        return _as_number(value, rule, whole=type_ is int)
    if type_ is None:
        fits = value is None
    elif type_ is list:
        fits = isinstance(value, list) and all(map(_is_text, value))
    elif type_ is str:
        fits = _is_text(value) and (not rule.choices or value in rule.choices)
    else:
        fits = isinstance(value, bool)
    if not fits:
        raise ValueError
    return list(value) if type_ is list else value


def _is_text(value: Any) -> bool:
    """Text with something in it that can be a name or a path: no control characters, no lone surrogates."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    )


def _as_number(value: Any, rule: Rule, *, whole: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError from error
    too_low = rule.low is not None and (number < rule.low or (rule.above and number == rule.low))
    too_high = rule.high is not None and number > rule.high
    if not math.isfinite(number) or too_low or too_high or (whole and not number.is_integer()):
        raise ValueError
    return int(number) if whole else number


def settings_text(settings: Settings) -> str:
    """The settings as YAML, every one of them, in declared order."""
    return yaml.safe_dump(settings.as_dict(), sort_keys=False, allow_unicode=True)


def settings_table() -> list[tuple[str, Any, str, str]]:
    """Name, default, what is allowed, and meaning of every setting, for the README."""
    return [
        (item.name, item.default, item.metadata["rule"].allowed(), item.metadata["rule"].help)
        for item in fields(Settings)
    ]
