"""Load and save question-answering encoders and their tokenizers, always as float32.

The trap: the library is lenient. `microsoft/deberta-v3-base` is stored in half precision and stays so unless
told otherwise; weights that a checkpoint lacks are drawn at random; a folder without tokenizer files gives a
tokenizer that knows no word; a decoder gets a question-answering head as readily as an encoder. So the dtype
is always given, and everything else is checked.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from qa.disentangled import install_fast_attention, why_not_fast
from qa.errors import UserError
from qa.fast_linear import install_fast_linear
from qa.float32 import Float32Head, keep_attention_in_float32
from qa.pocket import POCKET_MODEL

INPUTS = ("input_ids", "token_type_ids", "attention_mask")

# Loading a hub checkpoint without safetensors, as deberta-v3-base is, would ask a service to convert it.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model with the tokenizer it was trained with.

    Attributes:
        model: ends in start and end logits for every token.
        tokenizer: fast, pads on the right.
        new_weights: names of weights that the checkpoint did not hold (a question-answering head, mostly).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_weights: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        device: torch.device = self.model.device
        return device


def load_encoder(
    name: str, attention: str = "auto", *, device: torch.device | str = "cpu", check_head: bool = False
) -> Encoder:
    """The model and tokenizer of a hub name, a folder, or `pocket`; in evaluation mode, float32.

    Args:
        name: what `model_name` in the settings may be.
        attention: one of `qa.config.ATTENTIONS`; auto takes the fastest that the architecture has:
            `qa.disentangled` for DeBERTa, torch's fused attention for most others; both with
            `qa.fast_linear`.
        device: where to put the weights.
        check_head: refuse a checkpoint without a trained question-answering head.

    Raises:
        UserError: it cannot be found or loaded, or is no encoder for question answering.
    """
    source = _source(name)
    with quiet_library(), _loading(name):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        kind = _model_class(name, config, attention)
        tokenizer = _load_tokenizer(name, source)
        model, new = _load_weights(name, source, config, kind, attention)
    if check_head and new:
        raise UserError(
            f"{name}: the checkpoint has no trained question-answering head ({', '.join(new)} missing); "
            "fine-tune it with run_experiment.py first"
        )
    check_float32(model)
    _check_vocabulary(name, model, tokenizer)
    if attention == "fast" or (attention == "auto" and why_not_fast(model.config) is None):
        install_fast_attention(model)
    elif attention == "auto":
        install_fast_linear(model)
    tokenizer.model_input_names = _inputs(model)
    return Encoder(model.eval().to(device), tokenizer, new)


def _source(name: str) -> str:
    """The folder of a name, or the name itself if it is one of the hub."""
    if name == "pocket":
        return _folder(name, POCKET_MODEL)
    try:
        path = Path(name).expanduser()
        is_path = name.startswith((".", "~", "/")) or path.exists()
    except (OSError, RuntimeError) as error:  # too long for a file name; the home of nobody
        raise _unavailable(name, error) from error
    return _folder(name, path) if is_path else name


def _folder(name: str, path: Path) -> str:
    if not (path / "config.json").is_file():
        raise UserError(
            f"model_name: no model in {name!r} (a folder with config.json, weights and tokenizer); "
            "give another folder or the name of a model on the hub"
        )
    return str(path)


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn whatever the library's parsers raise, plain `Exception` included, into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _unavailable(name, error) from error


def _unavailable(name: str, error: Exception) -> UserError:
    reason = textwrap.shorten(str(error), 160, placeholder=" …")
    return UserError(
        f"model_name: {name[:100]!r} could not be loaded ({type(error).__name__}: {reason}); check the name "
        "and the connection to the hub, give a local folder with a whole checkpoint, or run with --pocket, "
        "which needs no network"
    )


def _model_class(name: str, config: PreTrainedConfig, attention: str) -> type[PreTrainedModel]:
    """The question-answering class of the architecture.

    An encoder is what can be trained to fill in masked words, in the library's table, and reads both ways.
    """
    mappings = (MODEL_FOR_QUESTION_ANSWERING_MAPPING, MODEL_FOR_MASKED_LM_MAPPING)
    decodes = config.is_encoder_decoder or getattr(config, "is_decoder", False)
    if decodes or not all(type(config) in mapping for mapping in mappings):
        raise UserError(
            f"model_name: {name!r} ({config.model_type}) is no encoder for extractive question answering; "
            "use a DeBERTa, BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT or MPNet"
        )
    kind: Any = MODEL_FOR_QUESTION_ANSWERING_MAPPING[type(config)]
    if attention == "fast" and (reason := why_not_fast(config)) is not None:
        raise UserError(f"attention: fast does not apply to {name!r} ({reason}); use auto or eager")
    if attention == "sdpa" and not kind._supports_sdpa:
        raise UserError(f"attention: {config.model_type} has no 'sdpa' implementation; use auto or eager")
    return cast(type[PreTrainedModel], kind)


def _load_tokenizer(name: str, source: str) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise UserError(
            f"model_name: {name!r} has no tokenizer files (tokenizer.json, spm.model or vocab.txt); "
            "copy those of the checkpoint it comes from into the folder"
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def load_tokenizer(name: str, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer of a name as in `load_encoder`, for a model of that name which is there already.

    Raises:
        UserError: it cannot be found or loaded.
    """
    with quiet_library(), _loading(name):
        tokenizer = _load_tokenizer(name, _source(name))
    tokenizer.model_input_names = _inputs(model)
    return tokenizer


