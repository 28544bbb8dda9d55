from pathlib import Path

from bonsai.stages.explanation.records import Explanation, Finding, LayerRow
from bonsai.stages.reporting.explanation import table_of, texts_of, write_explanation

FINDING = Finding(layer="head", kind="bias", place="engine", seen="it has no bias", do="build the engine again")
LAYERS = (
    LayerRow(name="stem", op="Conv", float_us=2, engine_us=3, kernels=("QLinearConv",), rounding=0.0123, engine=0.0, reached=0.0123, effect=0.002),
    LayerRow(name="<b>sum", op="Add", rounding=0.01, engine=0.0, reached=0.01, effect=0.02),
    LayerRow(name="head", op="Conv", float_us=4, engine_us=9, rounding=0.01, engine=0.5, reached=0.5, effect=0.001),
)


def told(*findings: Finding, layers: tuple[LayerRow, ...] = LAYERS) -> Explanation:
    return Explanation(
        package="tiny",
        precision="int8",
        images=3,
        layers=layers,
        findings=findings,
        worth_a_try=("stem: slow.",),
        outputs={"rounding": 0.01, "engine": 0.2},
        accuracy=("dense fp32: top-1 95.00%",),
        notes=("A note.",),
    )


def test_the_verdict_names_the_layers_or_where_most_of_the_error_is_from() -> None:
    assert told().verdict == "No layer stands out. Most of the error comes from <b>sum: 2.0% of the outputs."
    assert told(FINDING).verdict == "1 layer stands out: head."
    assert told(FINDING, FINDING.model_copy(update={"layer": "stem"})).verdict == "2 layers stand out: head, stem."
    assert told(layers=(LayerRow(name="stem", op="Conv"),)).verdict == "No layer stands out."


def test_the_sentences_tell_fault_and_remedy_then_what_else_is_known() -> None:
    assert texts_of(told(FINDING)) == (
        "1 layer stands out: head.",
        "head: bias in the engine: it has no bias. Do: build the engine again.",
        "Worth a try: stem: slow.",
        "Differences at the outputs, over their size: model.onnx beside its float form 1.00%; the engine beside model.onnx 20.00%.",
        "Accuracy by step: dense fp32: top-1 95.00%",
        "A note.",
    )


def test_the_table_leaves_out_what_is_not_known_of_any_layer() -> None:
    table = table_of(told(FINDING))
    expected = ("layer", "operator", "float us", "int8 us", "of engine", "rounding adds", "engine adds", "reached", "moves outputs", "stands out")
    assert table.headers == expected
    assert table.rows[0] == ("stem", "Conv", "2", "3", "25 %", "1.23 %", "0.00 %", "1.23 %", "0.20 %", "")
    assert table.rows[1][2:5] == ("-", "-", "-")
    assert table.rows[2][-1] == "bias"
    assert table.strong == (2,)
    assert table_of(told(layers=(LayerRow(name="stem", op="Conv"),))).headers == ("layer", "operator", "stands out")


def test_the_page_has_table_and_figure_and_escapes_names(tmp_path: Path) -> None:
    write_explanation(tmp_path, told(FINDING))
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert "<title>Why is tiny slow, where was accuracy lost? - Bonsai</title>" in page
    assert page.count("<svg") == 1
    assert "<b>sum" not in page
    assert "&lt;b&gt;sum" in page
    assert "**head** | **Conv**" in text
    assert "head: bias in the engine" in text
