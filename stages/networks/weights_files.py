"""Files of weights that somebody else has written: safetensors, and what `torch.save` writes. Nothing but tensors is unpickled."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.contents import digest_of, listed_few
from bonsai.stages.imports.user_code import user_code
from bonsai.stages.networks.config import PRETRAINED, WEIGHTS_KEY, GivenWeights, ModelConfig
from bonsai.stages.networks.libraries import pretrained_of

ENTRIES = ("state_dict", "model_state_dict", "model")
"""Entries of a file under which training scripts keep a `state_dict` beside other things."""
SAVED = "a state_dict of tensors, as `torch.save(network.state_dict(), file)` writes it; or a dict that has one as " + ", ".join(ENTRIES)


class NamedTensors(NamedTuple):
    """Weights as they were found.

    Attributes:
        tensors: By name.
        entry: Entry of the file that they were taken from; empty where the file has nothing else.
    """

    tensors: dict[str, torch.Tensor]
    entry: str = ""


def digest_of_weights(file: Path) -> str:
    """Return the digest of what a file of weights holds, wherever it lies.

    Raises:
        ConfigError: It is not there, or cannot be read.
    """
    if not file.is_file():
        given, fix = f"{file}, looked for in {Path.cwd()}", "check the path"
        raise ConfigError(describe(f"{WEIGHTS_KEY}: no such file", given=given, allowed="a file, by its path from the recipe's folder", fix=fix))
    return digest_of({"": file}, WEIGHTS_KEY)


def find_weights(weights: str) -> GivenWeights:
    """Return what `model.weights` names: a file, by its contents, or a library's weights.

    Raises:
        ConfigError: The file is not there, or cannot be read.
    """
    if weights == PRETRAINED:
        return GivenWeights(kind="pretrained")
    return GivenWeights(kind="file", file=weights, content=digest_of_weights(Path(weights)))


def read_weights(given: GivenWeights, model: ModelConfig) -> NamedTensors:
    """Read weights.

    Args:
        given: The weights.
        model: The network that they are for.

    Raises:
        ConfigError: The file has changed since, cannot be read, or holds something else than tensors by name; or the library's weights cannot be had.
    """
    if given.kind == "pretrained":
        return NamedTensors(pretrained_of(model))
    file = Path(given.file)
    if digest_of_weights(file) != given.content:
        raise ConfigError(describe(f"{WEIGHTS_KEY}: the file has changed since the run began", given=file, allowed="the same contents", fix="repeat the run"))
    with user_code(f"{WEIGHTS_KEY}: the file cannot be read", given=str(file), allowed=SAVED, fix="save it again"):
        if file.suffix.lower() == ".safetensors":
            return NamedTensors(load_file(file))
        try:
            return _tensors_in(torch.load(file, map_location="cpu", weights_only=True), file)
        except UnpicklingError as error:
            held = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise ConfigError(
                describe(
                    f"{WEIGHTS_KEY}: the file holds more than tensors, and code out of a file is not run",
                    given=f"{file}, with {held[1] if held else str(error).partition(chr(10))[0]}",
                    allowed=SAVED,
                    fix="save the state_dict() alone where the network's class can be imported",
                )
            ) from error


def _tensors_in(loaded: Any, file: Path) -> NamedTensors:
    """Return the state_dict in what a file holds.

    Raises:
        ConfigError: There is none.
    """
    entry = "" if _is_state(loaded) or not isinstance(loaded, Mapping) else next((name for name in ENTRIES if _is_state(loaded.get(name))), "")
    state = loaded[entry] if entry else loaded
    if not _is_state(state):
        found = f"a dict of {listed_few(map(str, loaded))}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise ConfigError(describe(f"{WEIGHTS_KEY}: the file holds no state_dict", given=f"{file}, {found}", allowed=SAVED, fix="save the state_dict() alone"))
    return NamedTensors(dict(state), entry)


def _is_state(found: object) -> bool:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items())
