"""`bonsai import`: a `pruning_config.json` of PruningAwareTraining (Torch-Pruning's fork) as changes to a recipe.

Settings of layers, method and schedule are taken over. Settings without a counterpart become comments, because Bonsai prunes to a latency and not
to a rate or to MACs. An unknown key is an error, so that no setting is lost silently.
"""

import json
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from types import UnionType
from typing import Any

from torch import nn

from bonsai.pipeline.starting.scaffold import Adapt, Changes
from bonsai.profiles.bounded_json import read_json
from bonsai.profiles.errors import ConfigError, describe, suggestion

CHANNELS, SLICES = "channel_sparsity_args", "slice_sparsity_args"
METHODS = {"BNScalePruner": "bn_scale", "GroupNormPruner": "magnitude_l2", "MACAwareImportance": "magnitude_l2"}
"""Pruning methods, and Bonsai's criterion for their ranking."""
UNUSED = {
    "global_prune_rate": "no rate is asked for: widths are chosen to fit the latency `budget` of the target",
    "mac_target": "no MACs are asked for: widths are chosen to fit the latency `budget` of the target",
    "block_size": "widths are multiples of the target's `channel_multiple`, which its profile knows",
    "MAC_params": "the cost of a layer is its latency, measured",
    "prune_at_target": "masks are cut once the schedule ends",
    "max_batches": "of the method VBP",
    "var_loss_weight": "of the method VBP",
    "norm_per_layer": "of the method VBP",
    "model_type": "of the method VBP",
    "input_shape": "the images tell it",
    "container": "the images tell it",
    "is_prune": "a target with `budget: {latency: 1}` prunes next to nothing",
    "infer": "state of a run",
    "reach_mac_target": "state of a run",
    "log_str": "state of a run",
    "verbose": "progress is always shown",
}
"""Keys without a counterpart, and why."""
USED = ("start_epoch", "end_epoch", "epoch_rate", "layers", "pruning_method", "prune_channels_at_init", "global_pruning", "isomorphic", "max_pruning_rate")
REGULARIZE = ("reg", "mac_reg", "gamma", "alpha_shrinkage_reg")
MOST_EPOCHS = 100_000
RECOVERY = 10
"""Fewest epochs after the last cut."""


def read_pruning_config(file: Path) -> Adapt:
    """Read a configuration; what it returns fits it to a network.

    Raises:
        ConfigError: The file cannot be read, is no such configuration, or has a key that is not known.
    """
    settings = _channel_settings(file)

    def adapt(network: nn.Module, steps: int) -> Changes:
        start, end, rate = (int(settings.get(key, value)) for key, value in (("start_epoch", 0), ("end_epoch", 0), ("epoch_rate", 1)))
        cuts = max(1, len([epoch for epoch in range(start, end) if epoch % rate == 0]))
        epochs = max(end, start, 1) + max(RECOVERY, ceil(end / 2))
        prune, notes = [*_policy(settings, start), *_schedule(cuts, rate * steps, start, end)], [f"Read from {file.name}. What has no counterpart:"]
        prune += _criterion(settings, notes)
        prune += _kept(settings, network, file)
        if "max_pruning_rate" in settings:
            prune.append(f"floor: {max(0.01, round(1 - float(settings['max_pruning_rate']), 4)):g}    # 1 - max_pruning_rate")
        for key, reason in UNUSED.items():
            if key in settings and not (key == "is_prune" and settings[key]):
                notes.append(f"  {key}: {_short(settings[key])}    ({reason})")
        if SLICES in settings:
            notes.append(f"  {SLICES}: {_short(settings[SLICES])}    (slices inside a kernel save no time in the runtimes here)")
        return Changes(prune, epochs, notes)

    return adapt


def _channel_settings(file: Path) -> Mapping[str, Any]:
    try:
        facts = read_json(file)
    except (OSError, ValueError) as error:
        raise ConfigError(describe(f"{file}: cannot be read", given=error, allowed="a pruning_config.json", fix="check the path")) from error
    if not isinstance(facts, dict) or not isinstance(facts.get(CHANNELS), dict):
        found = ", ".join(facts) if isinstance(facts, dict) else type(facts).__name__
        raise ConfigError(describe(f"{file}: no configuration of PruningAwareTraining", given=found, allowed=f"a table {CHANNELS}", fix="check the file"))
    channels: dict[str, Any] = facts[CHANNELS]
    _refuse_unknown(facts, (CHANNELS, SLICES), f"{file}: ")
    _refuse_unknown(channels, (*USED, *UNUSED, "regularize"), f"{file}: {CHANNELS}.")
    regularize = channels.get("regularize", {})
    if not isinstance(regularize, dict):
        raise ConfigError(describe(f"{file}: regularize is no table", given=regularize, allowed=", ".join(REGULARIZE), fix="mend the file"))
    _refuse_unknown(regularize, REGULARIZE, f"{file}: {CHANNELS}.regularize.")
    slices = facts.get(SLICES) or {}
    _require_types({**channels, **regularize, SLICES: slices}, file)
    return {**channels, **({SLICES: slices} if slices and slices.get("is_prune", True) else {})}


