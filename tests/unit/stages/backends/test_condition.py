"""The condition of a machine, read from folders and programs that the tests write."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bonsai.stages.backends.condition import REPEATS, read_condition, throttled_between, watched
from bonsai.stages.backends.timing_records import Condition, Conditions


def write_tree(root: Path, files: Mapping[str, object]) -> Path:
    """Write a folder like /sys: a text for every path."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def core(number: int, *, clock: int, limit: int, most: int = 2_400_000, governor: str = "ondemand") -> dict[str, object]:
    folder = f"devices/system/cpu/cpu{number}/cpufreq"
    return {
        f"{folder}/scaling_governor": governor,
        f"{folder}/scaling_cur_freq": clock,
        f"{folder}/scaling_max_freq": limit,
        f"{folder}/cpuinfo_max_freq": most,
    }


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which the machine's programs are looked for; it is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write_program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_governor_clock_and_temperature_are_read_where_the_system_tells_them(tmp_path: Path, programs: Path) -> None:
    files = core(0, clock=1_000_000, limit=2_000_000) | core(1, clock=2_000_000, limit=1_800_000, governor="performance")
    files |= {"class/thermal/thermal_zone0/temp": 51_200, "class/thermal/thermal_zone1/temp": 63_900}
    found = read_condition(write_tree(tmp_path / "sys", files))
    assert found == Condition(governor="ondemand, performance", clock_mhz=1500, limit_mhz=1800, most_mhz=2400, temperature_c=63.9)
    assert found.sentence == "governor ondemand, performance, 1500 MHz of 1800, the CPU could run at 2400 MHz, 64 °C"


def test_a_system_that_tells_nothing_gives_an_empty_condition(tmp_path: Path, programs: Path) -> None:
    assert read_condition(tmp_path) == Condition()
    assert Condition().sentence == ""
    assert throttled_between(Condition(), Condition()) == ()


