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
    merged = read_yaml(write(tmp_path, "name: a\ninner: {size: 2}\n")).merged(from_overrides({"inner.size": "7"}))
    assert validate(Outer, merged) == Outer(name="a", inner=Inner(size=7))


def test_an_unknown_override_names_the_option_that_set_it(tmp_path: Path) -> None:
    merged = read_yaml(write(tmp_path, "name: a\n")).merged(from_overrides({"inner.latency": "0.4"}))
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
    merged = read_yaml(write(tmp_path, "name: a\n")).merged(from_overrides({"iner.size": "4"}))
    with pytest.raises(ConfigError, match=r"--set iner\.size: unknown key 'iner' \(did you mean 'inner'\?\)"):
        validate(Outer, merged)
