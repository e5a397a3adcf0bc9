"""Every supported architecture, tiny and random, through everything that is done with an encoder.

And `microsoft/deberta-v3-base` as its repository is laid out: its settings file, its SentencePiece model, its
half-precision weights, at its own size in the slow test.
"""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForQuestionAnswering, PreTrainedConfig

import tiny
import tiny_models
from qa.batches import pad_windows
from qa.errors import UserError
from qa.evaluation import Reading
from qa.model import (
    Encoder,
    check_max_length,
    load_encoder,
    longest_input,
    save_encoder,
    tokenizer_fingerprint,
)
from qa.reader import Reader
from qa.squad import Question
from qa.windows import make_windows

READING = Reading(max_length=64, stride=12, max_question_length=40, n_best=5, batch_size=4)
QUESTION = "When did the dynasty fall in Zürich?"
CONTEXT = " ".join(tiny.SENTENCES)
WITH_TYPES = {"deberta-v2", "bert", "electra", "albert"}
# The published settings; sizes are beside them.
PUBLISHED = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "relative_attention": True,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pad_token_id": 0,
}
BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "position_buckets": 256,
    "vocab_size": 128_100,
}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 130,
    "position_buckets": 16,
    "vocab_size": 128,
}


@pytest.fixture(scope="module", params=tiny_models.ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(architecture, tmp_path_factory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("model") / architecture, architecture)


@pytest.fixture(scope="module")
def encoder(folder) -> Encoder:
    return load_encoder(str(folder), check_head=True)


def inputs_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    """All windows of the question above, padded."""
    asked = Question("0", "", "0", QUESTION, CONTEXT, (), ())
    windows = make_windows([asked], encoder.tokenizer, max_length=64, stride=12, max_question_length=40)
    return pad_windows(windows, range(len(windows)), encoder.tokenizer)


def test_loads_as_it_was_saved(architecture, folder, encoder):
    assert not encoder.model.training
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}
    assert encoder.new_weights == ()
    saved = AutoModelForQuestionAnswering.from_pretrained(folder)
    assert tiny_models.fingerprint(encoder.model) == tiny_models.fingerprint(saved)


def test_answers_with_a_slice_of_the_context(encoder):
    answer = Reader(encoder, READING, None).answer(QUESTION, CONTEXT)
    assert answer.text
    assert answer.windows > 2
    for span in (answer, *answer.n_best):
        assert span.text == CONTEXT[span.start : span.end] == span.text.strip()


def test_every_token_has_a_score_of_its_own(encoder):
    # If this fails, the tests on these models see little: equal scores hide a mistaken order of windows.
    output = encoder.model(**inputs_of(encoder))
    assert output.start_logits.std(1).min() > 1e-3


def test_training_step_under_autocast_has_full_precision_scores_and_gradients(folder):
    model = load_encoder(str(folder)).model.train()
    inputs = inputs_of(load_encoder(str(folder)))
    first = torch.ones(len(inputs["input_ids"]), dtype=torch.long)
    hidden = []
    handle = model.qa_outputs.register_forward_pre_hook(lambda _, arguments: hidden.append(arguments[0]))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs, start_positions=first, end_positions=first + 1)
        output.loss.backward()
    handle.remove()
    assert hidden[0].dtype in (torch.bfloat16, torch.float32)
    assert output.start_logits.dtype == output.end_logits.dtype == output.loss.dtype == torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all(), name


def test_model_gets_the_token_types_of_the_tokenizer_where_it_has_them(architecture, encoder):
    inputs = inputs_of(encoder)
    assert ("token_type_ids" in inputs) == (architecture in WITH_TYPES)
    if architecture not in WITH_TYPES:
        return
    called = encoder.tokenizer(
        [QUESTION],
        [CONTEXT],
        truncation="only_second",
        max_length=64,
        stride=12,
        return_overflowing_tokens=True,
        return_token_type_ids=True,
        padding=True,
        return_tensors="pt",
    )
    for key, values in inputs.items():
        assert torch.equal(values, called[key]), key
    other = encoder.model(**{**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])})
    assert not torch.allclose(other.start_logits, encoder.model(**inputs).start_logits, atol=1e-3)


