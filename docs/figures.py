"""The figures of the documentation, drawn from the results that are committed in `benchmarks/results`.

python docs/figures.py      # docs/images/*.svg; seconds
"""

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bonsai.stages.networks.checkpoint import History
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.reporting.plots import draw_training
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
IMAGES = Path(__file__).parent / "images"
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "bonsai", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
STATES = {("dense", "fp32"): "dense FP32", ("pruned", "fp32"): "pruned FP32", ("dense", "int8"): "dense INT8", ("pruned", "int8"): "pruned INT8"}


def main(images: Path = IMAGES) -> None:
    """Draw all of them."""
    images.mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        draw_example(images / "training.svg", results("example"))
        for name, figure in {
            "widths": widths(results("example")),
            "table": table(results("table")),
            "budget": budget(results("budget")),
            "selection": selection(results("selection")),
            "speed": speed(results("speed")),
            "parity": parity(results("parity")),
        }.items():
            figure.savefig(images / f"{name}.svg", metadata={"Date": None})


def results(name: str) -> Any:
    """Return what a benchmark wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def draw_example(file: Path, run: Any) -> None:
    """Draw EPI and the learning curve of one run, as its package shows them."""
    history = [History.model_validate(line) for line in run["history"]]
    draw_training(file, Trigger.model_validate(run["trigger"]), history, (), CLASSIFICATION.metric)


def widths(run: Any) -> Figure:
    """Draw the channels of every group, kept and removed."""
    groups = list(run["dense_widths"])
    kept, dense = ([run[key][group] for group in groups] for key in ("kept_widths", "dense_widths"))
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.barh(groups, dense, color="0.88", label="dense")
    bars = axis.barh(groups, kept, color="tab:green", label="kept")
    axis.bar_label(bars, [f" {k} of {d}" for k, d in zip(kept, dense, strict=True)], padding=2)
    axis.invert_yaxis()
    axis.set(xlabel="channels", xlim=(0, max(dense) * 1.08))
    axis.legend(loc="upper right", frameon=False)  # beside the narrowest groups
    return figure


def table(measured: Any) -> Figure:
    """Draw the error of predicted latency against the number of networks that the model was fitted to, for the grid that is used."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis = figure.subplots()
    rows = [row for row in measured["rows"] if row["grid"] == "three by three"]
    for network, colour in zip(dict.fromkeys(row["network"] for row in rows), ("tab:blue", "tab:orange"), strict=True):
        for precision, line in (("fp32", "-"), ("int8", "--")):
            points = [(row["fitted_networks"], 100 * row["mean_error"]) for row in rows if (row["network"], row["precision"]) == (network, precision)]
            axis.plot(*zip(*points, strict=True), line, marker="o", ms=4, color=colour, label=f"{network}, {precision}")
    axis.axhline(2, color="grey", ls=":")
    axis.text(26, 2.05, "goal", ha="right", va="bottom", color="grey")
    axis.set(xlabel="whole networks that the model is fitted to", ylabel="mean error of 30 others, %", ylim=(0, None), xticks=[2, 14, 26])
    axis.legend(frameon=False, fontsize=8)
    return figure


def budget(measured: Any) -> Figure:
    """Draw a fresh measurement after the loop over what was asked."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axis = figure.subplots()
    for network, marker in zip(dict.fromkeys(row["network"] for row in measured["rows"]), "os^", strict=True):
        rows = [row for row in measured["rows"] if row["network"] == network]
        axis.plot([row["budget"] for row in rows], [row["fresh"] for row in rows], marker, ms=5, mfc="none", label=network)
    axis.axhspan(0.97, 1, color="tab:green", alpha=0.15, lw=0)
    axis.axhline(1, color="grey", ls=":", lw=1)
    axis.set(xlabel="asked, of the dense FP32 latency", ylabel="measured afresh,\nover what was asked", ylim=(0.75, 1.1))
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def selection(measured: Any) -> Figure:
    """Draw top-1 by what a width was worth, at equal latency and training."""
    ranked = sorted(measured["summary"]["20%"].items(), key=lambda item: item[1]["top1"][0])
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    for place, (_, found) in enumerate(ranked):
        mean, spread = found["top1"]
        axis.errorbar(mean, place, xerr=spread, marker="o", ms=4, capsize=2, color="tab:green" if place == len(ranked) - 1 else "tab:blue")
    axis.set_yticks(range(len(ranked)), [name for name, _ in ranked])
    axis.set(xlabel="test top-1, %  (95 % interval over three seeds)")
    axis.grid(axis="x", color="0.9")
    return figure


def speed(measured: Any) -> Figure:
    """Draw how many times as fast as dense FP32 of ONNX Runtime each engine is, one image at a time."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    networks = list(dict.fromkeys(row["network"] for row in measured["rows"]))
    for axis, network in zip(figure.subplots(1, len(networks), sharey=True), networks, strict=True):
        for place, state in enumerate(STATES):
            for offset, (runtime, colour) in zip((-0.2, 0.2), (("onnxruntime", "tab:blue"), ("openvino", "tab:orange")), strict=True):
                (row,) = (r for r in measured["rows"] if (r["network"], r["batch"], r["runtime"], (r["state"], r["precision"])) == (network, 1, runtime, state))
                low, high = row["spread"]
                error = [[row["speedup"] - low], [high - row["speedup"]]]
                label = RUNTIMES[runtime] if place == 0 else None
                bar = axis.bar(place + offset, row["speedup"], 0.38, yerr=error, color=colour, label=label, error_kw={"lw": 1})
                axis.bar_label(bar, fmt="%.1f", fontsize=7, padding=1)
            axis.set_xticks(range(len(STATES)), [text.replace(" ", "\n") for text in STATES.values()], fontsize=8)
        axis.set_title(network, fontsize=9)
    figure.axes[0].set_ylabel("times as fast as dense FP32\nof ONNX Runtime")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def parity(measured: Any) -> Figure:
    """Draw how far the logits of engines and files are from those of the network that was trained."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axis = figure.subplots()
    networks = list(dict.fromkeys(row["network"] for row in measured["rows"]))
    ways = list(dict.fromkeys((row["dialect"], row["run_by"]) for row in measured["rows"]))
    for number, (way, colour) in enumerate(zip(ways, ("tab:blue", "tab:orange", "tab:green"), strict=True)):
        found = {row["network"]: 100 * row["difference"] for row in measured["rows"] if (row["dialect"], row["run_by"]) == way}
        axis.bar([place + 0.27 * (number - 1) for place in range(len(networks))], [found[n] for n in networks], 0.25, color=colour, label=", ".join(way))
    axis.set_xticks(range(len(networks)), [name.replace("_", "\n") for name in networks], fontsize=8)
    axis.set(ylabel="mean difference of logits,\n% of their spread")
    axis.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
