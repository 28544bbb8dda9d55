"""Why a network has no graph."""

import re
import traceback
from pathlib import Path

import torch

FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, ArithmeticError)
"""What a network's own code may raise where it meets something else than a tensor with values."""
BATCH = "the forward depends on the number of images"
REASONS = {"data-dependent": "the forward depends on the values of tensors", "Constraints violated": BATCH}
"""What torch.export's messages mean, by words in them."""
NOT_THE_NETWORKS = (Path(torch.__file__).parent, Path(__file__).parent)


class Untraceable(Exception):
    """Why a network has no graph."""


def explain(error: BaseException) -> str:
    """Return what an error means, or its first sentence, and the line of the network's own code that it arose in."""
    message = str(error).strip()
    first = next(iter(message.splitlines()), "") or type(error).__name__
    reason = next((reason for words, reason in REASONS.items() if words in first), first.partition(". ")[0])
    lines = [(Path(frame.filename), str(frame.lineno)) for frame in traceback.extract_tb(error.__traceback__)]
    lines += [(Path(file), line) for file, line in re.findall(r'File "([^"]+)", line (\d+)', message)]
    own = [(file, line) for file, line in lines if file.exists() and not any(file.is_relative_to(folder) for folder in NOT_THE_NETWORKS)]
    return f"{reason} ({own[-1][0].name}, line {own[-1][1]})" if own else reason
