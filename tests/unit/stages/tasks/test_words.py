"""What is of one task stands in that task's folder."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
WORDS = re.compile(r"top[-_ ]?1|cross_entropy|arg_?max|logits", re.IGNORECASE)
ALLOWED = {
    "stages/selection/search.py": "argmax over widths",
    "stages/selection/bound.py": "argmax over widths",
    "stages/selection/fitting.py": "argmax over networks",
    "stages/networks/torchvision_models.py": "an option of torchvision's networks",
}
FILES = sorted(
    file.relative_to(ROOT).as_posix()
    for folder in ("profiles", "stages", "pipeline")
    for file in (ROOT / folder).rglob("*.py")
    if (ROOT / "stages" / "tasks") not in file.parents
)


def test_no_file_outside_of_the_tasks_says_what_only_a_task_knows() -> None:
    said = {name: [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if WORDS.search(line)] for name in FILES}
    assert {name: lines for name, lines in said.items() if lines and name not in ALLOWED} == {}


@pytest.mark.parametrize("name", ALLOWED)
def test_every_exception_is_needed(name: str) -> None:
    assert WORDS.search((ROOT / name).read_text(encoding="utf-8"))