def test_a_file_that_its_driver_refuses_or_garbles_counts_as_untold(tmp_path: Path, programs: Path) -> None:
    files = {"class/thermal/thermal_zone0/temp": "no number", "devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}
    root = write_tree(tmp_path / "sys", files)
    (root / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").mkdir()  # reading it fails
    assert read_condition(root) == Condition(governor="powersave")


@pytest.mark.parametrize(
    ("kind", "state", "throttled"), [("thermal-cpufreq-0", 3, True), ("Processor", 1, True), ("pwm-fan", 3, False), ("Processor", 0, False)]
)
def test_a_cooling_device_that_lowers_a_clock_is_told_and_a_fan_is_not(tmp_path: Path, programs: Path, kind: str, state: int, throttled: bool) -> None:
    folder = "class/thermal/cooling_device0"
    found = read_condition(write_tree(tmp_path / "sys", {f"{folder}/type": kind, f"{folder}/cur_state": state}))
    reasons = (f"cooled by a lower clock ({kind})",) if throttled else ()
    assert found.throttling == reasons
    assert throttled_between(Condition(), found) == throttled_between(found, Condition()) == reasons


def test_counters_of_x86_tell_by_their_difference_alone(tmp_path: Path, programs: Path) -> None:
    def counts(core: int, package: int) -> Condition:
        folder = "devices/system/cpu/cpu0/thermal_throttle"
        return read_condition(write_tree(tmp_path / "sys", {f"{folder}/core_throttle_count": core, f"{folder}/package_throttle_count": package}))

    before = counts(7, 20)
    assert throttled_between(before, counts(7, 20)) == ()
    assert throttled_between(before, counts(7, 21)) == ("the CPU was too hot",)
    assert throttled_between(before, counts(9, 20)) == ("a core was too hot",)


def test_a_limit_that_falls_meanwhile_is_told(tmp_path: Path, programs: Path) -> None:
    before, after = (read_condition(write_tree(tmp_path / "sys", core(0, clock=1_500_000, limit=limit))) for limit in (2_400_000, 1_500_000))
    assert throttled_between(before, after) == ("the clock's limit fell from 2400 to 1500 MHz",)
    assert throttled_between(after, before) == ()


def test_a_jetson_tells_of_too_much_current(tmp_path: Path, programs: Path) -> None:
    before, after = (read_condition(write_tree(tmp_path / "sys", {"class/hwmon/hwmon2/oc1_event_cnt": count})) for count in (0, 4))
    assert throttled_between(before, after) == ("the board drew too much current",)


@pytest.mark.parametrize(
    ("bits", "now", "since_before"),
    [
        ("0x0", (), ()),
        ("0x50005", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("0x80000", (), ("the soft temperature limit is reached",)),  # it occurred and is over
    ],
)
def test_a_raspberry_pi_tells_what_is_and_what_was(tmp_path: Path, programs: Path, bits: str, now: tuple[str, ...], since_before: tuple[str, ...]) -> None:
    write_program(programs, "vcgencmd", "echo throttled=0x0")
    before = read_condition(tmp_path)
    write_program(programs, "vcgencmd", f'[ "$1" = get_throttled ] && echo throttled={bits}')
    after = read_condition(tmp_path)
    assert after.throttling == now
    assert throttled_between(before, after) == since_before
    assert not set(throttled_between(after, after)) - set(now), "what occurred before the first reading is no news"


def test_a_program_that_fails_counts_as_missing(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "vcgencmd", "echo throttled=0x5; exit 255")
    write_program(programs, "nvidia-smi", "exit 9")
    assert read_condition(tmp_path, gpu=True) == Condition()


def test_a_gpu_is_asked_for_clock_temperature_and_reasons(tmp_path: Path, programs: Path) -> None:
    def smi(active: str, microseconds: int) -> Condition:
        script = f'case "$1" in *counters*) echo "{microseconds} us, 0 us, [N/A]";; *) echo "1410 MHz, 1980 MHz, 67, {active}";; esac'
        write_program(programs, "nvidia-smi", script)
        return read_condition(tmp_path, gpu=True)

    before = smi("0x0000000000000004", 100)  # at its power limit, as many GPUs always are
    assert before.gpus[0].model_dump() == {"clock_mhz": 1410, "most_mhz": 1980, "temperature_c": 67}
    assert before.sentence == "GPU 1410 MHz, 67 °C"
    assert throttled_between(before, before) == ()
    assert throttled_between(before, smi("0x0000000000000004", 250)) == ("GPU: sw thermal slowdown",)
    assert throttled_between(before, smi("0x0000000000000048", 100)) == ("GPU: hardware slowdown", "GPU: hardware thermal slowdown")
    assert read_condition(tmp_path).gpus == (), "nobody asked for it"


def test_a_condition_survives_json(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "vcgencmd", "echo throttled=0x50005")
    found = read_condition(write_tree(tmp_path / "sys", core(0, clock=1_000_000, limit=2_000_000)))
    assert Condition.model_validate_json(found.model_dump_json()) == found


def scripted(*readings: Condition) -> Callable[[], Condition]:
    each = iter(readings)
    return lambda: next(each)


HOT, COOL = Condition(throttling=("under-voltage",)), Condition(temperature_c=40)


def test_a_timing_on_a_quiet_machine_is_made_once_with_both_readings() -> None:
    waits: list[float] = []
    result, conditions = watched(lambda: "samples", scripted(COOL, Condition(temperature_c=50)), pause=waits.append)
    assert (result, waits) == ("samples", [])
    assert (conditions.before.temperature_c, conditions.after.temperature_c) == (40, 50)
    assert (conditions.throttled, conditions.repeated, conditions.warning) == ((), (), "")
    assert conditions.cores
    assert set(conditions.cores) <= set(range(os.cpu_count() or 1))


def test_a_timing_that_was_throttled_is_repeated_after_a_pause() -> None:
    waits, results = list[float](), iter(["slow", "fast"])
    result, conditions = watched(lambda: next(results), scripted(COOL, HOT, COOL, COOL), pause=waits.append)
    assert (result, waits) == ("fast", [10.0])
    assert (conditions.throttled, conditions.repeated) == ((), (("under-voltage",),))
    assert conditions.warning == "the device was slowed down (under-voltage); it was repeated 1 time"


def test_a_machine_that_stays_throttled_is_believed_after_the_last_repeat_and_that_is_told() -> None:
    results = iter(range(9))
    result, conditions = watched(lambda: next(results), lambda: HOT, pause=lambda seconds: None)
    assert result == REPEATS == 2
    assert conditions.warning == "the device was slowed down (under-voltage); it was repeated 2 times, and the last try counts although it was slowed down too"
    assert Conditions.model_validate_json(conditions.model_dump_json()) == conditions
