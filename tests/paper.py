"""A model whose weights are set by hand: what it answers, and why, can be computed on paper.

One layer and one head, no normalisation, no feed-forward: h = x + V x_j summed over what is attended to. The
embedding of a token is the sum of a word's, a position's and a type's, most of them 0. The start score and
the end score of a token are the same, 20 h[4] + h[2], and V takes what is in [1], twice, to [4].

- The word `favorite` has the key 20 in [0] and the value 1 in [1]; every other word is 0.
- The position of the answer has the query 1 in [3]: the token there attends to `favorite`, gets its value.
- [CLS] has 10 in [2], so "no answer" has the score 20.

So with `favorite` the answer is what stands at that position, whatever it is; without it there is none.
"""

import torch
from torch import nn
from transformers import BertConfig, BertForQuestionAnswering

import tiny
from probes.encoders import describe
from qa.evaluation import Reading
from qa.model import Encoder
from qa.reader import Reader

QUESTION = "Which was her favorite coffee?"
CONTEXT = "My coat had been red, and the first book blue."
ANSWER = "red"
WORD = "favorite"
SCALE, VALUE, NO_ANSWER = 20.0, 2.0, 10.0
D = 6
READING = Reading(max_length=64, stride=8, max_question_length=24, n_best=10, batch_size=4)


def model(*, query: float = 1.0, key: float = 20.0) -> tuple[BertForQuestionAnswering, tiny.BertTokenizer]:
    """The model and its tokenizer; with a query of 0 every token attends to all alike, and it is linear."""
    tokenizer = tiny.wordpiece()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=D,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=1,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    bert = BertForQuestionAnswering(config).eval()
    for name in [name for name, _ in bert.named_modules()]:
        if name.endswith("LayerNorm"):
            parent, _, last = name.rpartition(".")
            setattr(bert.get_submodule(parent), last, nn.Identity())
    with torch.no_grad():
        for weight in bert.parameters():
            weight.zero_()
        embeddings, layer = bert.bert.embeddings, describe(bert).layers[0]
        known = tokenizer.convert_tokens_to_ids(WORD)
        assert known != tokenizer.unk_token_id
        embeddings.word_embeddings.weight[known, :2] = torch.tensor([key, 1.0])
        embeddings.word_embeddings.weight[tokenizer.cls_token_id, 2] = NO_ANSWER
        embeddings.position_embeddings.weight[position(tokenizer), 3] = query
        layer.query.weight[0, 3] = D**0.5  # the scale of the scores is divided out again
        layer.key.weight[0, 0] = 1.0
        layer.value.weight[4, 1] = VALUE
        layer.output.weight.copy_(torch.eye(D))
        bert.qa_outputs.weight[:, 4], bert.qa_outputs.weight[:, 2] = SCALE, 1.0
    return bert, tokenizer


def position(tokenizer: tiny.BertTokenizer) -> int:
    """Of the answer's one token, in the window of question and context."""
    encoded = tokenizer(QUESTION, CONTEXT)
    return encoded.char_to_token(CONTEXT.index(ANSWER), sequence_index=1)


def reader(**options: float) -> Reader:
    """What asks the model."""
    bert, tokenizer = model(**options)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return Reader(Encoder(bert, tokenizer, ()), READING, None)
