"""Describes in words how a network was quantised."""

from collections.abc import Sequence

from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.quantization.config import within
from bonsai.stages.tasks.metric import Metric

NAMES = {"float": "float", "ptq": "PTQ", "qat": "QAT", "mixed": "mixed"}


MOST_LISTED = 10


def listed(names: Sequence[str]) -> str:
    """Return names for people: the first few, and how many more there are."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def summarise(final: Checkpoint, metric: Metric) -> str:
    """Return which quantised network was kept, what each scored on the validation split, and what is in float or missing.

    Args:
        final: A quantised network.
        metric: Metric by which it was judged.
    """
    quantization, quantizers = final.quantization, final.quantizers
    assert quantization is not None and quantizers is not None
    keys = {name: f"validation_{metric.name}_{name}" for name in NAMES}
    reached = {name: final.metrics[key] for name, key in keys.items() if key in final.metrics}
    scores = ", ".join(f"{NAMES[name]} {value:.4f}" for name, value in reached.items())
    sentences = [f"Validation {metric.label}: {scores}; kept: {NAMES[quantization.kept]}."]
    if "qat" not in reached:
        enough = within(metric.drop(reached["float"], reached["ptq"]), quantization.max_drop)
        sentences.append(f"QAT was skipped: {f'PTQ costs no more than {quantization.max_drop:g}' if enough else 'the recipe asks for none'}.")
    named = [name for name in quantizers.kept_float if name not in quantization.searched]
    if named:
        sentences.append(f"In float by the recipe: {', '.join(named)}.")
    if quantization.searched:
        noise = {found.layer: found.noise for found in quantization.sensitivities}
        layers = ", ".join(f"{name} ({noise[name]:.2g})" for name in quantization.searched)
        sentences.append(
            f"In float by the search, with {NAMES[quantization.weights]}'s weights, the most sensitive first (in brackets what each costs as INT8: "
            f"squared error of the outputs over their square): {layers}."
        )
    if quantization.left_float:
        sentences.append(f"In float because no quantiser takes them: {listed(quantization.left_float)}.")
    drop = metric.drop(reached["float"], reached[quantization.kept])
    if not within(drop, quantization.max_drop):
        sentences.append(f"That is {drop:.4f} below float, where the recipe allows {quantization.max_drop:g}.")
    return " ".join(sentences)
