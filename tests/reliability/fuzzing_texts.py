"""Damages texts and JSON values at random, the same way for the same seed."""

import copy
import random
from collections.abc import Iterator
from typing import Any

PIECES = (
    "[", "]", "{", "}", ":", ",", "\n", " ", "\t", "-", "&a", "*a", "!!bool", "!!int x", "'", '"', "|", "#", "\x00", "\ud7ff", "\u202e", "0777", "1:30", ".inf",
    ".nan", "1e999", "9" * 5000, "null", "2020-13-45", "<<", "? ", "%", "@", "\\ud800", "../", "x" * 3000, "[" * 200,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, -0.0, 1e308, 1e-320, float("nan"), float("inf"), "", "x", "x" * 5000, "\u202e<b>\n,", "../outside", "1e999", [], {}, [[]],
    [None], {"": None}, {"artifact": 5}, [[[[[[[[1]]]]]]]],
)  # fmt: skip


def damaged_texts(text: str, count: int, seed: int) -> Iterator[str]:
    """Yield a text with one to four places changed, `count` times."""
    rng = random.Random(seed)
    for _ in range(count):
        found = text
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(found) + 1)
            end = min(len(found), start + rng.choice((0, 0, 1, 3, 40)))
            found = found[:start] + rng.choice(("", *PIECES)) + found[end:]
        yield found


def damaged_values(value: Any, count: int, seed: int) -> Iterator[Any]:
    """Yield a JSON value of which one to three parts are removed, renamed, or another value, `count` times."""
    rng = random.Random(seed)
    for _ in range(count):
        found = copy.deepcopy(value)
        for _ in range(rng.randint(1, 3)):
            _damage(found, rng)
        yield found


def _damage(value: Any, rng: random.Random) -> None:
    holder = value
    while isinstance(holder, dict | list) and holder:
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        inner = holder[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            holder = inner
            continue
        action = rng.random()
        if action < 0.2:
            del holder[key]
        elif action < 0.3 and isinstance(holder, dict):
            holder[rng.choice(("", "x", str(key) + " "))] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        return