def test_longest_input_is_the_longest(architecture, encoder):
    longest = longest_input(encoder.model)
    assert longest == {"mpnet": 128, "roberta": 128}.get(architecture, 130)
    check_max_length(encoder.model, longest)
    ids = torch.full((1, longest + 1), encoder.tokenizer.mask_token_id)
    assert encoder.model(ids[:, :-1]).start_logits.shape == (1, longest)
    with pytest.raises(UserError, match=f"max_length: {longest + 1}, .* at most {longest} tokens"):
        check_max_length(encoder.model, longest + 1)
    if architecture not in ("deberta", "deberta-v3"):  # those two know relative positions only
        with pytest.raises((IndexError, RuntimeError)):
            encoder.model(ids)


def test_saved_and_loaded_again_it_is_the_same(encoder, tmp_path):
    save_encoder(encoder, tmp_path)
    again = load_encoder(str(tmp_path), check_head=True)
    assert tiny_models.fingerprint(again.model) == tiny_models.fingerprint(encoder.model)
    assert tokenizer_fingerprint(again.tokenizer) == tokenizer_fingerprint(encoder.tokenizer)
    first, second = (Reader(each, READING, None).answer(QUESTION, CONTEXT) for each in (encoder, again))
    assert first == second


def test_half_precision_weights_load_as_float32(encoder, tmp_path):
    before = tiny_models.fingerprint(encoder.model)
    save_encoder(encoder, tmp_path, dtype=torch.float16)
    assert tiny_models.fingerprint(encoder.model) == before
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        assert {stored.get_slice(key).get_dtype() for key in stored.keys()} == {"F16"}  # noqa: SIM118 - no dict
    loaded = load_encoder(str(tmp_path), check_head=True).model.state_dict()
    for key, value in encoder.model.state_dict().items():
        assert torch.equal(loaded[key], value.half().float()), key


def test_checkpoint_without_its_tokenizer_is_refused(folder, tmp_path):
    # The library would make a tokenizer that knows nothing but its special tokens.
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(UserError, match=r"^model_name: .*tokenizer"):
        load_encoder(str(tmp_path))


def test_distilbert_with_the_tokenizer_of_bert(tmp_path):
    # Repositories that name no tokenizer class get BERT's, whose token types DistilBERT does not take.
    tiny_models.save(tmp_path, "distilbert")
    tiny.wordpiece().save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert list(inputs_of(encoder)) == ["input_ids", "attention_mask"]
    assert Reader(encoder, READING, None).answer(QUESTION, CONTEXT).text


def sentencepiece_model() -> bytes:
    """A small vocabulary with the special tokens where DeBERTa-v3 has them."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.SENTENCES * 3),
        model_writer=written,
        model_type="unigram",
        vocab_size=100,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        num_threads=1,
        minloglevel=2,
    )
    return written.getvalue()


def published_weights(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """As freshly initialised, in half precision, with the heads of the pre-training and no other.

    One block of noise is repeated throughout: drawing 184 million numbers would take most of the test.
    """
    with torch.device("meta"):
        model = AutoModelForQuestionAnswering.from_config(config)
    noise = config.initializer_range * torch.randn(65_521, generator=torch.Generator().manual_seed(0)).half()
    state = {"lm_predictions.lm_head.bias": torch.zeros(config.vocab_size, dtype=torch.float16)}
    for key, value in model.deberta.state_dict().items():
        if value.dim() == 1:
            fill = 1.0 if key.endswith("LayerNorm.weight") else 0.0
            state[f"deberta.{key}"] = torch.full(value.shape, fill, dtype=torch.float16)
        else:
            repeated = noise.repeat(value.numel() // len(noise) + 1)
            state[f"deberta.{key}"] = repeated[: value.numel()].reshape(value.shape).clone()
    return state


def publish(folder: Path, sizes: dict[str, int]) -> Path:
    """A folder as the repository microsoft/deberta-v3-base is: no tokenizer.json, no safetensors, float16."""
    folder.mkdir(parents=True)
    (folder / "spm.model").write_bytes(sentencepiece_model())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **sizes}))
    torch.save(published_weights(AutoConfig.from_pretrained(folder)), folder / "pytorch_model.bin")
    return folder


@pytest.fixture
def published(request, tmp_path) -> Iterator[Path]:
    """The folder above with the sizes in the fixture's parameter; deleted afterwards, as it is large."""
    folder = publish(tmp_path / "deberta-v3-base", request.param)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("published", [SMALL], indirect=True, ids=["small"])
