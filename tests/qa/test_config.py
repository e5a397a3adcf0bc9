"""Settings: each key's type and range, YAML's traps, one clear line for whatever is wrong, the way back."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qa.config import (
    ORIGINAL_KEYS,
    Settings,
    make_settings,
    parse_overrides,
    read_settings,
    settings_table,
    settings_text,
)
from qa.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

# Of every setting: values at the edges of what is allowed (with what they become), and values outside.
TEXT = ((" x ", "3e-5", "no"), ("", "  ", 1, 0.5, True, ["x"], {"a": 1}, "a\nb", "a\0b", "\ud800"))
OPTIONAL_TEXT = ((None, *TEXT[0]), TEXT[1])
FLAG = ((True, False), (0, 1, "true", "yes", None, [True]))
NO_NUMBER = ("", "x", "nan", "inf", float("nan"), float("inf"), -float("inf"), True, False, [1], {"a": 1})


def whole(low, high):
    return (low, high, str(low), float(high)), (low - 1, high + 1, low + 0.5, "1.5", None, *NO_NUMBER)


def number(low, high, *outside):
    return (low, high, str(low), str(high)), (*outside, None, *NO_NUMBER)


def at_least_one(*, null):
    allowed, refused = whole(1, 10**9)
    return (allowed + (None,) * null), (tuple(value for value in refused if value not in (10**9 + 1, None)))


def choices(*words):
    return words, (words[0].upper(), words[0] + " ", "", "nan", 1, True, None, [words[0]])


ALLOWED_AND_REFUSED = {
    "model_name": (TEXT[0], (None, *TEXT[1])),
    "epochs": number(1e-9, 1000, 0, -1, 1000.5),
    "learning_rate": number(1e-9, 1, 0, "0", -3e-5, 1.1),
    "batch_size": whole(1, 4096),
    "max_length": whole(16, 8192),
    "stride": whole(0, 8191),
    "padding": choices("longest", "max_length"),
    "patience": whole(1, 1000),
    "best_model_path": OPTIONAL_TEXT,
    "dataset": (TEXT[0], (None, *TEXT[1])),
    "validation_dataset": OPTIONAL_TEXT,
    "held_out_articles": ((0, 5, "5", ["Oxygen", "1984"], []), (-1, 0.5, None, "Oxygen", [1984], [""], True)),
    "bad_answers": choices("skip", "refuse"),
    "gold_answers": choices("first", "all"),
    "limit_train": at_least_one(null=True),
    "limit_validation": at_least_one(null=True),
    "seed": whole(0, 2**32 - 1),
    "device": choices("auto", "cpu", "cuda", "mps"),
    "precision": choices("auto", "fp32", "bf16", "fp16"),
    "attention": choices("auto", "fast", "eager", "sdpa"),
    "gradient_accumulation_steps": whole(1, 4096),
    "gradient_checkpointing": FLAG,
    "warmup": number(0, 0.9, -0.1, 0.91, "1e0"),
    "weight_decay": number(0, 1, -0.1, 1.01),
    "layer_decay": number(1e-9, 1, 0, 1.01),
    "max_gradient_norm": number(1e-9, 1e9, 0, -1),
    "group_by_length": FLAG,
    "max_question_length": whole(4, 4096),
    "max_answer_length": whole(1, 1024),
    "n_best": whole(1, 200),
    "no_answer_threshold": ((None, "tune", 0, 1, "0.5"), (-0.1, 1.1, "Tune", *NO_NUMBER)),
    "evaluations_per_epoch": whole(1, 100),
    "evaluation_batch_size": whole(1, 4096),
    "atlas_snapshots": whole(0, 1000),
    "workers": whole(0, 64),
    "report_to": (("none", "all", ["tensorboard", "wandb"], []), (None, 1, True, [1], "", [""])),
    "group": OPTIONAL_TEXT,
}


def message_of(values, **options):
    with pytest.raises(UserError) as caught:
        make_settings(values, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def expected(key, value):
    """The value as it must come out: a number in one type, whatever it was written as."""
    types = next(item for item in fields(Settings) if item.name == key).metadata["rule"].types
    if value in (None, "tune") or isinstance(value, list) or not {int, float} & set(types):
        return value
    return (float if float in types else int)(value)


def test_every_setting_is_in_the_table_of_this_test():
    assert list(ALLOWED_AND_REFUSED) == [item.name for item in fields(Settings)]


@pytest.mark.parametrize("key", ALLOWED_AND_REFUSED)
def test_allowed_values(key):
    for value in ALLOWED_AND_REFUSED[key][0]:
        settings = make_settings({key: value})
        found, wanted = getattr(settings, key), expected(key, value)
        assert (type(found), found) == (type(wanted), wanted)
        assert make_settings(yaml.safe_load(settings_text(settings))) == settings


@pytest.mark.parametrize("key", ALLOWED_AND_REFUSED)
def test_refused_values(key):
    for value in ALLOWED_AND_REFUSED[key][1]:
        message = message_of({key: value})
        assert message.startswith(f"{key}: "), value
        assert " is not allowed; use " in message
        assert "default" in message


def test_messages_name_value_and_rule():
    assert message_of({"batch_size": 0}) == (
        "batch_size: 0 is not allowed; use a whole number from 1 to 4096 (default 16)"
    )
    assert message_of({"learning_rate": True}) == (
        "learning_rate: true is not allowed; use a number above 0, at most 1 (default 3e-05)"
    )
    assert message_of({"precision": "int8"}, origin="x.yaml: ") == (
        "x.yaml: precision: 'int8' is not allowed; use auto, fp32, bf16 or fp16 (default 'auto')"
    )
    assert message_of({"no_answer_threshold": 2}) == (
        "no_answer_threshold: 2 is not allowed; use a number from 0 to 1 or tune or null (default 'tune')"
    )
    assert "from 0 to 4294967295 (" in message_of({"seed": -1})


def test_a_huge_value_is_cut_in_the_message():
    nested = ["x"]
    for _ in range(60):
        nested = [nested, nested]  # written out in full it would fill the memory
    for value in (nested, "x" * 10**6, 10**400, dict.fromkeys(range(10**4))):
        assert len(message_of({"batch_size": value})) < 10_000
    assert "models/" + "x" * 80 in message_of({"epochs": "models/" + "x" * 80})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("epoch", "epochs"),
        ("learning-rate", "learning_rate"),
        ("BATCH_SIZE", "batch_size"),
        ("max_len", "max_length"),
        ("best_model", "best_model_path"),
    ],
)
def test_unknown_key_suggests_the_nearest(key, near):
    assert message_of({key: 1}) == f"unknown setting {key!r}; did you mean {near!r}?"


@pytest.mark.parametrize("key", ["zzz", 3, None, 2.5, ("a", "b"), ""])
def test_unknown_key_with_nothing_near_lists_all(key):
    message = message_of({key: 1})
    assert message.startswith("unknown setting ")
    assert all(f"{item.name}" in message for item in fields(Settings))


def test_original_keys_come_first_with_the_original_values():
    assert dict(list(Settings().as_dict().items())[:9]) == {
        "model_name": "microsoft/deberta-v3-base",
        "epochs": 3,
        "learning_rate": 3e-5,
        "batch_size": 16,
        "max_length": 512,
        "stride": 128,
        "padding": "longest",
        "patience": 2,
        "best_model_path": None,
    }
    assert list(Settings().as_dict())[:9] == list(ORIGINAL_KEYS)


def test_the_default_experiment_is_the_defaults():
    file = ROOT / "config.yaml"
    assert read_settings(file) == Settings()
    assert tuple(yaml.safe_load(file.read_text(encoding="utf-8"))) == ORIGINAL_KEYS


def test_defaults_are_what_their_own_rules_make_of_them():
    remade = make_settings(Settings().as_dict())
    assert [(type(value), value) for value in remade.as_dict().values()] == [
        (type(value), value) for value in Settings().as_dict().values()
    ]


@pytest.fixture
def config(tmp_path):
    """Writes a settings file and returns its path."""

    def write(content):
        path = tmp_path / "config.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("learning_rate: 3e-5", "learning_rate", 3e-5),  # text to PyYAML
        ("learning_rate: .5", "learning_rate", 0.5),
        ("learning_rate: 5E-1", "learning_rate", 0.5),
        ("learning_rate: '0.5'", "learning_rate", 0.5),
        ("limit_train: 1e3", "limit_train", 1000),
        ("limit_train: 1_000", "limit_train", 1000),
        ("limit_train:", "limit_train", None),
        ("limit_train: ~", "limit_train", None),
        ("epochs: 2", "epochs", 2.0),
        ("group_by_length: off", "group_by_length", False),
        ("group_by_length: yes", "group_by_length", True),
        ("group: 'no'", "group", "no"),
        ("group: 1e3", "group", "1e3"),
        ("held_out_articles: [Oxygen, 'New_York']", "held_out_articles", ["Oxygen", "New_York"]),
        ("\ufeffepochs: 2", "epochs", 2.0),
        ("", "epochs", 3.0),
        ("# nothing but a comment", "epochs", 3.0),
        ("{}", "epochs", 3.0),
    ],
)
def test_yaml_is_read_as_meant(config, text, key, value):
    found = getattr(read_settings(config(text)), key)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("epochs: 1\nseed: 1\nepochs: 2", "not YAML (line 3, column 1: 'epochs' stands there a second time)"),
        ("group: {a: 1, a: 2}", "not YAML (line 1, column 15: 'a' stands there a second time)"),
        ("epochs: [1", "not YAML (line 1, column 11: "),
        ("group: !!bool maybe", "not YAML (a tag that does not fit its value)"),
        ("seed: !!int ''", "not YAML (a tag that does not fit its value)"),
        ("group: !!timestamp x", "not YAML (a tag that does not fit its value)"),
        ("group: !!set [1]", "not YAML ("),
        ("epochs: 1: 2", "not YAML (line 1, column 10: mapping values are not allowed here)"),
        ("\tepochs: 1", "not YAML (line 1, column 1: "),
        ("epochs: 1\n---\nepochs: 2", "not YAML (line 2, column 1: "),
        ("epochs: *missing", "not YAML (line 1, column 9: "),
        ("epochs: !!python/object/apply:os.getpid []", "not YAML (line 1, column 9: "),
        ("[epochs]: 1", "not YAML (line 1, column 1: found unhashable key)"),
        ("epochs: \0", "not YAML (unacceptable character #x0000"),
        ("seed: 2020-13-45", "not YAML (month must be in 1..12)"),
        ("seed: " + "9" * 5000, "not YAML ("),
        ("seed: " + "[" * 1000, "not YAML (nested too deeply)"),
        ("seed: &a [*a]", "seed: [[[[[[[...]]]]]]] is not allowed"),
        ("seed: " + "9" * 400, "seed: 9999"),
        ("seed: 2020-01-01", "seed: datetime.date(2020, 1, 1) is not allowed"),
        ("batch_size: no", "batch_size: false is not allowed"),
        ("workers: yes", "workers: true is not allowed"),
        ("padding: off", "padding: false is not allowed"),
        ("warmup: .nan", "warmup: nan is not allowed"),
        ("warmup: -.inf", "warmup: -inf is not allowed"),
        ("warmup: 1e400", "warmup: '1e400' is not allowed"),
        ("batch_size:\n  training: 16", "batch_size: {'training': 16} is not allowed"),
        ("training:\n  batch_size: 16", "unknown setting 'training'"),
        ("batch_size: null", "batch_size: null is not allowed"),
        ("model_name: 5", "model_name: 5 is not allowed; use text"),
        ("on: 1", "unknown setting true"),
        ("- epochs: 1", "holds list, not settings"),
        ("false", "holds bool, not settings"),
        ("epochs 3", "holds str, not settings"),
        (b"epochs: \xff\xfe", "not text in UTF-8"),
        (b"PK\x03\x04\x00\xb5\x00binary", "not text in UTF-8"),
    ],
)
def test_bad_yaml_is_one_clear_line(config, text, problem):
    path = config(text)
    with pytest.raises(UserError) as caught:
        read_settings(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {problem}")
    assert "\n" not in message
    assert len(message) < 2000


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(
        UserError, match=r"no.yaml: cannot be read \(No such file or directory\); give a YAML"
    ):
        read_settings(tmp_path / "no.yaml")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); give a YAML file"):
        read_settings(tmp_path)


def test_overrides_win_over_the_file(config):
    path = config("epochs: 5\nseed: 3")
    settings = read_settings(path, ["epochs=1e-1", "epochs = 2", "limit_train=", "report_to=[a, b]"])
    assert (settings.epochs, settings.seed, settings.limit_train) == (2.0, 3, None)
    assert settings.report_to == ["a", "b"]
    assert read_settings(path, ["dataset=a=b.json"]).dataset == "a=b.json"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("epochs", "--set epochs: no '=' in it; write --set key=value"),
        ("epochs=[1", "--set epochs=[1: the value is not YAML (line 1, column 3: "),
        ("epochs=0", "--set epochs: 0 is not allowed"),
        ("=3", "--set unknown setting ''"),
        ("epoch=3", "--set unknown setting 'epoch'; did you mean 'epochs'?"),
        ("group=a: b", "--set group: {'a': 'b'} is not allowed"),
        ("group=a: b: c", "--set group=a: b: c: the value is not YAML"),
    ],
)
def test_a_bad_override_is_not_blamed_on_the_file(config, override, problem):
    with pytest.raises(UserError) as caught:
        read_settings(config("seed: 1"), [override])
    assert str(caught.value).startswith(problem)


def test_overrides_alone_are_a_mapping():
    assert parse_overrides(["a=1", "b=x y"]) == {"a": 1, "b": "x y"}


def test_changed_checks_again():
    assert Settings().changed(seed="7").seed == 7
    with pytest.raises(UserError, match="seed: -1 is not allowed"):
        Settings().changed(seed=-1)


def test_settings_do_not_share_a_list_with_the_caller():
    trackers = ["a"]
    settings = make_settings({"report_to": trackers})
    trackers.append("b")
    assert settings.report_to == ["a"]


words = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    str.strip
) | st.sampled_from(
    [
        "yes",
        "null",
        "~",
        "1e3",
        "3e-5",
        "0x10",
        "010",
        "1:30",
        "2020-01-01",
        "- a",
        "a: b",
        "#",
        "'",
        "=",
        "<<",
    ]
)


@given(
    model_name=words,
    group=st.none() | words,
    held_out_articles=st.integers(0) | st.lists(words),
    learning_rate=st.floats(0, 1, exclude_min=True),
    epochs=st.floats(0, 1000, exclude_min=True),
    no_answer_threshold=st.sampled_from(["tune", None]) | st.floats(0, 1),
)
def test_round_trip(**values):
    settings = make_settings(values)
    content = yaml.safe_load(settings_text(settings))
    assert make_settings(content) == settings
    assert list(content) == [item.name for item in fields(Settings)]


def test_text_is_written_one_line_a_setting():
    lines = settings_text(Settings()).splitlines()
    assert len(lines) == len(fields(Settings))
    assert lines[:3] == ["model_name: microsoft/deberta-v3-base", "epochs: 3.0", "learning_rate: 3.0e-05"]


def test_the_table_for_the_readme_has_every_setting():
    rows = settings_table()
    assert [(name, default) for name, default, _, _ in rows] == list(Settings().as_dict().items())
    assert all(allowed and meaning and "\n" not in allowed + meaning for _, _, allowed, meaning in rows)
