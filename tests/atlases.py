"""Models whose heads are set by hand, and questions for them, for tests of the atlas.

One layer of a BERT. An embedding is a one-hot of the word beside a one-hot of the position, so a head can be
made to look for either. The trap: normalisation turns zeros and ones into other numbers, alike for every
token; scores are so large that what is meant gets everything to nine digits.
"""

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizer

from probes.encoders import describe
from qa.evaluation import Reading
from qa.model import Encoder
from qa.reader import Reader
from qa.squad import Question, QuestionSet

WORDS = ("what", "color", "is", "the", "house", "red", "a", "tree", "blue", "no")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POSITIONS = 32
SIZE = 32  # of a head: at least a number for each position, and for each word
HEADS = ("previous", "[SEP]", "same word", "uniform")
LOUD = 60.0
READING = Reading(max_length=POSITIONS, stride=2, max_question_length=8, max_answer_length=4, n_best=5)


def tokenizer() -> BertTokenizer:
    made = BertTokenizer({piece: id_ for id_, piece in enumerate((*SPECIALS, *WORDS))})
    made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


def planted(roles: tuple[str, ...] = HEADS) -> BertForQuestionAnswering:
    """A head for each role; what they find is not used for anything."""
    vocabulary = len(SPECIALS) + len(WORDS)
    width = SIZE * len(roles)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=len(roles),
        intermediate_size=4,
        max_position_embeddings=POSITIONS,
    )
    model = BertForQuestionAnswering(config).eval()
    layer = describe(model).layers[0]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        embeddings = model.bert.embeddings
        embeddings.word_embeddings.weight[:, :vocabulary] = torch.eye(vocabulary)
        embeddings.position_embeddings.weight[:, vocabulary : vocabulary + POSITIONS] = torch.eye(POSITIONS)
        words, places = range(vocabulary), range(vocabulary, vocabulary + POSITIONS)
        for head, role in enumerate(roles):
            first = head * SIZE
            if role == "[SEP]":
                layer.query.bias[first] = LOUD
                layer.key.weight[first, SPECIALS.index("[SEP]")] = 1.0
            for number, column in enumerate(words if role == "same word" else places):
                if role in ("same word", "previous"):
                    layer.key.weight[first + number, column] = 1.0
                if role == "same word":
                    layer.query.weight[first + number, column] = LOUD
                if role == "previous" and number:
                    layer.query.weight[first + number - 1, column] = LOUD
    return model


def carrying(head: int = 0) -> BertForQuestionAnswering:
    """The planted model, whose answer is the word after "is", as one head says.

    That head looks at the token before and adds whether it is "is" to what the scores are read from; the
    others add a little of what they find to the same.
    """
    model = planted()
    layer = describe(model).layers[0]
    signal = model.config.hidden_size - 1
    with torch.no_grad():
        for number in range(len(HEADS)):
            layer.value.weight[number * SIZE, len(SPECIALS) + WORDS.index("is")] = 1.0
            layer.output.weight[signal, number * SIZE] = 1.0 if number == head else 0.05
        model.qa_outputs.weight[:, signal] = 0.2
    return model


def reader(model: BertForQuestionAnswering) -> Reader:
    """Answers every question."""
    return Reader(Encoder(model, tokenizer(), ()), READING, None)


CONTEXTS = ("the house is red", "a tree is no house", "the tree is blue the house the tree")


def questions() -> QuestionSet:
    """Two questions on each of three texts; the answer is the word after the first "is"."""
    made = []
    for paragraph, context in enumerate(CONTEXTS):
        start = context.index(" is ") + 4
        answer = context[start:].partition(" ")[0]
        for number, question in enumerate(("what is the color", "is the house no tree")):
            key = f"{paragraph}-{number}"
            made.append(Question(key, "", str(paragraph), question, context, (answer,), (start,)))
    return QuestionSet("planted", "1.1", tuple(made), ())


def as_file(path: Path, asked: QuestionSet) -> Path:
    """The questions in SQuAD's layout."""
    paragraphs: dict[str, list] = {}
    for question in asked.questions:
        golds = zip(question.answers, question.starts, strict=True)
        paragraphs.setdefault(question.context, []).append(
            {
                "id": question.id,
                "question": question.question,
                "answers": [{"text": text, "answer_start": start} for text, start in golds],
            }
        )
    data = [
        {"title": "", "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs.items()]}
    ]
    path.write_text(json.dumps({"version": asked.version, "data": data}))
    return path
