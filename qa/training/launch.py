"""One run from settings to a finished experiment folder.

Prepare, say what is about to happen, train, and conclude with the best checkpoint. Each part is the same for
a new run and for a resumed one. The trap: with several processes only the first holds a `Run` and writes, but
all must take the same decisions, or they wait for each other for ever.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, TrainerState

from qa.batches import TrainingWindows
from qa.config import Settings
from qa.errors import UserError, is_out_of_memory
from qa.evaluation import Evaluation, evaluate, full_precision
from qa.experiment import IMPORT_AGAIN, Experiment, check_name, find_experiment, seed_name
from qa.hardware import peak_memory_mb
from qa.model import (
    Encoder,
    load_encoder,
    quiet_library,
    save_encoder,
)
from qa.run import Run, keep_dataset, open_run
from qa.schedule import best_evaluation, out_of_patience
from qa.training.estimate import announce
from qa.training.job import Job, is_first, prepare, resolved, say, world_size
from qa.training.recorder import Recorder, StopRequest
from qa.training.trainer import QATrainer, training_arguments
from qa.window_cache import WINDOWS_FOLDER
from qa.windows import Progress

OnEvaluation = Callable[[PreTrainedModel, int], None]


def train_experiment(
    settings: Settings, *, root: Path, name: str, on_evaluation: OnEvaluation | None = None
) -> Experiment:
    """Train a new experiment.

    Args:
        settings: of the experiment.
        root: the folder of experiments.
        name: a name that is not taken.
        on_evaluation: called with the model and the step, before the first step (which is 0) and after each
            evaluation; in the first process only.

    Returns:
        The finished experiment, or the stopped one if somebody asked it to stop.

    Raises:
        UserError: anything the user can mend; the folder then says `failed` and why.
    """
    if is_first() and (root / check_name(name) / "config.yaml").exists():
        state = Experiment(root / name).state()
        raise UserError(
            f"experiment {name!r} exists already ({state}); choose another name, or go on with it: --resume"
        )
    return _run(settings, root=root, name=name, on_evaluation=on_evaluation)


def resume_experiment(*, root: Path, name: str, on_evaluation: OnEvaluation | None = None) -> Experiment:
    """Go on with an experiment from its last whole checkpoint, with the settings it has.

    Raises:
        UserError: no such experiment, finished already, or its data or tokenizer have changed since.
    """
    experiment = find_experiment(root, name)
    if experiment.state() == "finished":
        raise UserError(f"experiment {name!r} is finished; choose another name to train again")
    if experiment.is_import():
        raise UserError(f"experiment {name!r} cannot go on; {IMPORT_AGAIN.format(experiment.path)}")
    return _run(experiment.settings(), root=root, name=name, on_evaluation=on_evaluation)


def train_seeds(
    settings: Settings,
    seeds: Sequence[int],
    *,
    root: Path,
    name: str,
    on_evaluation_of: Callable[[str], OnEvaluation | None] | None = None,
) -> list[Experiment]:
    """Train the same settings once for each seed, as `<name>-seed-<seed>`, all in the group `name`.

    Finished ones are kept as they are and unfinished ones resumed, so that the same command goes on after an
    interruption.

    Args:
        settings: of all of them but for the seed.
        seeds: one for each experiment.
        root: the folder of experiments.
        name: of the group.
        on_evaluation_of: gives, by an experiment's name, its `on_evaluation` (see `train_experiment`).

    Raises:
        UserError: before anything is trained, a name or seed that is not allowed, or an experiment of that
            name with other settings; later, as `train_experiment`.
    """
    done = []
    for own, chosen in _seed_settings(settings, seeds, root=root, name=name).items():
        experiment = Experiment(root / own)
        on_evaluation = None if on_evaluation_of is None else on_evaluation_of(own)
        if not (experiment.path / "config.yaml").exists():
            experiment = train_experiment(chosen, root=root, name=own, on_evaluation=on_evaluation)
        elif experiment.state() != "finished":
            experiment = resume_experiment(root=root, name=own, on_evaluation=on_evaluation)
        done.append(experiment)
        if experiment.state() == "stopped":
            break
    return done


def _seed_settings(settings: Settings, seeds: Sequence[int], *, root: Path, name: str) -> dict[str, Settings]:
    """Name and settings of each seed's experiment, all of them checked."""
    if settings.best_model_path is not None and len(seeds) > 1:
        raise UserError("best_model_path: several seeds cannot share one folder; set it to null")
    runs = {}
    for seed in dict.fromkeys(seeds):
        own = seed_name(name, seed)
        runs[own] = resolved(settings.changed(seed=seed, group=name), root / own)
        if (root / own / "config.yaml").exists() and Experiment(root / own).settings() != runs[own]:
            raise UserError(
                f"experiment {own!r} exists with other settings; choose another name, so that the seeds "
                "of a group differ in nothing else"
            )
    return runs


