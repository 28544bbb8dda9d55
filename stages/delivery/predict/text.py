"""The text of a package's `predict.py`: `program.py`, with the files that it imports from Bonsai in place of the imports."""

import re
from collections.abc import Iterator
from pathlib import Path

PREDICT = "predict.py"
PROGRAM = Path(__file__).with_name("program.py")
ROOT = Path(__file__).parents[3]
"""The folder that holds `stages`."""
OWN = re.compile(r"^from bonsai\.([\w.]+) import (?:\([^)]*\)|.+)\n", re.MULTILINE)


def predict_text() -> str:
    """Return the text, the same for every package."""
    text = PROGRAM.read_text(encoding="utf-8")
    first = OWN.search(text)
    assert first is not None
    parts = "".join(map(_part, dict.fromkeys(_imported(text))))
    return text[: first.start()] + parts + OWN.sub("", text[first.start() :])


def _imported(text: str) -> Iterator[str]:
    """Yield the files of Bonsai that a text imports, from `ROOT`, each behind those that it imports itself."""
    for found in OWN.finditer(text):
        file = f"{found[1].replace('.', '/')}.py"
        yield from _imported((ROOT / file).read_text(encoding="utf-8"))
        yield file


def _part(file: str) -> str:
    """Return a file of Bonsai, without its imports of others, between two lines that name it."""
    return f"\n# ---- Bonsai's {file} ----\n\n{OWN.sub('', (ROOT / file).read_text(encoding='utf-8'))}\n# ---- the end of {file} ----\n"
