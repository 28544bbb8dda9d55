"""The page of `bonsai explain`: a table and a figure of a package's layers, and which of them stand out."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bonsai.stages.explanation.records import Explanation, LayerRow
from bonsai.stages.reporting.content import Figure, Part, Report, Table
from bonsai.stages.reporting.plots import ROW
from bonsai.stages.reporting.svg import PALETTE, draw, inline
from bonsai.stages.reporting.writing import write_pages

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DRAWN = 40
"""Most layers in the figure: those that take longest or add most."""
STEPS = {
    "torch float": "the float form of model.onnx beside the float network in torch",
    "simulated": "model.onnx beside the fake-quantised network in torch",
    "rounding": "model.onnx beside its float form",
    "engine": "the engine beside model.onnx",
    "both": "the engine beside the float form",
}
"""What each difference of the outputs is between."""


def write_explanation(folder: Path, explanation: Explanation) -> None:
    """Write the page as ``report.html`` and ``report.md``; the folder is made if it is missing."""
    title = f"Why is {explanation.package} slow, where was accuracy lost?"
    write_pages(folder, Report(title=title, notes=(explanation.verdict,), summary=(part_of(explanation),), chapters=()))


def part_of(explanation: Explanation) -> Part:
    """Return table, figure and sentences."""
    title = "Layer by layer"
    drawing = draw(partial(_layers, layers=_drawn(explanation)), 1.2 + ROW * len(_drawn(explanation)))
    figure = Figure(
        title=title,
        svg=inline(
            drawing, "explain-layers", title, "Time of each layer, and the error that it adds, over the size of its output; the table below has the numbers."
        ),
    )
    return Part(title=title, texts=texts_of(explanation), figures=(figure,), tables=(table_of(explanation),))


def texts_of(explanation: Explanation) -> tuple[str, ...]:
    """Return the verdict, the layers that stand out, and what was not looked at, one sentence each."""
    outputs = [f"{STEPS[step]} {error:.2%}" for step, error in explanation.outputs.items()]
    return (
        explanation.verdict,
        *(finding.sentence + "." for finding in explanation.findings),
        *(f"Worth a try: {sentence}" for sentence in explanation.worth_a_try),
        *([f"Differences at the outputs, over their size: {'; '.join(outputs)}."] if outputs else []),
        *([f"Accuracy by step: {'; '.join(explanation.accuracy)}"] if explanation.accuracy else []),
        *explanation.notes,
    )


def table_of(explanation: Explanation) -> Table:
    """Return the layers with their times and errors; columns of which nothing is known are left out."""
    layers = explanation.layers
    total = sum(layer.engine_us or 0 for layer in layers)
    columns = {
        "dense us": [_us(layer.dense_us) for layer in layers],
        "float us": [_us(layer.float_us) for layer in layers],
        f"{explanation.precision} us": [_us(layer.engine_us) for layer in layers],
        "of engine": ["-" if layer.engine_us is None else _percent(layer.engine_us / total, 0) for layer in layers],
        "torch to file": [_percent(layer.simulated) for layer in layers],
        "rounding adds": [_percent(layer.rounding) for layer in layers],
        "engine adds": [_percent(layer.engine) for layer in layers],
        "reached": [_percent(layer.reached) for layer in layers],
        "moves outputs": [_percent(layer.effect) for layer in layers],
    }
    known = {header: cells for header, cells in columns.items() if any(cell != "-" for cell in cells)}
    faults = {finding.layer: finding.kind for finding in explanation.findings}
    rows = [(layer.name, layer.op, *(cells[place] for cells in known.values()), faults.get(layer.name, "")) for place, layer in enumerate(layers)]
    how = f"errors on {explanation.images} golden inputs, over the size of a layer's output; times under the profiler, - is in another layer's kernel"
    return Table(
        caption=how,
        headers=("layer", "operator", *known, "stands out"),
        rows=tuple(rows),
        strong=tuple(place for place, layer in enumerate(layers) if layer.name in faults),
    )


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}%}".replace("%", " %")


def _drawn(explanation: Explanation) -> tuple[LayerRow, ...]:
    """Return the layers of the figure, in their order."""
    layers = explanation.layers
    ranks = [sorted(layers, key=key, reverse=True) for key in (_time, _error)]
    dearest = {layer.name for rank in ranks for layer in rank[: DRAWN // 2]}
    return tuple(layer for layer in layers if layer.name in dearest)


def _time(layer: LayerRow) -> float:
    return layer.engine_us or 0.0


def _error(layer: LayerRow) -> float:
    return (layer.rounding or 0.0) + (layer.engine or 0.0)


def _layers(figure: "Drawing", layers: tuple[LayerRow, ...]) -> None:
    times, errors = figure.subplots(1, 2, sharey=True)
    places = range(len(layers))
    times.barh(places, [_time(layer) for layer in layers], color=PALETTE["shipped"], label="engine")
    times.plot([layer.float_us for layer in layers], places, "s", color=PALETTE["pruned"], label="in float")
    times.plot([layer.dense_us for layer in layers], places, "o", color=PALETTE["dense"], label="dense")
    errors.barh(places, [100 * (layer.rounding or 0.0) for layer in layers], color=PALETTE["quiet"], label="by rounding")
    errors.barh(
        places,
        [100 * (layer.engine or 0.0) for layer in layers],
        left=[100 * (layer.rounding or 0.0) for layer in layers],
        color=PALETTE["limit"],
        label="by the engine",
    )
    times.set(xlabel="microseconds", yticks=places, yticklabels=[layer.name for layer in layers])
    errors.set(xlabel="error added, %")
    times.invert_yaxis()
    for axis in (times, errors):
        axis.legend(loc="lower right", fontsize=8)