def _load_weights(
    name: str, source: str, config: PreTrainedConfig, kind: type[PreTrainedModel], attention: str
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The float32 model and the names of the head's weights if they are new."""
    config.num_labels = 2  # start and end, whatever the classifier before them told apart
    loaded: Any = kind.from_pretrained(
        source,
        config=config,
        dtype=torch.float32,
        attn_implementation=None if attention in {"auto", "fast"} else attention,
        ignore_mismatched_sizes=True,  # the library's own complaint is a table; ours is below
        output_loading_info=True,
    )
    model: PreTrainedModel = loaded[0]
    head = getattr(model, "qa_outputs", None)
    if not isinstance(head, torch.nn.Linear):
        raise UserError(
            f"model_name: {name!r} ({config.model_type}) has no linear head for start and end scores; "
            "use a DeBERTa, BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT or MPNet"
        )
    model.qa_outputs = Float32Head.like(head)
    keep_attention_in_float32(model)
    return model, _new_weights(name, loaded[1])


def _new_weights(name: str, info: dict[str, Any]) -> tuple[str, ...]:
    """The head's weights that the checkpoint lacks; an encoder's weights may not be drawn at random."""
    missing = sorted(info["missing_keys"])
    wrong = {key for key in missing if not key.startswith("qa_outputs.")}
    wrong |= {key for key, *_ in info["mismatched_keys"]}
    if wrong:
        raise UserError(
            f"model_name: the weights of {name!r} do not fit its config.json ({len(wrong)} missing or of "
            f"another shape, {min(wrong)} first); give a folder whose files belong together"
        )
    return tuple(missing)


def _inputs(model: PreTrainedModel) -> list[str]:
    """What the model reads. Tokenizers do not say: ALBERT's omits its types, BERT's gives DistilBERT some."""
    accepted = inspect.signature(type(model).forward).parameters
    names = [name for name in INPUTS if name in accepted]
    if int(getattr(model.config, "type_vocab_size", 0)) < 2:
        return [name for name in names if name != "token_type_ids"]
    return names


def check_float32(model: torch.nn.Module) -> None:
    """Assert that every weight is float32: half-precision weights lose small updates in training."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if dtypes != {torch.float32}:
        raise AssertionError(f"weights are {dtypes}, expected float32 only")


def _check_vocabulary(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = int(model.config.vocab_size)
    if len(tokenizer) > rows:
        raise UserError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens but the model only {rows}; "
            "the folder mixes files of different models"
        )


def longest_input(model: PreTrainedModel) -> int:
    """Tokens the model reads at most; RoBERTa and its kin count positions from after the padding token."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return int(model.config.max_position_embeddings)


def check_max_length(model: PreTrainedModel, max_length: int) -> None:
    """Refuse windows longer than the model reads.

    Raises:
        UserError: naming the longest allowed.
    """
    longest = longest_input(model)
    if max_length > longest:
        raise UserError(f"max_length: {max_length}, but this model reads at most {longest} tokens; lower it")


def save_encoder(encoder: Encoder, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write model (safetensors) and tokenizer as a Hugging Face checkpoint.

    Args:
        encoder: what to save.
        folder: an existing or new folder.
        dtype: of the stored weights; the model in memory stays as it is.
    """
    state = encoder.model.state_dict()
    # How the last call cut and padded is no part of a tokenizer, yet it would be saved with it.
    encoder.tokenizer.backend_tokenizer.no_truncation()
    encoder.tokenizer.backend_tokenizer.no_padding()
    with quiet_library():
        if dtype == torch.float32:
            encoder.model.save_pretrained(folder)
        else:
            encoder.model.save_pretrained(
                folder, state_dict={key: value.to(dtype) for key, value in state.items()}
            )
        encoder.tokenizer.save_pretrained(folder)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that decides how this tokenizer cuts text."""
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    # Truncation and padding are what the last call left behind, not part of the tokenizer.
    for transient in ("truncation", "padding"):
        serialised.pop(transient, None)
    return hashlib.sha256(json.dumps(serialised, sort_keys=True).encode()).hexdigest()


@contextmanager
def quiet_library() -> Iterator[None]:
    """Silence the library's load reports and bars; what matters of them is said by our own messages."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
