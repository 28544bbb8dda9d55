"""YAML from outside: read within limits, so that no text takes long, much memory, or more than one message to refuse."""

import re
from typing import Any

import yaml

from bonsai.profiles.errors import ConfigError, describe, shorten

MAX_BYTES = 65_536
"""Largest size of one text. The largest shipped recipe has three thousand bytes."""
MAX_DEPTH = 32
"""Deepest nesting of mappings and lists; a recipe has five levels."""
MAX_NODES = 5_000
"""Most keys and values. The contents of an alias count again at each use."""
MAX_BITS = 64
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
COLLECTIONS: dict[type[yaml.Node], str] = {yaml.MappingNode: "tag:yaml.org,2002:map", yaml.SequenceNode: "tag:yaml.org,2002:seq"}
AMBIGUOUS = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Texts that YAML 1.1 reads as a number to base 8 or 60, unlike YAML 1.2."""
KeyPath = tuple[str, ...]


def read_bounded(text: str, name: str, *, with_lines: bool = True) -> tuple[Any, dict[KeyPath, int]]:
    """Read one YAML value made of mappings, lists, texts, numbers, booleans and null; an empty text is null.

    Args:
        text: The YAML.
        name: Name of the file in messages.
        with_lines: Whether messages name the line, which tells nothing of a text that has only one.

    Returns:
        The value, and the line of each key, from 1 on.

    Raises:
        ConfigError: It is no YAML, is beyond a limit, sets a key twice, or has a value of another kind.
    """
    require_size(len(text.encode("utf-8", "surrogatepass")), name)
    try:
        node = _Loader(text, name).get_single_node()
    except yaml.YAMLError as error:
        raise ConfigError(describe(f"{name}: not valid YAML", given=error, allowed="YAML 1.1", fix="mend the line named above")) from error
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF" stands for no character
        fix = "mend the escape in the text"
        raise ConfigError(describe(f"{name}: not valid YAML", given=error, allowed="characters of Unicode", fix=fix)) from error
    builder = _Builder(name, with_lines)
    return None if node is None else builder.build(node, ()), builder.lines


def require_size(num_bytes: int, name: str) -> None:
    """Refuse a text that is longer than any recipe or profile needs to be.

    Raises:
        ConfigError: It has more than `MAX_BYTES`.
    """
    if num_bytes > MAX_BYTES:
        fix = "keep a recipe or profile to settings; put data into files of its own"
        raise ConfigError(describe(f"{name}: too large", given=f"more than {MAX_BYTES} bytes", allowed=f"at most {MAX_BYTES} bytes", fix=fix))


class _Loader(yaml.SafeLoader):
    """Composes nodes no deeper, and no more of them, than the limits; an alias costs nothing here, see `_Builder`."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._called, self._depth, self._nodes = name, 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node, unless that is beyond a limit."""
        self._depth += 1
        self._nodes += 1
        _require_depth(self._depth, self._called)
        _require_count(self._nodes, self._called)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Builder:
    """Makes values of nodes; an alias is followed each time it is met, and counted."""

    def __init__(self, name: str, with_lines: bool) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._name, self._with_lines = name, with_lines
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        _require_depth(len(path) + 1, self._name)
        _require_count(self._nodes, self._name)
        wanted = COLLECTIONS.get(type(node))
        if wanted is not None and node.tag != wanted:
            raise self._unusable(node, f"a collection tagged {node.tag}", "plain mappings and lists", "remove the tag")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, str(index))) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._unusable(key_node, "a key that is a list or a mapping", "keys that are texts", "put a text before the colon")
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in mapping:
                raise ConfigError(
                    describe(
                        f"{self._at(line)}: key {shorten('.'.join((*path, key)))!r} is set twice",
                        given=f"first at {self._at(self.lines[(*path, key)])}, again at line {line}",
                        allowed="each key once",
                        fix="delete one of the two",
                    )
                )
            self.lines[(*path, key)] = line
            mapping[key] = self.build(value_node, (*path, key))
        return mapping

    def _scalar(self, node: yaml.Node) -> Any:
        text = shorten(str(node.value))
        if node.tag not in PLAIN:
            kind = node.tag.rpartition(":")[2]
            fix = f'quote it, if it is meant as a text: "{text}"'
            raise self._unusable(node, f"{text} (YAML reads it as {kind})", "a text, a number, true, false or null", fix)
        if node.tag.endswith((":int", ":float")) and AMBIGUOUS.fullmatch(node.value):
            fix = f'write it as a decimal number, or quote it if it is a text: "{text}"'
            raise self._unusable(node, f"{text} (octal or base 60 in YAML 1.1, not in YAML 1.2)", "a decimal number, or a text in quotes", fix)
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            raise self._unusable(node, text, f"what YAML reads as {kind}, of at most {MAX_BITS} bits if it is a whole number", "correct the value") from error
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise self._unusable(node, text, f"a whole number of at most {MAX_BITS} bits", "write a smaller number")
        return value

    def _unusable(self, node: yaml.Node, given: str, allowed: str, fix: str) -> ConfigError:
        return ConfigError(describe(f"{self._at(node.start_mark.line + 1)}: a value is not usable", given=given, allowed=allowed, fix=fix))

    def _at(self, line: int) -> str:
        return f"{self._name}:{line}" if self._with_lines else self._name


def _require_depth(depth: int, name: str) -> None:
    if depth > MAX_DEPTH:
        given = f"more than {MAX_DEPTH} levels"
        raise ConfigError(describe(f"{name}: nested too deeply", given=given, allowed=f"at most {MAX_DEPTH} levels", fix="see the shipped files"))


def _require_count(count: int, name: str) -> None:
    if count > MAX_NODES:
        given = f"more than {MAX_NODES} keys and values; what an alias stands for counts each time"
        raise ConfigError(describe(f"{name}: too many values", given=given, allowed=f"at most {MAX_NODES}", fix="remove aliases, or put data into files"))
