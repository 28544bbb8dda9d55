"""Energy by meters that the tests write: counters and sensors below a folder like /sys."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bonsai.stages.backends.energy import LEAST_RUNS, measure_energy
from bonsai.stages.backends.timing_records import Energy, Untold


def write_tree(root: Path, files: Mapping[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def zone(name: str, folder: str, energy: int, most: int = 10**9) -> dict[str, object]:
    place = f"class/powercap/{folder}"
    return {f"{place}/name": name, f"{place}/energy_uj": energy, f"{place}/max_energy_range_uj": most}


def using(root: Path, folder: str, microjoules: int, most: int = 10**9) -> Callable[[], None]:
    """Return a run of an engine that uses so much energy of a counter, which starts again at `most`."""
    counter = root / f"class/powercap/{folder}/energy_uj"
    return lambda: counter.write_text(str((int(counter.read_text()) + microjoules) % most)) and None


def measured(found: Energy | Untold) -> Energy:
    assert isinstance(found, Energy), found
    return found


def test_counters_of_all_cpus_are_added_and_those_of_their_parts_are_not(tmp_path: Path) -> None:
    files = zone("package-0", "intel-rapl:0", 500) | zone("core", "intel-rapl:0:0", 7) | zone("package-1", "intel-rapl:1", 0) | zone("psys", "intel-rapl:2", 0)
    root = write_tree(tmp_path, files)
    runs = [using(root, folder, 3000) for folder in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:2")]
    found = measured(measure_energy(lambda: [run() for run in runs], root, "cpu", seconds=0))
    assert found.millijoules == pytest.approx(6)
    assert found.watts > 0
    assert found.meter == "RAPL, the whole CPU"


def test_a_counter_that_starts_again_meanwhile_is_read_on(tmp_path: Path) -> None:
    root = write_tree(tmp_path, zone("package-0", "intel-rapl:0", 990_000, most=1_000_000))
    found = measured(measure_energy(using(root, "intel-rapl:0", 2000, 1_000_000), root, "cpu", seconds=0))
    assert found.millijoules == pytest.approx(2)


def test_a_counter_that_may_not_be_read_is_no_meter_and_that_is_told(tmp_path: Path) -> None:
    root = write_tree(tmp_path, zone("package-0", "intel-rapl:0", 0))
    (root / "class/powercap/intel-rapl:0/energy_uj").unlink()
    (root / "class/powercap/intel-rapl:0/energy_uj").mkdir()  # reading it fails, whoever asks
    found = measure_energy(lambda: None, root, "cpu", seconds=0)
    assert found == Untold(reason=f"{root}/class/powercap/intel-rapl:0/energy_uj may not be read; on most systems only root may")


def jetson(milliamperes: int, *, board: bool) -> dict[str, object]:
    chip = "class/hwmon/hwmon1"
    files: dict[str, object] = {f"{chip}/name": "ina3221", f"{chip}/in7_label": "Sum of shunt voltages", f"{chip}/in7_input": 9}
    for number, label in enumerate(("VDD_IN" if board else "VDD_GPU_SOC", "VDD_CPU_CV"), 1):
        files |= {f"{chip}/in{number}_label": label, f"{chip}/in{number}_input": 5000, f"{chip}/curr{number}_input": milliamperes}
    return files


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize(("board", "watts"), [(True, 10), (False, 20)])
def test_a_jetson_tells_the_power_of_the_board_or_else_that_of_its_parts(tmp_path: Path, kind: str, board: bool, watts: float) -> None:
    root = write_tree(tmp_path, jetson(2000, board=board))
    found = measured(measure_energy(lambda: None, root, kind, seconds=0.05))  # type: ignore[arg-type]
    assert found.watts == pytest.approx(watts)
    assert found.meter == "INA sensors, the whole board"


def test_an_inference_takes_its_share_of_the_time(tmp_path: Path) -> None:
    import time

    root = write_tree(tmp_path, {"class/hwmon/hwmon0/name": "ina226", "class/hwmon/hwmon0/power1_input": 4_000_000})
    found = measured(measure_energy(lambda: time.sleep(0.005), root, "cpu", seconds=0))
    assert found.watts == pytest.approx(4)
    assert 20 <= found.millijoules < 60, "4 W for 5 ms and what waiting takes more"


def test_a_machine_without_a_meter_says_what_was_looked_for(tmp_path: Path) -> None:
    calls: list[int] = []
    assert measure_energy(lambda: calls.append(1), tmp_path, "cpu") == Untold(
        reason="the machine has no RAPL counter under /sys/class/powercap and no INA sensor under /sys/class/hwmon"
    )
    assert calls == [], "nothing is run for nothing"


def test_rapl_tells_nothing_of_a_gpu(tmp_path: Path) -> None:
    root = write_tree(tmp_path, zone("package-0", "intel-rapl:0", 0))
    assert measure_energy(lambda: None, root, "gpu", seconds=0) == Untold(reason="the machine has no INA sensor under /sys/class/hwmon")


def test_an_engine_is_run_often_enough(tmp_path: Path) -> None:
    calls: list[int] = []
    root = write_tree(tmp_path, zone("package-0", "intel-rapl:0", 0))
    measure_energy(lambda: calls.append(1), root, "cpu", seconds=0)
    assert len(calls) == LEAST_RUNS
