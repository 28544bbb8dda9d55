"""The model card shows what a user called things as text."""

import json
from pathlib import Path

from markdown_it import MarkdownIt
from tiny_footprint import a_footprint
from tiny_report import a_manifest

from bonsai.profiles.errors import visible
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.timing_records import Condition, Conditions
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.decisions import Decisions
from bonsai.stages.measurement.condition_text import describe_conditions, in_ranges
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.measurements import Fresh, FreshTiming, Measurement, Row
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.reporting.model_card import figure_notes, write_model_card
from bonsai.stages.tasks.results_table import ResultsTable

NAMES = ("two\nlines", "a, b", "<img src=x onerror=alert(1)>", "\u202egnp.exe", "**strong** [x](http://x.example)", "](training.svg)")
LICENCE = "<script>alert(1)</script> mine"


def test_a_card_tells_how_many_layers_are_sparse_where_that_was_asked_for() -> None:
    told = a_manifest()
    fields = told.engine.model_dump(exclude={"graph", "run_here", "coverage"})
    coverage = {"sparse_layers": 2, "sparse_eligible_layers": 9}
    engine = Engine.model_validate({**fields, "coverage": coverage, "folder": Path(), "info": told.device, "parameters": 1, "macs": 1, "runnable": True})
    measured = {"rows": told.metrics, "gates": told.gates, "shipped": "int8", "reason": "fast", "kernels": (), "dense_kernels": (), "contention": 1.0}
    measurement = Measurement.model_validate({**measured, "folder": Path()})
    target = told.profile.target
    asked = figure_notes(measurement, engine, target.model_copy(update={"sparse_weights": True}), None, "measured")[0]
    assert asked.endswith("2:4 sparsity: 2 of the 9 layers that could run as sparse have such weights; the others run as dense.")
    assert "2:4" not in figure_notes(measurement, engine, target, None, "measured")[0]


def test_the_notes_tell_start_memory_energy_and_the_condition_of_the_device() -> None:
    told = a_manifest()
    fields = told.engine.model_dump(exclude={"graph", "run_here"})
    engine = Engine.model_validate({**fields, "folder": Path(), "info": told.device, "parameters": 1, "macs": 1, "runnable": True})
    measured = {"rows": told.metrics, "gates": told.gates, "shipped": "int8", "reason": "fast", "kernels": (), "dense_kernels": (), "contention": 1.0}
    measurement = Measurement.model_validate({**measured, "folder": Path()})
    cool, hot = Condition(governor="performance", clock_mhz=2400, temperature_c=41), Condition(governor="performance", clock_mhz=2400, temperature_c=63)
    conditions = (
        Conditions(before=cool, after=hot, cores=(0, 1), throttled=()),
        Conditions(before=hot, after=hot, cores=(0, 1), throttled=(), repeated=(("under-voltage",),)),
    )
    latency = measurement.shipped_row.latency
    found = Interval(found=0.2, low=0.19, high=0.21, processes=3, spread=0.01)
    fresh = Fresh.model_validate({"percentile": 50, "engine": latency, "reference": None, "processes": (), "interval": found, "contention": 1})
    timing = FreshTiming(folder=Path(), fresh=fresh.model_copy(update={"conditions": conditions}), repetition=1, footprint=a_footprint())
    note = figure_notes(measurement, engine, told.profile.target, timing, "measured")[2]
    assert f" Beside latency: {a_footprint().sentence}." in note
    assert note.endswith(
        " The device meanwhile: at first governor performance, 2400 MHz, 41 °C; at last governor performance, 2400 MHz, 63 °C; "
        "the timing could use the cores 0-1; the device was slowed down (under-voltage); it was repeated 1 time."
    )
    silent = Conditions(before=Condition(), after=Condition(), cores=(3,), throttled=())
    assert describe_conditions([silent]) == "the device does not tell its clock and temperature; the timing could use the core 3"
    assert in_ranges([0, 1, 2, 5, 8, 9]) == "0-2, 5, 8-9"
    assert "meanwhile" not in figure_notes(measurement, engine, told.profile.target, None, "measured")[2]


def a_card(rows: tuple[Row, ...] | None = None, recipe: dict[str, object] | None = None) -> str:
    told = a_manifest()
    decisions = Decisions.model_validate({**told.decisions, "recipe": json.dumps(recipe or {"prune": {"regulariser": {"name": "none"}}})})
    engine = Engine.model_validate(
        {**told.engine.model_dump(exclude={"graph", "run_here"}), "folder": Path(), "info": told.device, "parameters": 1, "macs": 1, "runnable": True}
    )
    measured = {"rows": rows or told.metrics, "gates": told.gates, "shipped": "int8", "reason": "fast", "kernels": (), "dense_kernels": (), "contention": 1.0}
    warning = "nearly all images are of '<b>[x](http://x.example)'"
    measurement = Measurement.model_validate({**measured, "folder": Path(), "warnings": (warning,)})
    final = Checkpoint(folder=Path(), model=ModelConfig(name="resnet8"), num_classes=len(NAMES), image_shape=(1, 8, 8), history=told.history)
    dataset = Dataset(folder=Path(), name="mine:load", preprocess=Preprocess.of((1, 8, 8)), classes=NAMES, sizes={"test": 4}, licence=LICENCE)
    notes = figure_notes(measurement, engine, told.profile.target, None, "measured")
    tables = (ResultsTable(caption="Results by class", headers=("class", "images"), rows=tuple((name, "1") for name in NAMES)),)
    return write_model_card("tiny", engine, measurement, None, final, dataset, told.profile, decisions, told.compatibility, notes, tables)


def test_a_card_has_no_markup_but_its_own() -> None:
    parsed = MarkdownIt("commonmark", {"html": True}).enable("table").parse(a_card())
    found = [child for token in parsed for child in [token, *(token.children or [])]]
    assert {token.content for token in found if token.type in {"html_inline", "html_block"}} == {"<br>"}
    assert not [token for token in found if token.type == "link_open"]
    assert len([token for token in found if token.type == "image"]) == 1
    shown = "".join("\n" if token.content == "<br>" else token.content for token in found if token.type in {"text", "text_special", "html_inline"})
    for text in (*NAMES, LICENCE):
        assert visible(text) in shown
    assert '"a, b"' in shown


def test_a_card_says_that_there_is_no_reference() -> None:
    dense, shipped = a_manifest().metrics
    recipe = {"training": {"reference": "none"}, "prune": {"regulariser": {"name": "group_lasso"}}}
    card = a_card((dense.model_copy(update={"accuracy": None}), shipped), recipe)
    assert "There is no reference: no dense reference was trained, so no accuracy drop is known." in card
    assert "| dense fp32 (untrained) | no reference |" in card
    assert "Accuracy: measured on 400 test images for the shipped engine" in card
    assert " The trunk was trained with the regulariser group_lasso." in card
    assert "There is no reference" not in a_card()


def test_a_card_says_that_the_reference_was_given() -> None:
    card = a_card(recipe={"training": {"reference": "given"}, "prune": {"regulariser": {"name": "none"}}})
    assert "The dense reference is the network with the given weights, before any training here." in card
    assert "given weights" not in a_card()
