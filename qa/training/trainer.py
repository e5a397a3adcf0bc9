"""The Hugging Face Trainer, wired for question answering and for exact resume.

What differs from its usual use: the order of windows depends on (seed, epoch) only; evaluation is
`qa.evaluation`, in float32, over whole questions; and layers may have learning rates of their own. The trap:
the Trainer hides a loss that is not finite from its log (`logging_nan_inf_filter`), so that filter is off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from qa import files
from qa.batches import Collator, TrainingOrder, TrainingWindows
from qa.config import Settings
from qa.evaluation import Evaluation
from qa.model import Encoder, load_encoder
from qa.schedule import Schedule
from qa.training.loss import answer_loss

LAYER = re.compile(r"\.(?:layers?|albert_layers)\.(\d+)\.")


class QATrainer(Trainer):
    """A Trainer whose evaluation answers questions.

    Args:
        encoder: the model and tokenizer to train.
        data: training windows with labels.
        settings: of the experiment.
        schedule: when to log and to stop.
        evaluate: answers and scores the validation questions with the model as it is.
        arguments: from `training_arguments`.
        callbacks: what records and steers the run.
    """

    def __init__(
        self,
        encoder: Encoder,
        data: TrainingWindows,
        *,
        settings: Settings,
        evaluate: Callable[[], Evaluation],
        arguments: TrainingArguments,
        callbacks: list[TrainerCallback],
    ) -> None:
        length = settings.max_length if settings.padding == "max_length" else None
        super().__init__(
            model=encoder.model,
            args=arguments,
            train_dataset=data,
            processing_class=encoder.tokenizer,
            data_collator=Collator(data, encoder.tokenizer, length=length),
            callbacks=callbacks,
        )
        self.encoder = encoder
        self.settings = settings
        self.answer_and_score = evaluate
        self.order = TrainingOrder(
            data.windows.lengths,
            self.args.train_batch_size * self.args.world_size,
            seed=settings.seed,
            group=settings.group_by_length,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> TrainingOrder:
        return self.order

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """The loss of a batch; the Trainer's own where each window has one gold answer."""
        if inputs["start_positions"].ndim == 1:
            return super().compute_loss(model, inputs, *arguments, **named)
        loss, outputs = answer_loss(model, inputs)
        return (loss, outputs) if named.get("return_outputs") else loss

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        # With several processes nobody else tells a sampler inside a skipping one which epoch it is.
        self.order.set_epoch(named["epoch"])
        super()._run_epoch(*arguments, **named)  # type: ignore[no-untyped-call]  # the Trainer's own

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # The Trainer matches names as they are stored and skips what it does not know, but old checkpoints
        # call a layer norm's weights gamma and beta; the loader translates, and nothing may be left over.
        stored = load_encoder(resume_from_checkpoint, self.settings.attention).model.state_dict()
        (self.encoder.model if model is None else model).load_state_dict(stored)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Answer and score the validation questions; the keys are those of the Trainer's log."""
        found = self.answer_and_score()
        metrics = {
            f"{metric_key_prefix}_loss": found.eval_loss,
            f"{metric_key_prefix}_exact_match": found.scores.exact_match,
            f"{metric_key_prefix}_f1": found.scores.f1,
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # torch and safetensors each have an error of their own for a full disk.
        with files.explained(Path(str(self.args.output_dir))):
            super()._save_checkpoint(model, trial)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW, with a lower learning rate for lower layers if `layer_decay` is below 1."""
        if self.optimizer is None and self.settings.layer_decay < 1:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.encoder.model)
            self.optimizer = kind(self._layer_groups(), **options)
        return super().create_optimizer(model)

    def _layer_groups(self) -> list[dict[str, Any]]:
        """Parameters grouped by depth and by whether weight decay applies, each with its learning rate."""
        model = self.encoder.model
        decayed = set(self.get_decay_parameter_names(model))
        # Counted by name: ALBERT has one set of weights for all its layers.
        layers = len({found[1] for name, _ in model.named_parameters() if (found := LAYER.search(name))})
        groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((_height(name, layers), name in decayed), []).append(parameter)
        # The head first: its learning rate is the one the Trainer's log shows.
        return [
            {
                "params": parameters,
                "weight_decay": self.args.weight_decay if decays else 0.0,
                "lr": self.args.learning_rate * self.settings.layer_decay ** (layers + 1 - height),
            }
            for (height, decays), parameters in sorted(groups.items(), key=lambda item: -item[0][0])
        ]


def _height(name: str, layers: int) -> int:
    """0 for the embeddings, 1 .. layers for the layers, layers + 1 for the head."""
    if name.startswith("qa_outputs."):
        return layers + 1
    found = LAYER.search(name)
    return int(found.group(1)) + 1 if found else 0


def training_arguments(
    settings: Settings, schedule: Schedule, *, checkpoints: Path, device: str, precision: str
) -> TrainingArguments:
    """The Trainer's arguments for these settings; evaluating and saving is left to the recorder."""
    report_to = [settings.report_to] if isinstance(settings.report_to, str) else settings.report_to
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=schedule.total_steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup * schedule.total_steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=device == "cuda",
        seed=settings.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=schedule.log_every,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=report_to,
        run_name=checkpoints.parent.name,
    )
    # A launcher's environment must not choose another precision than the one that is recorded.
    arguments.mixed_precision = "no" if precision == "fp32" else precision
    # One process trains on one GPU: the library's own data parallelism would multiply the batch unseen.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
