"""An experiment with a model as large as a page must bear: 12 layers, 12 heads, windows of 384 tokens.

The weights are random and the width is small, so it is made and run in seconds; its maps are as many and as
large as those of deberta-v3-base.
"""

import random
from pathlib import Path

import torch
from transformers import AutoModelForQuestionAnswering, DebertaV2Config

import tiny
from qa.config import Settings
from qa.experiment import Experiment
from qa.importing import import_model
from qa.squad import Question, QuestionSet

LAYERS, HEADS, TOKENS = 12, 12, 384
QUESTION = "Who wrote the first book about Normandy?"


def context(seed: int = 0) -> str:
    """A text that fills a window of TOKENS tokens and goes on a little."""
    draw = random.Random(seed)
    words = [draw.choice(tiny.WORDS) for _ in range(TOKENS)]
    # Sentences, for whoever groups by them.
    return " ".join(word + "." * (number % 12 == 11) for number, word in enumerate(words))


def questions(count: int = 4) -> QuestionSet:
    """Questions about texts of that length, two a text."""
    asked = []
    for number in range(count):
        text = context(number // 2)
        answer = text.split()[5 + number]
        asked.append(
            Question(
                f"huge-{number}",
                "Huge",
                f"Huge/{number // 2}",
                QUESTION,
                text,
                (answer,),
                (text.index(answer),),
            )
        )
    return QuestionSet("huge.json", "1.1", tuple(asked), ())


def save(folder: Path, *, seed: int = 0) -> Path:
    """Write such a model as a checkpoint, and give the folder back."""
    tokenizer = tiny.unigram()
    config = DebertaV2Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=8 * HEADS,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=64,
        max_position_embeddings=512,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        max_relative_positions=-1,
        position_buckets=32,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForQuestionAnswering.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def experiment(root: Path, name: str, *, seed: int = 0) -> Experiment:
    """An experiment with such a model, evaluated on a few questions."""
    model = save(root.parent / f"{name}-model", seed=seed)
    settings = Settings(max_length=TOKENS, stride=64, device="cpu", no_answer_threshold=None)
    return import_model(str(model), questions(), root=root, name=name, settings=settings)
