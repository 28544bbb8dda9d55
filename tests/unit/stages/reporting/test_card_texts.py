"""The model card shows what a user called things as text."""

import json
from pathlib import Path

from markdown_it import MarkdownIt
from tiny_report import a_manifest

from bonsai.profiles.errors import visible
from bonsai.stages.backends.engine import Engine
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.decisions import Decisions
from bonsai.stages.measurement.measurements import Measurement
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.reporting.model_card import write_model_card

NAMES = ("two\nlines", "a, b", "<img src=x onerror=alert(1)>", "\u202egnp.exe", "**strong** [x](http://x.example)", "](training.svg)")
LICENCE = "<script>alert(1)</script> mine"


def a_card() -> str:
    told = a_manifest()
    decisions = Decisions.model_validate({**told.decisions, "recipe": json.dumps({"prune": {"regulariser": {"name": "none"}}})})
    engine = Engine.model_validate(
        {**told.engine.model_dump(exclude={"graph", "run_here"}), "folder": Path(), "info": told.device, "parameters": 1, "macs": 1, "runnable": True}
    )
    measured = {"rows": told.metrics, "gates": told.gates, "shipped": "int8", "reason": "fast", "kernels": (), "dense_kernels": (), "contention": 1.0}
    warning = "nearly all images are of '<b>[x](http://x.example)'"
    measurement = Measurement.model_validate({**measured, "folder": Path(), "warnings": (warning,)})
    final = Checkpoint(folder=Path(), model=ModelConfig(name="resnet8"), num_classes=len(NAMES), image_shape=(1, 8, 8), history=told.history)
    dataset = Dataset(folder=Path(), name="mine:load", preprocess=Preprocess.of((1, 8, 8)), classes=NAMES, sizes={"test": 4}, licence=LICENCE)
    return write_model_card("tiny", engine, measurement, None, final, dataset, told.profile, decisions, told.compatibility, told.notes)


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
