import ast
import re
import sys
from pathlib import Path

import pytest

from bonsai.stages.delivery.predict.text import OWN, PROGRAM, ROOT, predict_text

ALONE = ("stages/data/pixels.py", "stages/tasks/predicting.py", "stages/delivery/predict/engines.py")
PARTS = (*ALONE, *(f"stages/delivery/predict/{name}.py" for name in ("samples", "network", "figure")))


def imported(tree: ast.AST) -> set[str]:
    """Return the top names that a text imports, anywhere in it."""
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    return {name.partition(".")[0] for name in plain | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}}


def defined(file: Path) -> set[str]:
    """Return the names that a file defines at its top."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def test_the_program_needs_numpy_and_pillow_alone_in_the_language_of_python_3_10() -> None:
    tree = ast.parse(predict_text(), feature_version=(3, 10))
    assert imported(tree) - sys.stdlib_module_names == {"numpy", "PIL"}


@pytest.mark.parametrize("part", PARTS)
def test_the_program_holds_the_files_of_bonsai_word_for_word(part: str) -> None:
    assert OWN.sub("", (ROOT / part).read_text()) in predict_text()


@pytest.mark.parametrize("part", ALONE)
def test_files_that_import_nothing_of_bonsai_are_held_whole(part: str) -> None:
    assert (ROOT / part).read_text() in predict_text()


def test_the_program_holds_every_file_that_it_imports() -> None:
    assert not re.search(r"^\s*(from|import) bonsai", predict_text(), re.MULTILINE)
    assert predict_text().count("# ---- the end of ") == len(PARTS)


def test_no_two_files_of_the_program_define_one_name() -> None:
    names = [name for file in (PROGRAM, *(ROOT / part for part in PARTS)) for name in defined(file)]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
