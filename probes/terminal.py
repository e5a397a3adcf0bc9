"""The conversation of `interactive_attention_analysis.py`: choose an experiment, ask, see where it looked.

The script hands in what draws, as charts are above this package. The trap: torch takes seconds to import, so
only `probes.inspection` does, once somebody has chosen an experiment.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from probes.entries import ask, numbers, shown, text, yes
from qa.errors import UserError
from qa.experiment import Experiment, find_experiment, list_experiments
from qa.hints import how_to_begin, no_experiments
from qa.printing import visible

if TYPE_CHECKING:
    from probes.inspection import Draw, Inspection


def converse(root: Path, draw: Draw) -> None:
    """Ask for an experiment, and for questions until there is no other.

    Args:
        root: the folder of experiments.
        draw: see `probes.inspection.Draw`.

    Raises:
        UserError: no experiment can answer.
        EOFError: the input ended.
        KeyboardInterrupt: Ctrl-C.
    """
    experiments = _listed(root)
    inspection = _chosen(experiments, draw)
    context: str | None = None
    while True:
        question = ask("Question: ", partial(text, name="question"))
        context = ask(_context_prompt(context), partial(_context, before=context))
        try:
            _one(inspection, question, context)
        except UserError as error:
            print(visible(str(error)))
        if not ask("\nAnother question? [Y/n] ", yes):
            return


def report(root: Path, draw: Draw, *, name: str, texts: tuple[str, str], layers: str, heads: str) -> None:
    """What `converse` prints and saves for one question, without asking.

    Args:
        root: the folder of experiments.
        draw: see `probes.inspection.Draw`.
        name: of the experiment.
        texts: question and context.
        layers: which to draw, as `probes.entries.numbers` reads them; "" for none, or all if there are heads.
        heads: which to draw singly, likewise; "" for none.

    Raises:
        UserError: a blank text, no such experiment, layer or head, no model, or nowhere to write.
    """
    for what, entry in zip(("--question", "--context"), texts, strict=True):
        text(entry, name=what)
    inspection = _inspection(find_experiment(root, name), draw)
    chosen_heads = numbers(heads, name="--heads", count=inspection.heads) if heads else ()
    chosen_layers = numbers(layers, name="--layers", count=inspection.layers) if layers else None
    if chosen_layers is None:
        chosen_layers = tuple(range(inspection.layers)) if chosen_heads else ()
    attended = inspection.answer(*texts)
    inspection.save(attended, chosen_layers, chosen_heads)


def _listed(root: Path) -> list[Experiment]:
    """The experiments, printed with their scores or with why they cannot answer."""
    experiments = list_experiments(root)
    if not experiments:
        raise UserError(no_experiments(root))
    print(f"Experiments in {root}:")
    notes = [_note(experiment) for experiment in experiments]
    for number, (experiment, (note, _)) in enumerate(zip(experiments, notes, strict=True), start=1):
        print(f"{number:>4}  {experiment.name:<24} {note}")
    if not any(answers for _, answers in notes):
        raise UserError(f"none of them can answer, as none has a model; {how_to_begin(root)}")
    return experiments


def _note(experiment: Experiment) -> tuple[str, bool]:
    """What to say of an experiment in a line, and whether it can answer."""
    try:
        experiment.model_folder()
        metrics = experiment.metrics()
    except UserError:
        return f"cannot answer: {_lacks(experiment)}", False
    return f"EM {metrics['exact_match']:6.2f}  F1 {metrics['f1']:6.2f}", True


def _lacks(experiment: Experiment) -> str:
    problems, state = experiment.problems(), experiment.state()
    if problems:
        return visible(problems[0])
    return f"no model ({'imported predictions, or moved' if state == 'finished' else state})"


def _chosen(experiments: list[Experiment], draw: Draw) -> Inspection:
    while True:
        experiment = ask("\nExperiment (number or name): ", partial(_experiment, experiments=experiments))
        try:
            inspection = _inspection(experiment, draw)
        except UserError as error:
            print(visible(str(error)))
            continue
        print(f"{experiment.name}: {inspection.layers} layers of {inspection.heads} heads, counted from 0\n")
        return inspection


def _experiment(entry: str, experiments: list[Experiment]) -> Experiment:
    """By number, or by name; a name that is a number can always be had by its own number."""
    by_entry = {experiment.name: experiment for experiment in experiments}
    by_entry |= {str(number): experiment for number, experiment in enumerate(experiments, start=1)}
    wanted = entry.strip()
    if wanted not in by_entry:
        raise UserError(
            f"experiment: {shown(wanted)}; enter a number from 1 to {len(experiments)}, or a listed name"
        )
    experiment = by_entry[wanted]
    experiment.model_folder()
    return experiment


def _inspection(experiment: Experiment, draw: Draw) -> Inspection:
    from probes.inspection import Inspection

    return Inspection.of(experiment, draw)


def _context_prompt(before: str | None) -> str:
    return "Context: " if before is None else "Context (enter: the same as before): "


def _context(entry: str, *, before: str | None) -> str:
    return before if before is not None and not entry.strip() else text(entry, name="context")


def _one(inspection: Inspection, question: str, context: str) -> None:
    """Answer a question, and draw what is wanted of it."""
    attended = inspection.answer(question, context)
    if ask("\nSee attentions? [Y/n] ", yes):
        layers = _layers(inspection.layers)
        heads = ask(
            f"Single heads as well (0 to {inspection.heads - 1}, such as 3 4, 7; all; enter: none): ",
            partial(_heads, count=inspection.heads),
        )
        inspection.save(attended, layers, heads)


def _layers(count: int) -> tuple[int, ...]:
    """From-to, asked for one after the other; both may be given at once."""
    top = count - 1
    given = ask(f"From layer (0 to {top}; enter: 0): ", partial(_from, count=count))
    if len(given) > 1:
        return given
    first = given[0]
    last = ask(f"To layer ({first} to {top}; enter: {top}): ", partial(_to, first=first, count=count))
    return tuple(range(first, last + 1))


def _from(entry: str, *, count: int) -> tuple[int, ...]:
    return numbers(entry, name="layers", count=count) if entry.strip() else (0,)


def _to(entry: str, *, first: int, count: int) -> int:
    given = numbers(entry, name="layers", count=count) if entry.strip() else (count - 1,)
    if len(given) > 1 or given[0] < first:
        raise UserError(f"layers: {shown(entry.strip())}; enter one number from {first} to {count - 1}")
    return given[0]


def _heads(entry: str, *, count: int) -> tuple[int, ...]:
    if entry.strip().lower() in ("", "n", "no", "none"):
        return ()
    return numbers(entry, name="heads", count=count)
