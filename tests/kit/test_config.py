from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.config import build, describe, load, setting, to_dict, to_yaml
from kit.errors import UserError


@dataclass(frozen=True)
class Costs:
    commission_bp: float = setting(0.5, low=0, help="per trade, in basis points")
    share: float = setting(0.4, above=0, high=1)


@dataclass(frozen=True)
class FromFile:
    path: Path
    kind: Literal["file"] = "file"


@dataclass(frozen=True)
class Synthetic:
    seed: int = 7
    kind: Literal["synth"] = "synth"


@dataclass(frozen=True)
class Env:
    costs: Costs = setting(Costs())
    mode: Literal["softmax", "tilt"] = "softmax"


@dataclass(frozen=True)
class Whole:
    seed: int = setting(7, low=0)
    env: Env = setting(Env())
    source: FromFile | Synthetic = setting(Synthetic())
    horizons: list[int] = setting([1, 5], low=1)
    name: str | None = None
    quiet: bool = False
    extra: dict[str, float] = setting({})
    start: int = 0
    stop: int = 10

    def __post_init__(self) -> None:
        if self.stop <= self.start:
            raise ValueError(f"stop must be after start, {self.start}")


def refused(*overrides, file=None) -> str:
    with pytest.raises(UserError) as error:
        load(Whole, file, overrides)
    line = str(error.value)
    assert "\n" not in line
    return line


def test_defaults_need_no_file():
    assert load(Whole) == Whole()


def test_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("seed: 3\nenv:\n  costs: {commission_bp: 2}\n  mode: tilt\n")
    whole = load(Whole, file, ["env.costs.commission_bp=1"])
    assert whole == Whole(seed=3, env=Env(Costs(1.0), "tilt"))
    assert type(whole.env.costs.commission_bp) is float


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("sede=3", ["command line", "sede = 3", "unknown key", "did you mean seed?"]),
        ("env.costs.comission_bp=1", ["env.costs.comission_bp", "did you mean commission_bp?"]),
        ("env.costs.zzz=1", ["known keys: commission_bp, share"]),
        ("seed=abc", ["seed = 'abc'", "expected a whole number"]),
        ("seed=1.5", ["seed = 1.5", "expected a whole number"]),
        ("seed=true", ["seed = True", "expected a whole number"]),
        ("seed=-1", ["seed = -1", "must be at least 0"]),
        ("seed=.nan", ["seed = nan"]),
        ("seed=.inf", ["seed = inf"]),
        ("env.costs.commission_bp=-.5", ["env.costs.commission_bp = -0.5", "must be at least 0"]),
        ("env.costs.share=0", ["must be above 0 and at most 1"]),
        ("env.mode=softmx", ["expected one of softmax, tilt", "did you mean softmax?"]),
        ("env.mode=5", ["env.mode = 5", "expected one of"]),
        ("env=5", ["env = 5", "expected keys"]),
        ("env.costs.share.deep=1", ["env.costs.share = {'deep': 1}", "expected a number"]),
        ("horizons=3", ["expected a list of a whole number"]),
        ("horizons=[1, x]", ["horizons.1 = 'x'"]),
        ("horizons=[1, 0]", ["horizons.1 = 0", "at least 1"]),
        ("quiet=1", ["expected true or false"]),
        ("name=3", ["name = 3", "expected text"]),
        ("source.kind=fiel", ["source.kind = 'fiel'", "did you mean file?"]),
        ("source={kind: file}", ["source.path: is missing", "a path"]),
        ("source={kind: file, path: x, seed: 3}", ["source.seed", "unknown key"]),
        ("extra={a: b}", ["extra.a = 'b'", "a number"]),
        ("stop=0", ["stop must be after start"]),
        ("seed", ["'seed' is not an override", "key=value"]),
        ("seed=[1", ["seed = '[1'", "not valid YAML"]),
    ],
)
def test_what_is_wrong_is_one_line_with_key_value_and_what_would_be_right(override, fragments):
    line = refused(override)
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("seed: 1\nseed: 2\n", ["line 2", "'seed' is given twice"]),
        ("seed: [1\n", ["not valid YAML"]),
        ("- 1\n", ["expected keys with values"]),
        ("seed: x\n", ["a.yaml: seed = 'x'"]),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, fragments):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    line = refused(file=file)
    assert line.startswith(str(file))
    for fragment in fragments:
        assert fragment in line


