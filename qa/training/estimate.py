"""What a run will do, told before it starts: device, windows, steps, and how long that takes here.

The time is measured, not guessed: one training step and one evaluation batch of typical length, run on the
model itself with the random state put back afterwards and all gradients dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from qa.batches import Collator, TrainingWindows
from qa.evaluation import full_precision
from qa.hardware import describe_device
from qa.model import Encoder
from qa.training.job import Job, world_size
from qa.training.loss import answer_loss

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LONG_SECONDS = 2 * 3600


def announce(job: Job, *, say: Callable[[str], None]) -> None:
    """Say what is about to happen, how long it will take, and what would be cheaper if that is hours."""
    settings, schedule, device = job.settings, job.schedule, job.encoder.device.type
    say(f"device      {device} ({describe_device(device)}), {job.precision}")
    weights = sum(parameter.numel() for parameter in job.encoder.model.parameters())
    say(f"model       {settings.model_name}, {weights / 1e6:.0f} M weights")
    for label, prepared in (("training", job.training), ("validation", job.validation)):
        say(
            f"{label:<12}{len(prepared.questions.questions):,} questions, {len(prepared.windows):,} windows "
            f"({prepared.questions.name}, SQuAD {prepared.questions.version})"
        )
    size = settings.batch_size * settings.gradient_accumulation_steps * world_size()
    say(f"steps       {schedule.total_steps:,} of {size} windows, {len(schedule.evaluate_at)} evaluations")
    seconds = _estimate(job)
    say(f"time        about {duration(seconds)}")
    if seconds > LONG_SECONDS:
        share = LONG_SECONDS / 4 / seconds
        questions = max(100, int(len(job.training.questions.questions) * share) // 100 * 100)
        say(
            f"cheaper     for a first look: --set limit_train={questions} --set epochs=1 "
            "--set limit_validation=500; or a smaller model_name; or --pocket, minutes on a laptop"
        )


def _estimate(job: Job) -> float:
    """Seconds that the whole run takes."""
    step, batch = measure(job)
    evaluations = len(job.schedule.evaluate_at) * len(job.validation.windows) / job.settings.batch_size
    steps = job.schedule.total_steps * job.settings.gradient_accumulation_steps
    return steps * step + evaluations * batch / world_size()


def duration(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def measure(job: Job) -> tuple[float, float]:
    """Seconds for forward and backward of a training batch, and for an evaluation batch of that size."""
    encoder, settings, windows = job.encoder, job.settings, job.training.windows
    order = np.argsort(windows.lengths, kind="stable")
    middle = max(0, (len(order) - settings.batch_size) // 2)
    chosen = order[middle : middle + settings.batch_size]
    length = settings.max_length if settings.padding == "max_length" else None
    collate = Collator(TrainingWindows(windows, job.training.labels), encoder.tokenizer, length=length)
    batch = {key: value.to(encoder.device) for key, value in collate(chosen.tolist()).items()}
    if settings.gradient_checkpointing:
        encoder.model.activation_checkpointing_enable({"use_reentrant": False})
    with _untouched(encoder):
        _step(encoder, batch, job.precision)
        trained = min(_timed(encoder, lambda: _step(encoder, batch, job.precision)) for _ in range(2))
    return trained, _timed(encoder, lambda: _forward(encoder, batch))


def _timed(encoder: Encoder, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    if encoder.device.type == "cuda":
        torch.cuda.synchronize(encoder.device)
    return time.perf_counter() - started


def _step(encoder: Encoder, batch: dict[str, torch.Tensor], precision: str) -> None:
    dtype = AUTOCAST.get(precision)
    with torch.autocast(encoder.device.type, dtype=dtype, enabled=dtype is not None):
        loss, _ = answer_loss(encoder.model, batch)
    loss.backward()


def _forward(encoder: Encoder, batch: dict[str, torch.Tensor]) -> None:
    with full_precision(encoder.model) as model:
        answer_loss(model, batch)


@contextmanager
def _untouched(encoder: Encoder) -> Iterator[None]:
    """In training mode within; afterwards mode, gradients and random state are as before."""
    devices = [encoder.device] if encoder.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        encoder.model.train()
        try:
            yield
        finally:
            encoder.model.zero_grad(set_to_none=True)
            encoder.model.eval()