def _require_types(found: Mapping[str, Any], file: Path) -> None:
    rules: list[tuple[tuple[str, ...], str, Callable[[Any], bool]]] = [
        (("start_epoch", "end_epoch"), f"a whole number from 0 to {MOST_EPOCHS}", lambda value: _is_number(value, int) and 0 <= value <= MOST_EPOCHS),
        (("epoch_rate",), f"a whole number from 1 to {MOST_EPOCHS}", lambda value: _is_number(value, int) and 1 <= value <= MOST_EPOCHS),
        (("max_pruning_rate",), "a number from 0 to 1", lambda value: _is_number(value, int | float) and 0 <= value <= 1),
        (("pruning_method",), "a name", lambda value: isinstance(value, str)),
        (("reg",), "a number from 0 to 1e9", lambda value: _is_number(value, int | float) and 0 <= value <= 1e9),
        ((SLICES,), "a table", lambda value: isinstance(value, dict)),
        (("layers",), "a list of names of layers", lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value)),
    ]
    for keys, allowed, fits in rules:
        for key in keys:
            if key in found and not fits(found[key]):
                raise ConfigError(describe(f"{file}: {key} is not usable", given=_short(found[key]), allowed=allowed, fix=f"change {key}"))


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _refuse_unknown(found: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in found:
        if key not in known:
            raise ConfigError(
                describe(f"{place}{key} is not known{suggestion(key, known)}", given=_short(found[key]), allowed=known, fix="correct it, or remove it")
            )


def _policy(settings: Mapping[str, Any], start: int) -> list[str]:
    if settings.get("prune_channels_at_init") or start == 0:
        return ["policy: {name: initialisation}    # prune_channels_at_init, or start_epoch 0; {name: epi} finds the moment itself"]
    return [f"policy: {{name: epoch, epoch: {start}}}    # start_epoch; {{name: epi}} finds the moment itself"]


def _schedule(cuts: int, iterations: int, start: int, end: int) -> list[str]:
    if cuts == 1:
        return []
    return [f"schedule: {{name: linear, steps: {cuts}, iterations: {iterations}, soft: true}}    # {cuts} cuts, epoch_rate apart, from epoch {start} to {end}"]


def _criterion(settings: Mapping[str, Any], notes: list[str]) -> list[str]:
    method = settings.get("pruning_method", "GroupNormPruner")
    lines = [f"criterion: {METHODS.get(method, 'magnitude_l2')}    # {_short(method)}"]
    if method not in METHODS:
        notes.append(f"  pruning_method: {_short(method)}    (no such criterion here; magnitude_l2 stands in its place: choose another one)")
    if settings.get("isomorphic"):
        notes.append("  isomorphic: true    (widths are worth shares of a group's own scores, so scores of two groups are never compared)")
    elif settings.get("global_pruning") is False:
        notes.append("  global_pruning: false    (every layer's width is chosen by what it costs and is worth, not by one rate for all)")
    regularize = settings.get("regularize", {})
    strength = regularize.get("reg", 0)
    if strength and method == "BNScalePruner":
        lines.append(f"regulariser: {{name: bn_l1, strength: {strength:g}}}    # reg; coupled layers one by one instead of as a group")
    elif strength:
        notes.append(f"  regularize.reg: {strength}    (no such penalty here; near it is prune.regulariser: {{name: group_lasso, strength: 1e-4}})")
    notes += [f"  regularize.{key}: {_short(regularize[key])}    (of that penalty)" for key in REGULARIZE[1:] if key in regularize]
    return lines


def _kept(settings: Mapping[str, Any], network: nn.Module, file: Path) -> list[str]:
    """Return what is left whole: the convolutions and linear layers that the configuration does not name."""
    if "layers" not in settings:
        return []
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    asked = [str(name).removeprefix("module.") for name in settings["layers"]]
    for name in asked:
        if name not in layers:
            raise ConfigError(
                describe(
                    f"{file}: {CHANNELS}.layers: no layer of this name{suggestion(name, layers)}", given=name, allowed=layers, fix="correct it, or remove it"
                )
            )
    kept = [name for name in layers if name not in asked]
    return [f"keep: [{', '.join(kept)}]    # all that `layers` does not name"] if kept else []


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
