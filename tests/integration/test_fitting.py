"""Fitting a device: tables that are brought, precisions that are searched, engines that are off their budget."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bonsai import compress
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.latency import LatencyTable
from bonsai.profiles.shared_tables import origin_of, read_tables, write_tables
from bonsai.stages.backends.machine import read_cpu
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.measurement.latency import TABLE_ELSEWHERE

pytestmark = pytest.mark.slow  # characterises this machine

CONFIGS = Path(__file__).parent / "configs"
TINY, CPU = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu"))


def like_this_machine(name: str) -> str:
    """Return a profile of a device that is not here, and has this machine's instruction sets."""
    isa = ", ".join(read_cpu()[1])
    return (
        f"extends: x86-avx2\nname: {name}\nbudget: {{latency: 0.5}}\ngates: {{max_accuracy_drop: 0.5}}\n"
        f"channel_multiple: {{fp32: 16, fp16: 16, int8: 16}}\ntarget: {{device: {{isa: [{isa}]}}}}\n"
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fitting")


@pytest.fixture(scope="module")
def tables(root: Path) -> list[dict[str, object]]:
    command = ["characterize", TINY, "--profile", CPU, "--store", str(root / "store"), "--out", str(root / "tables"), "--no-steps", "--json", "--by", "Ada"]
    done = subprocess.run([sys.executable, "-m", "bonsai", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "timing 10 untrained networks" in done.stderr
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def searched(root: Path, tables: list[dict[str, object]]) -> Package:
    (package,) = compress(TINY, CPU, {"profile.search_precision": True, "profile.budget.latency": 0.5}, store=root / "store")
    return package


def test_a_device_gets_a_calibrated_table_for_each_precision(tables: list[dict[str, object]]) -> None:
    assert [table["precision"] for table in tables] == ["fp32", "int8"]
    (file,) = {str(table["file"]) for table in tables}
    assert Path(file).name == "tiny--tiny-cpu.csv"
    for table in tables:
        loaded = read_tables(Path(file))[table["precision"]]  # type: ignore[index]
        assert loaded.meta.source == "measured"
        assert (origin_of(loaded).by, origin_of(loaded).recipe) == ("Ada", "tiny")
        assert origin_of(loaded).isa == read_cpu()[1]
        assert list(origin_of(loaded).error) == table["error"]
        assert loaded.meta.line is not None
        assert loaded.meta.spread is not None
        assert loaded.meta.spread >= 1
        mean, largest = table["error"]  # type: ignore[misc]
        assert 0 <= mean <= largest < 0.5


@pytest.mark.long
def test_the_precision_of_best_accuracy_is_shipped_and_all_are_reported(searched: Package) -> None:
    tried = {t.precision: t for t in searched.decisions.tried}
    assert set(tried) == {"fp32", "int8"}
    shipped = [t for t in tried.values() if t.outcome == "shipped"]
    assert len(shipped) == 1
    fitting = [t for t in tried.values() if t.outcome.startswith(("shipped", "meets the gates"))]
    assert not fitting or shipped[0].validation == max(t.validation or 0 for t in fitting)
    report = (searched.folder / "package" / "report.md").read_text()
    assert "Precisions that were tried:" in report
    assert "| untrained network 1 | " in report


@pytest.mark.long
def test_a_table_from_elsewhere_serves_a_device_that_is_not_here(root: Path, tables: list[dict[str, object]], searched: Package) -> None:
    elsewhere = root / "elsewhere.yaml"
    elsewhere.write_text(like_this_machine("elsewhere") + "tables: [tables/tiny--tiny-cpu.csv]\n")
    (package,) = compress(TINY, str(elsewhere), store=root / "store")
    engine = package.rows[-1].latency
    assert engine is not None
    assert (engine.source, engine.clock) == ("estimated", TABLE_ELSEWHERE)
    assert package.gates[0].found <= 0.5
    told = f"a latency table measured elsewhere, on {read_cpu()[0]} with onnxruntime"
    assert f"Latency: ESTIMATED from {told}" in package.notes[2]
    assert ", by Ada. The engine was built, not run" in package.notes[2]
    assert package.gates[0].note == "estimated, table measured elsewhere"
    folder = package.folder / "package"
    assert told in (folder / "report.md").read_text()
    assert "(est., table measured elsewhere)" in (folder / "MODEL_CARD.md").read_text()
    shown = subprocess.run([sys.executable, "-m", "bonsai", "show", str(folder), "--store", str(root / "store")], capture_output=True, text=True, check=True)
    assert f"measured elsewhere, on {read_cpu()[0]}" in shown.stdout


def test_a_plan_by_a_named_table_says_that_it_was_measured_elsewhere(root: Path, tables: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_TABLES", str(root / "tables"))
    profile = root / "planned.yaml"
    profile.write_text(like_this_machine("planned"))
    command = ["run", TINY, "--profile", str(profile), "--table", "tiny--tiny-cpu", "--dry-run", "--store", str(root / "store")]
    done = subprocess.run([sys.executable, "-m", "bonsai", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"(estimated by a latency table measured elsewhere, on {read_cpu()[0]} with onnxruntime" in done.stdout
    assert "(not in this machine)" in done.stdout
    listed = subprocess.run([sys.executable, "-m", "bonsai", "list", "tables"], capture_output=True, text=True, check=True)
    assert "tiny--tiny-cpu          tiny at fp32, int8, 1 thread(s), batch 1; measured elsewhere, on" in listed.stdout


def test_a_table_without_the_dense_reference_is_refused(root: Path, tables: list[dict[str, object]]) -> None:
    int8 = read_tables(Path(str(tables[0]["file"])))["int8"]
    write_tables(root / "half.csv", [int8])
    profile = root / "half.yaml"
    profile.write_text(like_this_machine("half") + "tables: [half.csv]\n")
    with pytest.raises(ConfigError, match="one at fp32 too"):
        compress(TINY, str(profile), store=root / "store")


def test_a_table_of_another_machine_is_refused_where_the_device_is_here(root: Path, tables: list[dict[str, object]]) -> None:
    found = read_tables(Path(str(tables[0]["file"]))).values()
    others = [LatencyTable(table.meta.model_copy(update={"device": "Another CPU"}), table.entries) for table in found]
    write_tables(root / "other.csv", others)
    with pytest.raises(ConfigError, match=r"(?s)measured on another device, and the target's is here.*Another CPU"):
        compress(TINY, CPU, {"profile.tables": [str(root / "other.csv")]}, store=root / "store")


def test_only_the_device_itself_is_characterised(root: Path) -> None:
    command = ["characterize", TINY, "--profile", "rtx-4090", "--store", str(root / "store")]
    done = subprocess.run([sys.executable, "-m", "bonsai", *command], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 5
    assert "cannot be characterised here" in done.stderr
    assert "Traceback" not in done.stderr
