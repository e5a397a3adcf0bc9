"""What a run writes while it trains: history, status, checkpoints' manifests, the progress bar.

One callback steers as well (when to evaluate, save and stop), because the Trainer calls back in a fixed
order and that order matters: log, evaluate, save. The row of a step with an evaluation is held back until its
scores are there, so that `history.jsonl` has each step once.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from qa.config import Settings
from qa.errors import UserError
from qa.run import Run
from qa.schedule import Schedule, best_evaluation, out_of_patience

STATUS_SECONDS = 2.0
LOG_FILE_SECONDS = 20.0
WRITTEN = {"eval_loss": "eval_loss", "eval_exact_match": "exact_match", "eval_f1": "f1"}


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a wish to stop at the next step; the second one stops at once."""

    def __init__(self) -> None:
        self.wanted = False
        # Processes that prepare batches inherit the handler.
        self._owner = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen within the block; afterwards the signals do what they did before."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        if os.getpid() == self._owner:
            # Not print: the signal may have come in the middle of another one.
            os.write(2, b"\nStopping: saving after this step (once more: at once, back to the last save)\n")

    def agreed(self, world_size: int) -> bool:
        """Whether any process of the run was asked to stop; all get the same answer."""
        if world_size == 1:
            return self.wanted
        wish = torch.tensor(float(self.wanted))
        if torch.distributed.get_backend() == "nccl":
            wish = wish.cuda()
        torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
        return bool(wish.item())


class Recorder(TrainerCallback):
    """Steers a run and, in the first process (`run` given), records it.

    Args:
        run: the experiment folder, None in every other process.
        settings: of the experiment.
        schedule: when to evaluate, to log and to stop.
        stop: whether somebody asked to stop.
    """

    def __init__(
        self,
        run: Run | None,
        *,
        settings: Settings,
        schedule: Schedule,
        stop: StopRequest,
    ) -> None:
        self.run = run
        self.settings = settings
        self.schedule = schedule
        self.stop = stop
        self._bar = tqdm(disable=True)
        self._row: dict[str, Any] = {}
        self._since = time.monotonic()
        self._since_step = 0
        self._told = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock and the bar where the run resumes."""
        self._restart_clock(state)
        self._bar = tqdm(
            total=self.schedule.total_steps,
            initial=state.global_step,
            unit="step",
            desc="train",
            disable=self.run is None,
            dynamic_ncols=True,
            # In a log file every refresh is a line.
            mininterval=0.1 if sys.stderr.isatty() else LOG_FILE_SECONDS,
        )

    def _restart_clock(self, state: TrainerState) -> None:
        self._since, self._since_step = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decide what happens after this step."""
        self._bar.update(1)
        if state.global_step in self.schedule.evaluate_at:
            control.should_log = control.should_evaluate = control.should_save = True
        if self.stop.agreed(args.world_size):
            control.should_log = control.should_save = control.should_training_stop = True
        self._tell(step=state.global_step, epoch=round(float(state.epoch or 0), 4), message="training")

    def evaluating(self, done: int, total: int) -> None:
        """Show how far an evaluation is; evaluations of large sets take minutes."""
        self._tell(message=f"evaluating, {done} of {total} windows")
        self._bar.set_postfix_str(f"evaluating {done}/{total}")

    def _tell(self, **status: Any) -> None:
        if self.run is not None and time.monotonic() - self._told > STATUS_SECONDS:
            self._told = time.monotonic()
            self.run.update(**status)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a row of the history, or hold it until the evaluation of this step is done."""
        logs = logs or {}
        if "loss" in logs:
            self._refuse_infinite(logs["loss"], state)
            self._row = {
                "step": state.global_step,
                "epoch": state.epoch,
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "examples_per_second": self._speed(args, state),
            }
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            if not control.should_evaluate:
                self._write_row()
        if "eval_f1" in logs:
            row = {"step": state.global_step, "epoch": state.epoch, **self._row}
            self._row = row | {name: logs[key] for key, name in WRITTEN.items()}
            self._write_row()

    def _write_row(self) -> None:
        if self.run is not None and self._row:
            self.run.append_history(self._row)
        self._row = {}

    def _speed(self, args: TrainingArguments, state: TrainerState) -> float:
        """Windows trained on per second since the last row, evaluation and saving not counted."""
        steps = state.global_step - self._since_step
        size = self.settings.batch_size * self.settings.gradient_accumulation_steps * args.world_size
        elapsed = max(time.monotonic() - self._since, 1e-9)
        self._restart_clock(state)
        return float(round(steps * size / elapsed, 2))

    def _refuse_infinite(self, loss: float, state: TrainerState) -> None:
        if not math.isfinite(loss):
            wider = "" if self.settings.precision == "fp32" else " or set precision: fp32"
            raise UserError(
                f"the loss is not finite ({loss}) near step {state.global_step}; lower learning_rate (now "
                f"{self.settings.learning_rate:g}){wider} and start again; what was saved before is intact"
            )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop once patience has run out; tell the status and the user."""
        if out_of_patience(state.log_history, self.settings.patience):
            control.should_training_stop = True
        self._bar.set_postfix_str("")
        best, last = best_evaluation(state.log_history), state.log_history[-1]
        if self.run is not None and best is not None:
            self.run.update(best_step=best["step"], best_f1=best["eval_f1"], message="training")
            self._bar.write(
                f"step {state.global_step} (epoch {state.epoch:.2f}): EM {last['eval_exact_match']:.2f}  "
                f"F1 {last['eval_f1']:.2f}  loss {last['eval_loss']:.3f}",
                file=sys.stderr,
            )
        self._restart_clock(state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seal the checkpoint, and keep beside it only the best one."""
        if args.world_size > 1:
            # Other processes write their own random state into the folder.
            torch.distributed.barrier()
        if self.run is not None:
            best = best_evaluation(state.log_history)
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            self.run.seal_checkpoint(folder, [] if best is None else [best["step"]])
        self._restart_clock(state)

    def close(self) -> None:
        """Take the bar off the terminal's last line."""
        self._bar.close()
