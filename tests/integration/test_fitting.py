"""Fitting a device: tables that are brought, precisions that are searched, engines that are off their budget."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bonsai import compress
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.latency import LatencyTable
from bonsai.stages.delivery.package_record import Package

pytestmark = pytest.mark.slow  # characterises this machine

CONFIGS = Path(__file__).parent / "configs"
TINY, CPU = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fitting")


@pytest.fixture(scope="module")
def tables(root: Path) -> list[dict[str, object]]:
    command = ["characterize", TINY, "--profile", CPU, "--store", str(root / "store"), "--out", str(root / "tables"), "--no-steps", "--json"]
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
    for table in tables:
        loaded = LatencyTable.load(Path(str(table["file"])))
        assert loaded.meta.source == "measured"
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
    assert "| untrained network 1, upper end |" in report


@pytest.mark.long
def test_a_table_from_elsewhere_serves_a_device_that_is_not_here(root: Path, tables: list[dict[str, object]], searched: Package) -> None:
    elsewhere = root / "elsewhere.yaml"
    names = "\n".join(f"  - tables/{Path(str(table['file'])).name}" for table in tables)
    elsewhere.write_text(
        "extends: x86-avx512-vnni\nname: elsewhere\nbudget: {latency: 0.5}\ngates: {max_accuracy_drop: 0.5}\n"
        f"channel_multiple: {{fp32: 16, fp16: 16, int8: 16}}\ntables:\n{names}\n"
    )
    (package,) = compress(TINY, str(elsewhere), store=root / "store")
    engine = package.rows[-1].latency
    assert engine is not None
    assert (engine.source, engine.clock) == ("estimated", "latency table")
    assert package.gates[0].found <= 0.5
    assert "a latency table that was measured on the device" in package.notes[2]


def test_a_table_without_the_dense_reference_is_refused(root: Path, tables: list[dict[str, object]]) -> None:
    int8 = next(str(table["file"]) for table in tables if table["precision"] == "int8")
    with pytest.raises(ConfigError, match="one at fp32 too"):
        compress(TINY, "x86-avx512-vnni", {"profile.tables": [int8]}, store=root / "store")


def test_only_the_device_itself_is_characterised(root: Path) -> None:
    command = ["characterize", TINY, "--profile", "rtx-4090", "--store", str(root / "store")]
    done = subprocess.run([sys.executable, "-m", "bonsai", *command], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 5
    assert "cannot be characterised here" in done.stderr
    assert "Traceback" not in done.stderr