def _run(settings: Settings, *, root: Path, name: str, on_evaluation: OnEvaluation | None) -> Experiment:
    settings = resolved(settings, root / name)
    with _explained(settings), _sigterm_as_ctrl_c():
        # Everything that can be refused is refused before the folder exists.
        job = prepare(settings, kept=root / WINDOWS_FOLDER)
        # Explained once more within, for what the folder says of how the run ended.
        with open_run(root, name) if is_first() else nullcontext() as run, _explained(settings):
            environment = job.environment
            if run is not None:
                _refuse_changes(run.experiment, environment)
                keep_dataset(root, job.validation.questions)
                run.begin(settings, environment)
                run.prune_checkpoints(run.experiment.checkpoints())
            announce(job, say=say)
            _train(job, run, root / name, on_evaluation)
    if world_size() > 1:
        # The other processes read how the run ended, so its folder must say so first.
        torch.distributed.barrier()
    return Experiment(root / name)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM raises KeyboardInterrupt, so that the folder says `stopped` whenever it comes."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_changes(experiment: Experiment, environment: dict[str, Any]) -> None:
    """A resumed run must go on with the same questions, tokenizer and arithmetic, or it is another run."""
    if not (experiment.path / "environment.json").exists():
        return
    before = experiment.environment()
    for what in ("training", "validation"):
        if before.get("data", {}).get(what, {}).get("sha256") != environment["data"][what]["sha256"]:
            raise UserError(
                f"experiment {experiment.name!r}: the {what} questions have changed since it began; "
                "bring the old file back or start under another name"
            )
    if before.get("tokenizer_sha256") != environment["tokenizer_sha256"]:
        raise UserError(
            f"experiment {experiment.name!r}: the tokenizer has changed since it began (model files or "
            "library version); bring the old one back or start under another name"
        )
    for what, setting in (("processes", "launch it"), ("precision", "set precision")):
        if before.get(what) != environment[what]:
            raise UserError(
                f"experiment {experiment.name!r} began with {what} {before.get(what)}, this run has "
                f"{environment[what]}; {setting} as before, or start under another name"
            )


