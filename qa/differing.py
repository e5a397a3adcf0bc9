"""The settings of several experiments side by side, and which of them differ.

Values are equal only if their types are, too: the text "1", the number 1 and `true` are three settings, and
one that is missing differs from all of them. The trap: an imported experiment's `config.yaml` is full of
defaults that nothing was ever trained with; those are missing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qa.errors import UserError
from qa.experiment import Experiment

MISSING: Final = "—"
# What decides how a model reads; all else in the settings of an imported model has no meaning.
READING = (
    "model_name",
    "max_length",
    "stride",
    "padding",
    "validation_dataset",
    "limit_validation",
    "device",
    "attention",
    "max_question_length",
    "max_answer_length",
    "n_best",
    "no_answer_threshold",
    "evaluation_batch_size",
)
NAMED = ("model_name", "validation_dataset")
# What numbers depend on besides the settings, as `environment.json` has it.
CIRCUMSTANCES = ("python", "torch", "transformers", "device_name", "precision", "processes", "git_commit")


@dataclass(frozen=True, slots=True)
class Row:
    """One setting in E experiments.

    Attributes:
        key: its name.
        values: as people write them, length E; MISSING where an experiment has none.
        differs: whether they are not all equal, type and value.
        chosen: what the values are, as `config.yaml` has them; None also where missing.
    """

    key: str
    values: tuple[str, ...]
    differs: bool
    chosen: tuple[Any, ...]


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """The settings that mean something for an experiment, and the circumstances of its numbers.

    Empty where `config.yaml` cannot be read.
    """
    try:
        settings = experiment.settings().as_dict()
    except UserError:
        return {}
    try:
        environment = experiment.environment()
    except UserError:
        environment = {}
    imported = environment.get("imported")
    kept = {"predictions": NAMED, "model": READING}.get(str(imported), tuple(settings))
    found: dict[str, Any] = {key: settings[key] for key in settings if key in kept}
    data = environment.get("data", {})
    for part in ("training", "validation"):
        if "sha256" in data.get(part, {}):
            found[f"data.{part}"] = f"{data[part].get('name', '?')} ({str(data[part]['sha256'])[:12]})"
    return found | _circumstances(environment)


def _circumstances(environment: Mapping[str, Any]) -> dict[str, Any]:
    versions = environment.get("versions")
    flat = {**environment, **(versions if isinstance(versions, dict) else {})}
    return {f"environment.{key}": flat[key] for key in CIRCUMSTANCES if key in flat}


def setting_rows(experiments: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for every setting that any of the experiments has, in their order.

    Args:
        experiments: settings by name, an experiment each.
    """
    keys = dict.fromkeys(key for settings in experiments for key in settings)
    return [_row(key, experiments) for key in keys]


def _row(key: str, experiments: Sequence[Mapping[str, Any]]) -> Row:
    tags = {_tagged(settings[key]) if key in settings else MISSING for settings in experiments}
    values = tuple(shown(settings[key]) if key in settings else MISSING for settings in experiments)
    return Row(key, values, len(tags) > 1, tuple(settings.get(key) for settings in experiments))


def _tagged(value: Any) -> tuple[str, str]:
    """Something that is equal for values of the same type that are equal, and for no others."""
    return type(value).__name__, repr(value)


def shown(value: Any) -> str:
    """A setting's value as `config.yaml` would spell it, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