def test_layout_of_deberta_v3_base(published, tmp_path):
    encoder = load_encoder(str(published))
    assert encoder.new_weights == ("qa_outputs.bias", "qa_outputs.weight")
    stored = torch.load(published / "pytorch_model.bin", weights_only=True)
    for key, value in encoder.model.deberta.state_dict().items():
        assert torch.equal(value, stored[f"deberta.{key}"].float()), key
    with pytest.raises(UserError, match="no trained question-answering head"):
        load_encoder(str(published), check_head=True)
    # From here on there are a tokenizer.json and safetensors; nothing may change by it.
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(str(tmp_path / "saved"), check_head=True)
    assert tokenizer_fingerprint(again.tokenizer) == tokenizer_fingerprint(encoder.tokenizer)
    assert tiny_models.fingerprint(again.model) == tiny_models.fingerprint(encoder.model)


@pytest.mark.parametrize("published", [SMALL], indirect=True, ids=["small"])
def test_spm_model_is_read_as_sentencepiece_reads_it(published):
    tokenizer = load_encoder(str(published)).tokenizer
    original = sentencepiece.SentencePieceProcessor(model_file=str(published / "spm.model"))
    assert type(tokenizer).__name__ == "DebertaV2Tokenizer"
    specials = tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 100])
    assert specials == ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    for text in (*tiny.SENTENCES, "unknown 漢字", "  blanks \t and\nlines  "):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == original.encode(text), text
    pair = tokenizer("cat", "river", return_token_type_ids=True)
    cat, river = original.encode("cat"), original.encode("river")
    assert pair["input_ids"] == [1, *cat, 2, *river, 2]
    assert pair["token_type_ids"] == [0] * (len(cat) + 2) + [1] * (len(river) + 1)


def parameters_of(sizes: dict[str, int]) -> int:
    """Counted by hand: embeddings, relative embeddings, each with a normalisation; layers; the head."""
    D, inner = sizes["hidden_size"], sizes["intermediate_size"]
    norm = 2 * D
    attention = 4 * (D * D + D) + norm  # query, key, value, output; positions share query and key
    feed_forward = (D * inner + inner) + (inner * D + D) + norm
    embeddings = sizes["vocab_size"] * D + norm + 2 * sizes["position_buckets"] * D + norm
    return embeddings + sizes["num_hidden_layers"] * (attention + feed_forward) + 2 * D + 2


@pytest.mark.slow
@pytest.mark.parametrize("published", [BASE], indirect=True, ids=["base"])
def test_deberta_v3_base_at_its_own_size(published):
    encoder = load_encoder(str(published))
    model, parameters = encoder.model, list(encoder.model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    assert count == parameters_of(BASE) == 183_833_090
    assert longest_input(model) == 512
    weights = sum(parameter.nbytes for parameter in parameters) / 1e6
    assert weights == pytest.approx(735, abs=1)

    model.train()
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    first = torch.tensor([3, 5])
    inputs = {key: value[:2, :64] for key, value in inputs_of(encoder).items()}
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs, start_positions=first, end_positions=first + 1).loss
    loss.backward()
    # Random weights are undecided among the 64 tokens.
    assert loss.item() == pytest.approx(torch.tensor(64.0).log().item(), abs=0.5)
    optimizer.step()
    state = sum(value.nbytes for values in optimizer.state.values() for value in values.values()) / 1e6
    gradients = sum(parameter.grad.nbytes for parameter in parameters) / 1e6
    print(f"weights {weights:.0f} MB, gradients {gradients:.0f} MB, AdamW {state:.0f} MB")
    assert gradients == pytest.approx(weights)
    assert state == pytest.approx(2 * weights, rel=1e-3)

    optimizer.zero_grad()
    context = tiny.SENTENCES[0]
    answer = Reader(Encoder(model.eval(), encoder.tokenizer, ()), READING, None).answer(QUESTION, context)
    assert answer.text
    assert answer.text == context[answer.start : answer.end]
