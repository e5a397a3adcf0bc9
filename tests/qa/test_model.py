"""What is refused, in one line, and what loading and saving leave as it was."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

import tiny
import tiny_models
from qa.disentangled import FastEncoder
from qa.errors import UserError
from qa.float32 import Float32Head
from qa.model import (
    Encoder,
    check_float32,
    load_encoder,
    save_encoder,
    tokenizer_fingerprint,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def refusal(name: str | Path, **arguments) -> str:
    """The message with which `name` is refused, which is one line."""
    with pytest.raises(UserError) as caught:
        load_encoder(str(name), **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    "name", ["microsoft/deberta-v3-base", "no/such/thing", "x y", "x" * 5000, "~nosuchuser/x"]
)
def test_name_that_cannot_be_had_leads_on(name):
    message = refusal(name)
    assert message.startswith(f"model_name: {name[:100]!r} could not be loaded (")
    for way_on in ("connection to the hub", "local folder", "--pocket"):
        assert way_on in message


def test_path_without_a_model(tmp_path):
    for name in (tmp_path, tmp_path / "missing", "./missing", "~/missing/model", ""):
        assert "no model in" in refusal(name)


def test_path_may_be_relative_or_begin_at_home(whole, monkeypatch):
    monkeypatch.chdir(whole.parent)
    monkeypatch.setenv("HOME", str(whole.parent))
    expected = tiny_models.fingerprint(load_encoder(str(whole)).model)
    for name in (whole.name, f"./{whole.name}", f"~/{whole.name}"):
        assert tiny_models.fingerprint(load_encoder(name).model) == expected


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_broken_file(folder, file, content):
    (folder / file).write_bytes(content)
    assert "could not be loaded" in refusal(folder)


def test_torn_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "could not be loaded" in refusal(folder)


def test_broken_pytorch_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"these are no weights")
    assert "could not be loaded" in refusal(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "could not be loaded" in refusal(folder)


def test_no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "has no tokenizer files" in refusal(folder)


def test_settings_file_that_makes_no_sense(folder):
    edit(folder / "config.json", hidden_size="wide")
    assert "hidden_size" in refusal(folder)


@pytest.mark.parametrize("changes", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"type_vocab_size": 3}])
def test_weights_of_another_model(folder, changes):
    # The library would draw what does not fit at random.
    edit(folder / "config.json", **changes)
    assert "do not fit its config.json" in refusal(folder)


def test_tokenizer_of_another_model(folder):
    tiny.byte_bpe().save_pretrained(folder)
    edit(folder / "tokenizer_config.json", tokenizer_class="RobertaTokenizer")
    assert f"has {len(tiny.byte_bpe())} tokens but the model only {len(tiny.unigram())}" in refusal(folder)


def test_code_in_a_checkpoint_is_not_run(folder):
    marker = folder / "ran"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\n")
    edit(folder / "config.json", model_type="its own", auto_map={"AutoConfig": "code.C"})
    assert "could not be loaded" in refusal(folder)
    assert not marker.exists()


def test_fused_attention_where_there_is_none(whole):
    message = refusal(whole, attention="sdpa")
    assert message == "attention: deberta-v2 has no 'sdpa' implementation; use auto or eager"


def test_fast_attention_where_there_is_none(tmp_path):
    message = refusal(tiny_models.save(tmp_path, "bert"), attention="fast")
    assert message.startswith("attention: fast does not apply to ")
    assert message.endswith(
        "(the architecture is bert; deberta and deberta-v2 (which v3 uses too) are covered); "
        "use auto or eager"
    )


@pytest.mark.parametrize("architecture", ["deberta", "deberta-v2", "deberta-v3"])
def test_fast_attention_is_the_default_where_it_applies(tmp_path, architecture):
    folder = str(tiny_models.save(tmp_path, architecture))
    for asked, fast in (("auto", True), ("fast", True), ("eager", False)):
        modules = load_encoder(folder, asked).model.modules()
        assert any(isinstance(module, FastEncoder) for module in modules) is fast


def test_attention_is_the_one_asked_for(tmp_path):
    folder = str(tiny_models.save(tmp_path, "bert"))
    for asked, chosen in (("auto", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")):
        assert load_encoder(folder, asked).model.config._attn_implementation == chosen


def _gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=16, n_layer=1, n_head=1))


def _t5() -> T5ForConditionalGeneration:
    config = T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5ForConditionalGeneration(config)


def _bart() -> BartForConditionalGeneration:
    sides = ("encoder", "decoder")
    sizes = {f"{side}_{size}": 1 for side in sides for size in ("layers", "attention_heads", "ffn_dim")}
    return BartForConditionalGeneration(BartConfig(vocab_size=99, d_model=16, **sizes))


def _vit() -> ViTModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    return ViTModel(ViTConfig(**sizes))


def _modernbert() -> ModernBertForMaskedLM:
    """An encoder, but its head is called differently."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    specials = dict.fromkeys(
        ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0
    )
    return ModernBertForMaskedLM(ModernBertConfig(vocab_size=99, **sizes, **specials))