@contextmanager
def _explained(settings: Settings, *, evaluating: bool = False) -> Iterator[None]:
    """Running out of memory said in terms of the settings."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if evaluating:
            raise UserError(
                f"out of memory while evaluating; lower evaluation_batch_size (now "
                f"{settings.evaluation_batch_size}) or max_length (now {settings.max_length}), and start "
                "again under another name; what was saved before is intact"
            ) from error
        other = "" if settings.gradient_checkpointing else ", or set gradient_checkpointing: true"
        raise UserError(
            f"out of memory; lower batch_size (now {settings.batch_size}; gradient_accumulation_steps "
            f"makes up for it) or max_length (now {settings.max_length}){other}, "
            "and start again under another name; what was saved before is intact"
        ) from error


def _train(job: Job, run: Run | None, folder: Path, on_evaluation: OnEvaluation | None) -> None:
    stop = StopRequest()
    recorder = Recorder(run, settings=job.settings, schedule=job.schedule, stop=stop)
    best = _Best()
    trainer = QATrainer(
        job.encoder,
        TrainingWindows(job.training.windows, job.training.labels),
        settings=job.settings,
        evaluate=lambda: best.of(trainer.state.global_step, _evaluate(job, trainer, recorder, on_evaluation)),
        arguments=training_arguments(
            job.settings,
            job.schedule,
            checkpoints=folder.resolve() / "checkpoints",
            device=job.device,
            precision=job.precision,
        ),
        callbacks=[recorder],
    )
    trainer.remove_callback(PrinterCallback)
    last = _last_checkpoint(Experiment(folder), run)
    if run is not None:
        run.update(total_steps=job.schedule.total_steps, message="training")
    try:
        # The library would draw a bar of its own for every checkpoint, across ours.
        with stop.listening(), quiet_library():
            if last is None:
                _show(job.encoder, 0, on_evaluation)
            if last is None or not _is_done(job, last):
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
            else:
                trainer.state = TrainerState.load_from_json(str(last / "trainer_state.json"))
    except KeyboardInterrupt:
        if run is not None:
            run.stop()
        return
    finally:
        recorder.close()
    if run is not None:
        run.update(step=trainer.state.global_step, epoch=float(trainer.state.epoch or 0))
    if stop.agreed(world_size()) and not _is_finished(job, trainer.state):
        if run is not None:
            run.stop()
        return
    _conclude(job, run, folder, state=trainer.state, known=best)


def _last_checkpoint(experiment: Experiment, run: Run | None) -> Path | None:
    """The newest whole checkpoint; the history is taken back to it."""
    checkpoints = experiment.checkpoints()
    step = max(checkpoints, default=0)
    if run is not None:
        run.rewind_history(step)
    return checkpoints.get(step)


def _is_done(job: Job, checkpoint: Path) -> bool:
    return _is_finished(job, TrainerState.load_from_json(str(checkpoint / "trainer_state.json")))


def _is_finished(job: Job, state: TrainerState) -> bool:
    return state.global_step >= job.schedule.total_steps or out_of_patience(
        state.log_history, job.settings.patience
    )


def _evaluate(
    job: Job, trainer: QATrainer, recorder: Recorder, on_evaluation: OnEvaluation | None
) -> Evaluation:
    found = _score(job, job.encoder, recorder.evaluating)
    _show(job.encoder, trainer.state.global_step, on_evaluation)
    return found


def _show(encoder: Encoder, step: int, on_evaluation: OnEvaluation | None) -> None:
    """Let somebody look at the model as it is, if anybody wants to."""
    if on_evaluation is not None and is_first():
        with full_precision(encoder.model) as model:
            on_evaluation(model, step)


def _score(job: Job, encoder: Encoder, progress: Progress | None = None) -> Evaluation:
    threshold = job.settings.no_answer_threshold
    with _explained(job.settings, evaluating=True):
        return evaluate(
            encoder, job.validation, job.reading, threshold=threshold, progress=progress, gather=_gather()
        )


def _gather() -> Callable[[list[Any]], list[Any]] | None:
    if world_size() == 1:
        return None

    def gather(own: list[Any]) -> list[Any]:
        everyone: list[Any] = [None] * world_size()
        torch.distributed.all_gather_object(everyone, own)
        return everyone

    return gather


@dataclass(slots=True)
class _Best:
    """The best evaluation of this process, so that it need not be made a second time at the end."""

    step: int = -1
    found: Evaluation | None = None

    def of(self, step: int, found: Evaluation) -> Evaluation:
        """Keep `found` if it is the best so far; returns it in any case."""
        if self.found is None or found.scores.f1 > self.found.scores.f1:
            self.step, self.found = step, found
        return found


def _conclude(job: Job, run: Run | None, folder: Path, *, state: TrainerState, known: _Best) -> None:
    """Keep the answers of the best checkpoint and publish it as the best model."""
    best = best_evaluation(state.log_history)
    if best is None:
        raise AssertionError("training ended without an evaluation")
    checkpoint = folder / "checkpoints" / f"checkpoint-{best['step']}"
    if run is not None:
        run.update(message="keeping the best model")
    found = known.found if known.step == best["step"] else None
    if found is not None and run is None:
        # The first process removes the checkpoints when it has finished, so nobody else may read them now.
        return
    encoder = load_encoder(str(checkpoint.resolve()), job.settings.attention, device=job.encoder.device)
    if found is None:
        # That evaluation was made before an interruption; the same weights give the same answers.
        found = _score(job, encoder)
    if run is None:
        return
    target = Path(job.settings.best_model_path or folder / "best_model")
    run.publish_model(lambda place: save_encoder(encoder, place), target)
    metrics = {
        **found.metrics(),
        "best_step": best["step"],
        "seconds": run.seconds(),
        "peak_memory_mb": round(peak_memory_mb(job.device), 1),
    }
    run.finish(metrics, found.rows())
    run.prune_checkpoints()
