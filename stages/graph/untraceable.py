"""Why a network has no graph."""

import re
from pathlib import Path

import torch

from bonsai.stages.imports.user_code import Place, place_of

BATCH = "the forward depends on the number of images"
NOT_THE_NETWORKS = (Path(torch.__file__).parent, Path(__file__).parent)
"""Folders whose lines in a traceback say nothing about the network."""
REASONS = {"data-dependent": "the forward depends on the values of tensors", "Constraints violated": BATCH}
"""Explanations of torch.export's messages, by words in them."""


class Untraceable(Exception):
    """Why a network has no graph."""


def explain(error: BaseException) -> str:
    """Return what an error means, or its first sentence, and the line of the network's own code that it arose in."""
    message = str(error).strip()
    first = next(iter(message.splitlines()), "") or type(error).__name__
    reason = next((reason for words, reason in REASONS.items() if words in first), first.partition(". ")[0])
    if isinstance(error, LookupError):  # whose message may be a bare name
        reason = f"{type(error).__name__}: {reason}"
    named = tuple(Place(Path(file), int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+)', message))
    place = place_of(error, named=named)
    return f"{reason} ({place})" if place else reason