@pytest.mark.parametrize("make", [_gpt2, _t5, _bart, _vit, _modernbert])
def test_what_is_no_encoder_for_questions(make: Callable[[], torch.nn.Module], tmp_path):
    tiny.unigram().save_pretrained(tmp_path)
    make().save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "no encoder for extractive question answering" in message or "no linear head" in message
    assert message.endswith("use a DeBERTa, BERT, RoBERTa, ELECTRA, DistilBERT, ALBERT or MPNet")


def test_a_classifier_of_three_classes_gets_a_head_of_two_scores(whole, tmp_path):
    # As a checkpoint fine-tuned on inference is: a head of its own kind, and three labels in its settings.
    encoder = load_encoder(str(whole))
    encoder.model.config.num_labels = 3
    state = {key: value for key, value in encoder.model.state_dict().items() if "qa_outputs" not in key}
    encoder.model.save_pretrained(tmp_path, state_dict={**state, "classifier.bias": torch.zeros(3)})
    encoder.tokenizer.save_pretrained(tmp_path)
    assert len(json.loads((tmp_path / "config.json").read_text())["id2label"]) == 3
    loaded = load_encoder(str(tmp_path))
    assert loaded.new_weights == ("qa_outputs.bias", "qa_outputs.weight")
    assert loaded.model.qa_outputs.out_features == 2
    ids = torch.ones(1, 4, dtype=torch.long)
    assert loaded.model(ids).end_logits.shape == (1, 4)


def test_an_untrained_head_is_named_where_one_is_needed(whole, tmp_path):
    encoder = load_encoder(str(whole), check_head=True)
    encoder.model.deberta.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    assert load_encoder(str(tmp_path)).new_weights
    message = refusal(tmp_path, check_head=True)
    assert "(qa_outputs.bias, qa_outputs.weight missing); fine-tune it with run_experiment.py" in message


def test_head_scores_in_float32_what_autocast_would_round():
    torch.manual_seed(0)
    linear = torch.nn.Linear(32, 2)
    head = Float32Head.like(linear)
    states = torch.randn(1, 5, 32)
    assert torch.equal(head(states), linear(states))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(states).dtype == torch.bfloat16
        assert torch.equal(head(states), linear.float()(states.float()).float()) is False
        assert torch.equal(head(states.bfloat16()), head(states.bfloat16().float()))
        assert head(states).dtype == torch.float32
    assert Float32Head.like(torch.nn.Linear(32, 2, bias=False)).bias is None


def test_head_in_a_float64_model():
    # Comparisons in float64 are how floating-point noise is told from a mistake.
    head = Float32Head.like(torch.nn.Linear(8, 2)).double()
    assert head(torch.ones(1, 3, 8, dtype=torch.float64)).dtype == torch.float64


def test_half_precision_weights_are_noticed(whole):
    model = load_encoder(str(whole)).model
    check_float32(model)
    with pytest.raises(AssertionError, match=r"torch\.float16"):
        check_float32(model.half())


def test_fingerprint_of_a_tokenizer_forgets_its_last_use():
    one, used, other = tiny.unigram(), tiny.unigram(), tiny.unigram()
    used(["cat"] * 2, ["river mat"] * 2, truncation="only_second", max_length=8, padding="max_length")
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(used)
    other.add_tokens("Denver")
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(other)


@pytest.fixture
def loud_library() -> Iterator[None]:
    transformers.logging.set_verbosity_info()
    yield
    transformers.logging.set_verbosity_warning()


@pytest.mark.usefixtures("loud_library")
def test_the_library_is_quiet_while_a_model_loads_and_no_longer(whole, capsys):
    load_encoder(str(whole))
    assert capsys.readouterr() == ("", "")
    assert transformers.logging.get_verbosity() == transformers.logging.INFO
    assert transformers.logging.is_progress_bar_enabled()


@pytest.mark.usefixtures("loud_library")
def test_the_library_speaks_again_after_an_error(tmp_path):
    (tmp_path / "config.json").write_text("{")
    refusal(tmp_path)
    assert transformers.logging.get_verbosity() == transformers.logging.INFO
    assert transformers.logging.is_progress_bar_enabled()


def test_saving_is_quiet_and_writes_no_pickle(whole, tmp_path, capsys):
    encoder = load_encoder(str(whole))
    capsys.readouterr()
    save_encoder(Encoder(encoder.model, encoder.tokenizer, ()), tmp_path / "new" / "folder")
    assert capsys.readouterr() == ("", "")
    names = {file.name for file in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_what_is_saved_does_not_depend_on_what_was_read_before(tmp_path):
    encoder = load_encoder(str(tiny_models.save(tmp_path / "model", "deberta-v2")))
    save_encoder(encoder, tmp_path / "before")
    encoder.tokenizer(["a b c d"], ["e f"], truncation=True, max_length=5, padding="max_length")
    save_encoder(encoder, tmp_path / "after")
    for file in (tmp_path / "before").iterdir():
        assert (tmp_path / "after" / file.name).read_bytes() == file.read_bytes(), file.name
