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
from qa.config import Settings
from qa.evaluation import Prepared, full_precision
from qa.hardware import describe_device
from qa.model import Encoder
from qa.schedule import Schedule

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LONG_SECONDS = 2 * 3600


def announce(
    encoder: Encoder,
    training: Prepared,
    validation: Prepared,
    schedule: Schedule,
    settings: Settings,
    precision: str,
    *,
    say: Callable[[str], None],
) -> None:
    """Say what is about to happen, how long it will take, and what would be cheaper if that is hours."""
    device = encoder.device.type
    say(f"device      {device} ({describe_device(device)}), {precision}")
    weights = sum(parameter.numel() for parameter in encoder.model.parameters())
    say(f"model       {settings.model_name}, {weights / 1e6:.0f} M weights")
    for label, prepared in (("training", training), ("validation", validation)):
        say(
            f"{label:<12}{len(prepared.questions.questions):,} questions, {len(prepared.windows):,} windows "
            f"({prepared.questions.name}, SQuAD {prepared.questions.version})"
        )
    size = settings.batch_size * settings.gradient_accumulation_steps
    say(f"steps       {schedule.total_steps:,} of {size} windows, {len(schedule.evaluate_at)} evaluations")
    step, batch = measure(encoder, training, settings, precision)
    passes = (len(schedule.evaluate_at) + 1) * len(validation.windows) / settings.batch_size
    seconds = schedule.total_steps * settings.gradient_accumulation_steps * step + passes * batch
    say(f"time        about {duration(seconds)}")
    if seconds > LONG_SECONDS:
        share = LONG_SECONDS / 4 / seconds
        questions = max(100, int(len(training.questions.questions) * share) // 100 * 100)
        say(
            f"cheaper     for a first look: --set limit_train={questions} --set epochs=1 "
            "--set limit_validation=500; or a smaller model_name; or --pocket, minutes on a laptop"
        )


def duration(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def measure(encoder: Encoder, training: Prepared, settings: Settings, precision: str) -> tuple[float, float]:
    """Seconds for forward and backward of a training batch, and for an evaluation batch of that size."""
    order = np.argsort(training.windows.lengths, kind="stable")
    middle = max(0, (len(order) - settings.batch_size) // 2)
    chosen = order[middle : middle + settings.batch_size]
    length = settings.max_length if settings.padding == "max_length" else None
    collate = Collator(TrainingWindows(training.windows, training.labels), encoder.tokenizer, length=length)
    batch = {key: value.to(encoder.device) for key, value in collate(chosen.tolist()).items()}
    with _untouched(encoder):
        _step(encoder, batch, precision)
        trained = min(_timed(encoder, lambda: _step(encoder, batch, precision)) for _ in range(2))
    return trained, _timed(encoder, lambda: _forward(encoder, batch))


def _timed(encoder: Encoder, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    if encoder.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _step(encoder: Encoder, batch: dict[str, torch.Tensor], precision: str) -> None:
    dtype = AUTOCAST.get(precision)
    with torch.autocast(encoder.device.type, dtype=dtype, enabled=dtype is not None):
        loss = encoder.model(**batch).loss
    loss.backward()


def _forward(encoder: Encoder, batch: dict[str, torch.Tensor]) -> None:
    with full_precision(encoder.model) as model:
        model(**batch)


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
