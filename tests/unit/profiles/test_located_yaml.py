from pathlib import Path

import pytest

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.located_yaml import Record, from_overrides, read_yaml, validate


class Inner(Record):
    size: int = 1


class Outer(Record):
    name: str
    inner: Inner = Inner()


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    return file


def test_validate_names_line_and_choices_when_a_nested_key_is_unknown(tmp_path: Path) -> None:
    source = read_yaml(write(tmp_path, "name: a\ninner:\n  sise: 3\n"))
    with pytest.raises(ConfigError, match=r"file.yaml:3: unknown key 'inner.sise' \(did you mean 'size'\?\)") as error:
        validate(Outer, source)
    assert "given:   inner.sise = 3" in str(error.value)
    assert "allowed: size" in str(error.value)


def test_read_yaml_refuses_a_duplicate_key_and_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)file.yaml:3: key 'name' is set twice.*file.yaml:1, again at line 3"):
        read_yaml(write(tmp_path, "name: a\ninner: {}\nname: b\n"))


def test_read_yaml_refuses_what_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no mapping"):
        read_yaml(write(tmp_path, "- a\n- b\n"))


def test_read_yaml_refuses_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(write(tmp_path, "a: [1\n"))


def test_validate_lists_a_missing_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key 'name' is missing"):
        validate(Outer, read_yaml(write(tmp_path, "inner: {size: 2}\n")))


def test_overrides_are_read_as_yaml_and_laid_over_the_file(tmp_path: Path) -> None:
    merged = read_yaml(write(tmp_path, "name: a\ninner: {size: 2}\n")).changed(from_overrides({"inner.size": "7"}))
    assert validate(Outer, merged) == Outer(name="a", inner=Inner(size=7))


def test_an_unknown_override_names_the_option_that_set_it(tmp_path: Path) -> None:
    merged = read_yaml(write(tmp_path, "name: a\n")).changed(from_overrides({"inner.latency": "0.4"}))
    with pytest.raises(ConfigError, match=r"--set inner\.latency: unknown key 'inner\.latency'"):
        validate(Outer, merged)


def test_overrides_refuse_to_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="contradicts another override"):
        from_overrides({"inner": 1, "inner.size": 2})


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    class Rate(Record):
        lr: float

    assert validate(Rate, read_yaml(write(tmp_path, "lr: 1e-3\n"))).lr == 0.001


def test_an_unknown_first_key_names_the_option_that_set_it(tmp_path: Path) -> None:
    merged = read_yaml(write(tmp_path, "name: a\n")).changed(from_overrides({"iner.size": "4"}))
    with pytest.raises(ConfigError, match=r"--set iner\.size: unknown key 'iner' \(did you mean 'inner'\?\)"):
        validate(Outer, merged)


class Whole(Record):
    name: str = "a"
    inner: Inner = Inner()
    options: dict[str, object] = {}
    maybe: Inner | None = None


FILE = "inner: {size: 2}\noptions: {width: 8, deep: {a: 1, b: 2}}\nmaybe: {size: 3}\n"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"options": "{}"}, {"options": {}}),
        ({"options": {}}, {"options": {}}),
        ({"options": "{width: 4}"}, {"options": {"width": 4}}),
        ({"options.width": "4"}, {"options": {"width": 4, "deep": {"a": 1, "b": 2}}}),
        ({"options.deep": "{a: 5}"}, {"options": {"width": 8, "deep": {"a": 5}}}),
        ({"options.deep.a": "5", "options.new": "x"}, {"options": {"width": 8, "deep": {"a": 5, "b": 2}, "new": "x"}}),
        ({"inner": "{}"}, {"inner": Inner(size=1)}),
        ({"inner.size": "7"}, {"inner": Inner(size=7)}),
        ({"maybe": "null"}, {"maybe": None}),
        ({"maybe": "{}"}, {"maybe": Inner(size=1)}),
    ],
)
def test_a_mapping_given_whole_replaces_and_a_dotted_key_changes_one_entry(overrides: dict[str, object], expected: dict[str, object], tmp_path: Path) -> None:
    source = read_yaml(write(tmp_path, FILE))
    before = {"inner": Inner(size=2), "options": {"width": 8, "deep": {"a": 1, "b": 2}}, "maybe": Inner(size=3)}
    assert validate(Whole, source.changed(from_overrides(overrides))) == Whole(**{**before, **expected})
    assert validate(Whole, source) == Whole(**before)


def test_a_fault_in_a_mapping_that_replaces_names_the_option(tmp_path: Path) -> None:
    source = read_yaml(write(tmp_path, FILE)).changed(from_overrides({"inner": "{size: many}"}))
    with pytest.raises(ConfigError, match=r"--set inner: 'inner\.size' is not usable"):
        validate(Whole, source)


@pytest.mark.parametrize("order", [("options", "options.deep.a"), ("options.deep.a", "options")])
def test_a_mapping_and_an_entry_of_it_contradict_each_other_in_any_order(order: tuple[str, str]) -> None:
    values = {"options": "{}", "options.deep.a": "1"}
    with pytest.raises(ConfigError, match=r"(?s)--set options\.deep\.a: contradicts.*drop one of them, or write deep\.a into options=\{\.\.\.\}"):
        from_overrides({key: values[key] for key in order})
