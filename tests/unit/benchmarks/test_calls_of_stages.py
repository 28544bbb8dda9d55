"""Inputs that benchmarks and GPU tests hand to stages. mypy cannot check them, since `Store.run` takes the inputs of any stage."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
FILES = [*sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "tests" / "gpu").glob("*.py"))]
STEPS = "bonsai.stages.steps."


class Call(NamedTuple):
    """One call of a stage through a store: where the stage is defined, its inputs, and whether others are in a dictionary."""

    module: str
    stage: str
    inputs: frozenset[str]
    has_others: bool


def calls_in(file: Path) -> Iterator[tuple[int, Call]]:
    """Return the calls `store.run(stage, ...)` of a file by line."""
    tree = ast.parse(file.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(STEPS)]
    stages = {name.asname or name.name: (str(node.module), name.name) for node in imports for name in node.names}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "run" and node.args):
            continue
        first = node.args[0]
        if isinstance(first, ast.Name) and first.id in stages:
            given = [keyword.arg for keyword in node.keywords]
            yield node.lineno, Call(*stages[first.id], frozenset(name for name in given if name), has_others=None in given)


CALLS = [pytest.param(call, id=f"{file.name}:{line}") for file in FILES for line, call in calls_in(file)]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_names_the_inputs_of_its_stage(call: Call) -> None:
    parameters = list(inspect.signature(getattr(importlib.import_module(call.module), call.stage)).parameters.values())[1:]  # without out_dir
    needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    assert call.inputs <= {parameter.name for parameter in parameters}
    assert call.has_others or needed <= call.inputs


def test_the_calls_are_found() -> None:
    assert {call.values[0].stage for call in CALLS} >= {"prepare", "train_dense", "prune", "recover", "quantize", "export", "compile"}
