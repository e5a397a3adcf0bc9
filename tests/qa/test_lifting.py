"""A lifted BERT computes what the BERT computes, and can learn more."""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, DebertaV2ForQuestionAnswering
from transformers.models.deberta_v2 import modeling_deberta_v2

import tiny_models
from qa import lifting
from qa.errors import UserError
from qa.lifting import lift_bert
from qa.model import load_encoder

SHAPES = [
    {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64},
    {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 16, "intermediate_size": 16},
    {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 24, "hidden_act": "relu"},
]
VOCABULARY, POSITIONS, PADDING = 60, 80, 0
LENGTHS = torch.tensor([50, 1, 31])


def bert_of(attention: str = "eager", *, dtype: torch.dtype = torch.float32, **shape: int | str) -> BertModel:
    """Weights far larger than usual, so that attention is sharp and a wrong scale shows."""
    config = BertConfig(
        **{"intermediate_size": 40, **shape},
        vocab_size=VOCABULARY,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
        attn_implementation=attention,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        bert = BertModel(config).to(dtype=dtype).eval()
        for parameter in bert.parameters():
            if parameter.dim() == 1:  # biases start at zero and normalisations at one, which would hide them
                parameter.data += 0.3 * torch.randn_like(parameter)
    return bert


def batch() -> dict[str, torch.Tensor]:
    """Three rows of LENGTHS tokens and padding, the second half of each row of the other type."""
    draw = torch.Generator().manual_seed(2)
    mask = torch.arange(50) < LENGTHS[:, None]
    ids = torch.randint(1, VOCABULARY, (3, 50), generator=draw).where(mask, PADDING)
    types = (torch.arange(50) >= LENGTHS[:, None] // 2) & mask
    return {"input_ids": ids, "token_type_ids": types.long(), "attention_mask": mask.long()}


def largest_difference(bert: BertModel, lifted: DebertaV2ForQuestionAnswering) -> float:
    """Of the last hidden states, at tokens that are no padding."""
    inputs = batch()
    with torch.inference_mode():
        theirs, ours = (part(**inputs).last_hidden_state for part in (bert, lifted.deberta))
    difference = (theirs - ours)[inputs["attention_mask"].bool()]
    return difference.abs().max().item()


@pytest.fixture
def exact_scale(monkeypatch):
    """The library rounds sqrt(3 d) to float32 even in a float64 model: 8e-8 in the outputs, and not ours."""
    monkeypatch.setattr(
        modeling_deberta_v2,
        "scaled_size_sqrt",
        lambda query, factor: (query.size(-1) * query.new_tensor(factor)).sqrt(),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_computes_what_the_bert_computes(shape):
    bert = bert_of(**shape)
    assert largest_difference(bert, lift_bert(bert)) < 1e-5


@pytest.mark.usefixtures("exact_scale")
@pytest.mark.parametrize("shape", SHAPES)
def test_what_differs_in_float32_is_rounding(shape):
    bert = bert_of(dtype=torch.float64, **shape)
    assert largest_difference(bert, lift_bert(bert)) < 1e-10


@pytest.mark.usefixtures("exact_scale")
@pytest.mark.parametrize("buckets", [4, 16, 256])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_whatever_the_buckets_and_however_the_bert_attends(buckets, attention):
    bert = bert_of(attention, dtype=torch.float64, **SHAPES[0])
    lifted = lift_bert(bert, position_buckets=buckets)
    assert lifted.config.position_buckets == buckets
    assert largest_difference(bert, lifted) < 1e-10


def test_each_part_of_the_recipe_is_needed():
    # Shows that the comparison above would see a mistake in any of them.
    bert = bert_of(**SHAPES[0])
    for part in ("query_proj.weight", "query_proj.bias", "token_type_embeddings", "position_embeddings"):
        lifted = lift_bert(bert)
        for name, parameter in lifted.named_parameters():
            if part in name:
                parameter.data /= 3**0.5
        assert largest_difference(bert, lifted) > 1e-3, part
    lifted = lift_bert(bert)
    torch.nn.init.normal_(lifted.deberta.encoder.layer[0].attention.self.pos_key_proj.weight)
    assert largest_difference(bert, lifted) > 1e-3


def test_position_terms_learn():
    lifted = lift_bert(bert_of(**SHAPES[0])).train()
    positions = torch.tensor([3, 0, 5])
    optimizer = torch.optim.SGD(lifted.parameters(), lr=0.1)
    first_step = {}
    for gradients in (first_step, {}):
        optimizer.zero_grad()
        lifted(**batch(), start_positions=positions, end_positions=positions).loss.backward()
        gradients |= {name: parameter.grad.abs().max() for name, parameter in lifted.named_parameters()}
        optimizer.step()
    projections = [f"pos_{side}_proj.weight" for side in ("key", "query")]
    for layer, projection in itertools.product(range(2), projections):
        assert first_step[f"deberta.encoder.layer.{layer}.attention.self.{projection}"] > 0
    # The embeddings can move only once the projections have left zero.
    assert first_step["deberta.encoder.rel_embeddings.weight"] == 0
    assert gradients["deberta.encoder.rel_embeddings.weight"] > 0


def test_the_seed_decides_what_is_new_and_nothing_else():
    bert = bert_of(**SHAPES[0])
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    one, again, other = (lift_bert(bert, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.rand(()) == expected, "the caller's random state moved"
    assert all(torch.equal(one[key], again[key]) for key in one)
    drawn = {key for key in one if not torch.equal(one[key], other[key])}
    assert drawn == {"qa_outputs.weight", "deberta.encoder.rel_embeddings.weight"}


def test_the_bert_stays_as_it_is():
    bert = bert_of(**SHAPES[0])
    before = {key: value.clone() for key, value in bert.state_dict().items()}
    lifted = lift_bert(bert)
    for parameter in lifted.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in bert.state_dict().items())


def test_a_decoder_is_refused():
    bert = BertModel(BertConfig(**SHAPES[1], vocab_size=VOCABULARY, is_decoder=True))
    with pytest.raises(UserError, match=r"^lifting: .*; choose a plain BERT$"):
        lift_bert(bert)


def test_relative_positions_are_refused():
    bert = bert_of(**SHAPES[0])
    bert.config.position_embedding_type = "relative_key"
    with pytest.raises(UserError, match="absolute positions"):
        lift_bert(bert)


def lifted_from(folder, target):
    code = lifting.main([str(folder), str(target)])
    return code, load_encoder(str(target)).model.deberta.state_dict() if code == 0 else None


def test_a_folder_is_lifted_and_one_that_is_not_whole_is_refused(tmp_path, capsys):
    source = tiny_models.save(tmp_path / "bert", "bert")
    code, state = lifted_from(source, tmp_path / "lifted")
    assert code == 0
    weights = load_file(source / "model.safetensors")
    assert torch.equal(
        state["embeddings.word_embeddings.weight"], weights["bert.embeddings.word_embeddings.weight"]
    )
    missing = {name: value for name, value in weights.items() if "layer.1.output.dense" not in name}
    save_file(missing, source / "model.safetensors", {"format": "pt"})
    assert lifted_from(source, tmp_path / "other") == (2, None)
    assert "2 missing or of another shape, encoder.layer.1.output.dense.bias first" in capsys.readouterr().err
    (source / "model.safetensors").unlink()
    assert lifted_from(source, tmp_path / "other") == (2, None)
    assert "its weights cannot be read" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"bert", "lifted"}


def test_a_target_that_cannot_be_written_is_one_line(tmp_path, capsys):
    source = tiny_models.save(tmp_path / "bert", "bert")
    (tmp_path / "file").touch()
    assert lifting.main([str(source), str(tmp_path / "file" / "target")]) == 2
    assert "cannot be written" in capsys.readouterr().err
