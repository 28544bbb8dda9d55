import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_footprint import a_footprint
from tiny_report import a_manifest

from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.errors import VerificationError
from bonsai.stages.reporting.content import Table
from bonsai.stages.reporting.writing import write_reports
from bonsai.stages.tasks.results_table import ResultsTable
from bonsai.stages.tasks.segmentation.judging import SEGMENTATION


class Page(HTMLParser):
    """The headings of a page, its ids, and the text outside of pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.headings: list[tuple[int, str]] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [value for key, value in attrs if key == "id" and value]
        self.labels += (found.get("aria-labelledby") or "").split()
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and re.fullmatch("h[1-6]", self._open[-1]):
            level, text = self.headings.pop()
            self.headings.append((level, text + data))


def written(folder: Path, *packages: PackageManifest, **options: object) -> tuple[str, str]:
    write_reports(folder, packages, title="tiny", **options)  # type: ignore[arg-type]
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return written(tmp_path_factory.mktemp("one"), a_manifest())


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    packages = (a_manifest(), a_manifest("rtx-4090", shipped_ms=0.75, estimated=True), a_manifest("t4", shipped_ms=1.5, estimated=True))
    return written(tmp_path_factory.mktemp("several"), *packages, failures={"jetson": "the budget is too small\n  do:      raise it"})


def test_results_by_class_and_pictures_are_shown_and_safe(tmp_path: Path) -> None:
    table = ResultsTable(caption="IoU by <class>", headers=("class", "IoU"), rows=(("<b>sky", "90.0 %"), ("sea", "-")))
    pictures = SEGMENTATION.pictures(np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 2, 8, 8), np.float32), np.ones((2, 8, 8), np.uint8))
    package = a_manifest().model_copy(update={"tables": (table,), "pictures": pictures})
    html, markdown = written(tmp_path, PackageManifest.model_validate_json(package.model_dump_json()))
    assert "Results in detail" in html
    assert "&lt;b&gt;sky" in html
    assert "<b>sky" not in html
    assert html.count('href="data:image/png;base64,') == 2
    assert html.count("<figcaption>Test image") == 2
    assert "90.0 %" in markdown
    ids = Page(html).ids
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tables": [{"caption": "a", "headers": ["a", "b"], "rows": [["c"]]}]},
        {"pictures": [{"title": "a", "png": '"/><script>', "width": 1, "height": 1}]},
        {"pictures": [{"title": "a", "png": "AAAA", "width": 0, "height": 1}]},
    ],
)
def test_a_table_or_picture_that_no_run_wrote_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PackageManifest.model_validate({**a_manifest().model_dump(), **wrong})


def test_a_report_of_one_package_tells_the_verdict_first_and_every_part(one: tuple[str, str]) -> None:
    html, markdown = one
    assert Page(html).headings == [
        (1, "tiny"),
        (2, "Verdict"),
        (2, "Accuracy against latency"),
        (2, "Widths: asked, dense, kept"),
        (2, "When it was pruned: EPI"),
        (2, "Learning curves"),
        (2, "Latency by operator, before and after"),
        (2, "INT8 coverage"),
        (2, "How the budget was fitted"),
        (2, "Provenance"),
    ]
    assert re.findall("^(#+) (.*)$", markdown, re.MULTILINE) == [("#" * level, text) for level, text in Page(html).headings]
    verdict = "Meets its budget and every gate: 4.00 times as fast as dense FP32, top-1 94.00 %"
    for text in (html, markdown):
        assert text.index(verdict) < text.index("Accuracy against latency")
    assert "95 % interval 92.0 to 96.0 %, 400 images" in html
    assert "estimated from the latency table: 2.00x over dense INT8" in html


def test_markdown_holds_the_numbers_of_every_figure(one: tuple[str, str]) -> None:
    _, markdown = one
    for line in (
        "| **pruned int8 (shipped)** | **94.00 %** | **92.0 to 96.0 %** | **0.500** | **0.750** | **25.00 %** |",
        "| body.conv1 | 64 | 48 | 48 | 75.00 % |",
        "| 4 | 2 | 0.9900 |",
        "| QAT | 5 | 0.2 | 94.00 % |",
        "| body.conv1 | conv 3x3, to 8x8 | 32 to 64 | 16 to 48 | 0.6000 | 0.2500 | 41.67 % |",
        "| QLinearConv | int8 | 2 | 90.0 % |",
        "| untrained network 1 | 0.4800 | 0.4850 | 1.010 | 0.4900 |",
        f"| engine.onnx | {'a' * 64} |",
    ):
        assert line in markdown


def test_an_estimated_latency_is_called_so_wherever_it_is_shown(several: tuple[str, str]) -> None:
    html, markdown = several
    assert 'class="verdict estimated"' in html
    for text in (html, markdown):
        assert "Meets its budget by estimate, and every other gate: about 2.67 times as fast" in text
        assert "Latency is ESTIMATED: the engine was built, but not run" in text
        assert "Latency p50, estimated" in text
    assert "2.00x over dense FP16" in markdown


ELSEWHERE = "measured elsewhere, on Raspberry Pi 5 with onnxruntime 1.31.0, 2026-11-29, by Ada"


def test_an_estimate_by_a_table_that_was_brought_says_where_the_table_was_measured_wherever_it_is_shown(tmp_path: Path) -> None:
    brought = a_manifest("cortex-a76", shipped_ms=0.5, table=ELSEWHERE)
    html, markdown = written(tmp_path, a_manifest("rtx-4090", estimated=True), brought)
    for text in (html, markdown):
        assert f"Latency is ESTIMATED: the engine was built, but not run; latency table {ELSEWHERE}" in text
        assert "Latency p50, estimated, table measured elsewhere" in text
        assert f"Predicted at INT8 by a latency table {ELSEWHERE}" in text
        assert f"Latency table: {ELSEWHERE}." in text
        assert "Predicted at INT8 by published rates (roofline)" in text
    assert "ms (estimated, table measured elsewhere)" in html
    (gate,) = re.findall(r"^\| latency \|.*elsewhere.*$", markdown, re.MULTILINE)
    assert gate.endswith("| estimated, table measured elsewhere |")
    (compared,) = re.findall(r"^\| cortex-a76 \|.*$", markdown, re.MULTILINE)
    assert "4.00x (est., table measured elsewhere)" in compared
    assert compared.endswith("| estimated, table measured elsewhere |")
    assert "latency was measured on this engine" not in markdown.lower()


def test_a_missed_gate_is_the_verdict(several: tuple[str, str]) -> None:
    html, markdown = several
    assert 'class="verdict missed"' in html
    assert "**MISSES latency: about 1.33 times as fast as dense FP32, top-1 94.00 %.**" in markdown
    assert "| **latency** | **MISSED** | **0.75** |" in markdown


WARNING = "the dense network's test top-1 is 10.90%, and always naming the largest class gives 10.00%: train longer, or check the data"


def test_a_verdict_over_a_reference_that_learnt_nothing_is_not_green(tmp_path: Path) -> None:
    manifest = a_manifest()
    latency, drop = manifest.gates
    undecided = manifest.model_copy(update={"gates": (latency, drop.model_copy(update={"verdict": "undecided"})), "warnings": (WARNING,)})
    html, markdown = written(tmp_path, undecided)
    for text in (html, markdown):
        assert 'class="verdict met"' not in text
        assert "Meets its budget" not in text
        assert "accuracy drop UNDECIDED: 4.00 times as fast" in text
        assert re.search("Warning: the dense network.*s test top-1 is 10.90%", text)
    warned = manifest.model_copy(update={"warnings": (WARNING,)})
    html, markdown = written(tmp_path, warned, manifest)
    assert 'class="verdict undecided"' in html
    assert "Meets its budget and every gate, which means little: see the warning" in markdown
    assert "1 of 2 profiles meet their budget and gates, 1 UNDECIDED." in markdown
    assert "| **local-cpu** | **met, with a warning** |" in markdown


def test_every_row_tells_which_part_its_accuracy_is_of(tmp_path: Path) -> None:
    manifest = a_manifest()
    dense, shipped = manifest.metrics
    other = shipped.model_copy(update={"shipped": False, "precision": "fp32", "accuracy": shipped.accuracy.model_copy(update={"part": "validation"})})
    _, markdown = written(tmp_path, manifest.model_copy(update={"metrics": (dense, other, shipped)}))
    lines = [line for line in markdown.splitlines() if line.startswith(("| dense fp32", "| pruned fp32", "| **pruned int8"))]
    assert [line.rstrip("| ").rpartition("| ")[2].strip("*") for line in lines[:3]] == ["test", "validation", "test"]


def test_an_undecided_gate_is_the_verdict_and_no_profile_that_meets_its_budget(tmp_path: Path) -> None:
    html, markdown = written(tmp_path, a_manifest(undecided=True), a_manifest("rtx-4090", estimated=True))
    assert 'class="verdict undecided"' in html
    assert "**latency UNDECIDED: 4.00 times as fast as dense FP32" in markdown
    assert "| **latency** | **UNDECIDED** | **0.25** | **0.2425 to 0.2575** | **0.4** |" in markdown
    assert "| **local-cpu** | **latency UNDECIDED** |" in markdown
    assert "1 of 2 profiles meet their budget and gates, 1 of them by an ESTIMATED latency, 1 UNDECIDED." in markdown


def test_several_packages_are_compared_before_each_is_told(several: tuple[str, str]) -> None:
    html, markdown = several
    page = Page(html)
    assert [text for level, text in page.headings if level == 2] == ["Comparison", "Failed", "tiny--local-cpu", "tiny--rtx-4090", "tiny--t4"]
    assert [level for level, _ in page.headings].count(1) == 1
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.labels) <= set(page.ids)
    assert "| local-cpu | all gates met | 94.00 % | 92.0 to 96.0 % | 0.500 | 0.750 | 4.00x | - |" in markdown
    assert "| rtx-4090 | met, latency by estimate | 94.00 % | 92.0 to 96.0 % | 0.750 | - | 2.67x (est.) | 2.00x (est.) |" in markdown
    assert "| **jetson** | **the budget is too small<br>  do:      raise it** |" in markdown
    assert "2 of 4 profiles meet their budget and gates, 1 of them by an ESTIMATED latency, 1 MISSED a gate, 1 FAILED." in markdown
    assert "took 1.1 minutes" in markdown
    assert "each alone would have made it 3.0" in markdown
    assert "of which 1.0 minutes are the training of the dense trunk" in markdown


def test_a_report_of_failures_alone_is_written_with_its_note(tmp_path: Path) -> None:
    html, markdown = written(tmp_path, failures={"t4": "no"}, note="the trunk cost 3 minutes")
    assert [text for _, text in Page(html).headings] == ["tiny", "Failed"]
    assert "the trunk cost 3 minutes" in html
    assert "| **t4** | **no** |" in markdown


def test_what_a_recipe_or_an_error_says_is_text_and_no_markup(tmp_path: Path) -> None:
    evil = a_manifest().model_copy(update={"quantisation": "<script>alert(1)</script> a|b", "tools": {"<img src=x>": "1"}})
    html, markdown = written(tmp_path, evil, failures={"<b>": "<i>"})
    for markup in ("<script", "<img", "<b>", "<i>"):
        assert markup not in html
        assert markup not in markdown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a\\|b" in markdown


def test_a_page_asks_for_nothing_from_elsewhere(one: tuple[str, str]) -> None:
    html, _ = one
    assert "default-src 'none'" in html
    assert set(re.findall(r"https?://[^\"' )<]+", html)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_same_packages_give_the_same_bytes_and_leave_no_other_file(one: tuple[str, str], tmp_path: Path) -> None:
    assert written(tmp_path, a_manifest()) == one
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "report.md"}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(("1.5", "-"), True), (("12.00 %", "3x (est.)"), True), (("92.0 to 96.0 %",), True), (("-", "-"), False), (("+1 on the images",), False)],
)
def test_a_column_of_numbers_is_told_from_one_of_words(cells: tuple[str, ...], expected: bool) -> None:
    assert Table(caption="c", headers=("h",), rows=tuple((cell,) for cell in cells)).numeric == (expected,)


def without_reference(manifest: PackageManifest) -> PackageManifest:
    dense, shipped = manifest.metrics
    gates = tuple(gate for gate in manifest.gates if gate.name != "accuracy drop")
    return manifest.model_copy(update={"metrics": (dense.model_copy(update={"accuracy": None}), shipped), "gates": gates})


def test_a_report_without_a_reference_says_so_where_its_figure_would_stand(tmp_path: Path) -> None:
    _, markdown = written(tmp_path, without_reference(a_manifest()))
    assert "no dense reference was trained, so no accuracy drop is known" in markdown
    assert "The recipe asks for no dense reference." in markdown
    assert "dense fp32 (untrained) | no reference" in markdown
    assert "95.00 %" not in markdown  # what the reference of the other tests has
    assert "4.00 times as fast as dense FP32" in markdown


def test_a_comparison_of_packages_without_a_reference_has_no_mark_of_it(tmp_path: Path) -> None:
    _, markdown = written(tmp_path, without_reference(a_manifest()), a_manifest("rtx-4090", shipped_ms=0.75, estimated=True))
    assert "A network without a dense reference has no mark for it." in markdown


def test_a_shipped_engine_without_an_accuracy_is_refused(tmp_path: Path) -> None:
    manifest = a_manifest()
    rows = tuple(row.model_copy(update={"accuracy": None}) for row in manifest.metrics)
    with pytest.raises(VerificationError, match="an engine or a network has no accuracy, which only an untrained dense network may lack"):
        written(tmp_path, manifest.model_copy(update={"metrics": rows}))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"reference": "given"}, "The dense reference is the network with the given weights, before any training here."),
        ({"reference": "trained"}, "The dense network is trained to the end for comparison."),
        ({"reference": ["none"]}, "The dense network is trained to the end for comparison."),
        ("none", "The dense network is trained to the end for comparison."),
    ],
)
def test_a_report_says_what_the_reference_is(tmp_path: Path, training: object, said: str) -> None:
    manifest = a_manifest()
    _, markdown = written(tmp_path, manifest.model_copy(update={"recipe": {**manifest.recipe, "training": training}}))
    assert said in markdown


def test_a_channel_that_is_several_outputs_counts_as_many(tmp_path: Path) -> None:
    manifest = a_manifest()
    decisions = manifest.decisions | {"positions": {"stem": 64}}
    _, markdown = written(tmp_path, manifest.model_copy(update={"decisions": decisions}))
    assert "1072 of 2112 channels are kept, in 2 groups" in markdown
    assert "| stem (x 64) | 32 | 16 | 16 | 50.00 % |" in re.sub(" +", " ", markdown)
    assert "(x 64) says that each of its channels is 64 outputs" in markdown


def test_a_group_without_channels_says_that_its_block_is_left_out(tmp_path: Path, one: tuple[str, str]) -> None:
    manifest = a_manifest()
    decisions = manifest.decisions | {"kept_widths": {**manifest.decisions["kept_widths"], "stem": 0}}
    _, markdown = written(tmp_path, manifest.model_copy(update={"decisions": decisions}))
    said = "Of a group that keeps 0 channels, the residual block around it is left out."
    assert said in markdown and said not in one[1]
    assert "| stem | 32 | 16 | 0 | 0.00 % |" in re.sub(" +", " ", markdown)


def test_a_width_below_nothing_is_refused(tmp_path: Path) -> None:
    manifest = a_manifest()
    decisions = manifest.decisions | {"kept_widths": {**manifest.decisions["kept_widths"], "stem": -1}}
    with pytest.raises(VerificationError, match="a width is below 0"):
        written(tmp_path, manifest.model_copy(update={"decisions": decisions}))


def test_a_channel_of_no_outputs_is_refused(tmp_path: Path) -> None:
    manifest = a_manifest()
    decisions = manifest.decisions | {"positions": {"stem": 0}}
    with pytest.raises(VerificationError, match="a dense width, or a number of positions, is not above 0"):
        written(tmp_path, manifest.model_copy(update={"decisions": decisions}))


def test_memory_start_and_energy_of_an_engine_that_was_run_alone_stand_in_the_verdict(tmp_path: Path) -> None:
    plain = a_manifest()
    rows = tuple(row.model_copy(update={"footprint": a_footprint()}) if row.shipped else row for row in plain.metrics)
    _, text = written(tmp_path, plain.model_copy(update={"metrics": rows}))
    assert "12.00 MB" in text
    assert "the process had 60.0 MB without the engine, and 72.0 MB with it" in text
    assert "0.31 s" in text
    assert "5 mJ" in text
    assert "Cold start" not in written(tmp_path, plain)[1]