def test_a_file_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "expected a YAML file" in refused(file=file)


def test_an_empty_file_means_the_defaults(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("# nothing\n")
    assert load(Whole, file) == Whole()


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert load(Whole, overrides=["env.costs.commission_bp=1e-3"]).env.costs.commission_bp == 0.001
    assert load(Whole, overrides=["seed=1e6"]).seed == 1_000_000


def test_a_union_is_told_apart_by_kind():
    assert load(Whole, overrides=["source={kind: file, path: x.csv}"]).source == FromFile(Path("x.csv"))


@given(
    st.builds(
        Whole,
        seed=st.integers(0, 9),
        env=st.builds(Env, costs=st.builds(Costs, commission_bp=st.floats(0, 9), share=st.floats(0.1, 1))),
        source=st.one_of(st.builds(Synthetic, seed=st.integers()), st.just(FromFile(Path("x")))),
        horizons=st.lists(st.integers(1, 9)),
        name=st.none() | st.text("abc"),
        extra=st.dictionaries(st.text("abc"), st.floats(0, 1)),
    )
)
def test_to_dict_and_back_is_the_same(whole):
    assert build(Whole, to_dict(whole)) == whole


def test_yaml_and_back_is_the_same(tmp_path):
    file = tmp_path / "a.yaml"
    whole = Whole(seed=3, name="x", horizons=[2])
    file.write_text(to_yaml(whole))
    assert load(Whole, file) == whole


def test_describe_names_every_key_with_its_default():
    lines = list(describe(Env))
    assert lines[0] == "costs.commission_bp: a number = 0.5  per trade, in basis points"
    assert lines[2] == "mode: softmax | tilt = 'softmax'"


def test_a_type_of_ones_own_explains_itself():
    class Spec:
        @classmethod
        def from_config(cls, value: Any) -> Spec:
            raise ValueError("expected a feature")

    @dataclass(frozen=True)
    class Holder:
        spec: Spec

    Holder.__annotations__["spec"] = Spec
    with pytest.raises(UserError, match=r"configuration: spec = 3: expected a feature"):
        build(Holder, {"spec": 3})


@dataclass(frozen=True)
class Dear:
    env: Env = setting(Env(Costs(commission_bp=9.0, share=0.2), mode="tilt"))
    source: FromFile | Synthetic = setting(Synthetic(seed=99))


def test_keys_that_are_not_named_keep_what_the_whole_says_of_its_parts() -> None:
    assert load(Dear, overrides=["env.costs.share=0.3"]) == Dear(Env(Costs(9.0, 0.3), "tilt"))
    assert load(Dear, overrides=["env.mode=softmax"]).env == Env(Costs(9.0, 0.2), "softmax")


def test_another_kind_of_part_has_its_own_defaults_and_the_same_kind_need_not_be_named() -> None:
    assert load(Dear, overrides=["source.kind=file", "source.path=x"]).source == FromFile(Path("x"))
    assert load(Dear, overrides=["source.kind=synth"]).source == Synthetic(99)
    assert load(Dear, overrides=["source.seed=3"]).source == Synthetic(3)


def test_a_number_too_large_is_refused() -> None:
    assert "seed = " in refused("seed=1" + "0" * 400)


def test_help_shows_the_defaults_of_the_whole() -> None:
    lines = list(describe(Dear))
    assert any(line.startswith("env.costs.share: a number = 0.2") for line in lines)
    assert any(line == "  source.seed: a whole number = 99" for line in lines)
