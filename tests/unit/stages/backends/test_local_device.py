import os
from pathlib import Path

import numpy as np
import pytest
from tiny_package import write_graph

from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.backends.device import Device, OperatorPoint, TimingProtocol
from bonsai.stages.backends.devices import DEVICES, device_of
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.local_device import local
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.explanation.layers import read_model
from bonsai.stages.imports.registry import resolve
from bonsai.stages.measurement.sequential import LOOKS

TARGET = load_profile("local-cpu").target.at("fp32")
IMAGES = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
TIMING = TimingConfig(runs=600, block=10, warmup_runs=2, warmup_seconds=0, tries=1)


@pytest.fixture
def engine(tmp_path: Path) -> EngineFile:
    write_graph(tmp_path / "model.onnx")
    built = local.build(tmp_path / "model.onnx", tmp_path, TARGET, (1, 8, 8))
    assert built.coverage["float_convolutions"] == 1
    return EngineFile(file=tmp_path / built.file, target=TARGET)


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_answers_all_that_the_protocol_asks(name: str) -> None:
    device = resolve(name, DEVICES, "device")
    device = device("ssh://nowhere", "python3") if name == "ssh" else device
    verbs = [verb for verb in vars(Device) if not verb.startswith("_")]
    assert verbs == ["describe", "machine", "check_up", "hold", "verify", "build", "run", "open", "time", "operators", "kernels", "kernel_times", "dissect"]
    assert all(callable(getattr(device, verb)) for verb in verbs)


def test_a_target_means_this_machine() -> None:
    assert device_of(TARGET) is local
    assert local.describe(TARGET).present


@pytest.mark.parametrize("untried", [False, True])
def test_batches_of_any_size_are_run_in_order(engine: EngineFile, untried: bool) -> None:
    both = np.concatenate([IMAGES, -IMAGES])
    together, first, second = local.run(engine, [both, both[:1], both[1:]], untried=untried)
    assert together.shape == (2, 3)
    assert np.allclose(together, np.concatenate([first, second]), atol=1e-6)
    assert not np.allclose(first, second)


def test_an_engine_that_is_opened_once_runs_as_often_as_it_is_asked(engine: EngineFile) -> None:
    run = local.open(engine)
    (expected,) = local.run(engine, [IMAGES])
    assert all(np.array_equal(run(IMAGES), expected) for _ in range(2))
    assert len(run(np.concatenate([IMAGES, IMAGES]))) == 2 * len(expected)


def test_a_timing_ends_early_where_the_ratio_is_certain_to_be_above_its_limit(engine: EngineFile) -> None:
    engines = {"reference": engine, "0": engine}
    protocol = TimingProtocol(timing=TIMING, clock="thread_cpu", percentile=50)
    whole = local.time(engines, dict.fromkeys(engines, IMAGES), protocol)
    assert (whole.turns, {values.shape for values in whole.samples.values()}) == (60, {(2, 600)})
    ended = local.time(engines, dict.fromkeys(engines, IMAGES), protocol.model_copy(update={"limit": 0.02}))
    assert ended.turns == LOOKS[0]
    assert {values.shape for values in ended.samples.values()} == {(2, LOOKS[0] * TIMING.block)}
    assert all(0 < nanoseconds < 1e9 for values in ended.samples.values() for nanoseconds in values.ravel()), "both clocks are kept as they were"
    assert local.time(engines, dict.fromkeys(engines, IMAGES), protocol.model_copy(update={"limit": 60.0})).turns == 60


def test_engines_can_be_timed_once(engine: EngineFile) -> None:
    protocol = TimingProtocol(timing=TIMING, clock="wall", percentile=50, once=True)
    found = local.time({"engine": engine}, {"engine": IMAGES}, protocol)
    assert (found.turns, found.samples["engine"].shape) == (60, (2, 600))
    assert (found.samples["engine"] > 0).all()


def test_operators_and_kernels_are_timed(engine: EngineFile) -> None:
    relu = OperatorClass(op="relu", height=8, width=8)
    (found,) = local.operators([OperatorPoint(relu, 16, 16)], TARGET)
    assert (found.entry.operator, found.entry.ci, found.entry.kernels) == (relu, 16, "Relu")
    assert sum(kernel.share for kernel in local.kernels(engine, IMAGES)) == pytest.approx(1)


def test_the_kernels_of_several_engines_are_timed_in_turns_by_the_names_in_their_files(engine: EngineFile) -> None:
    found = local.kernel_times({"one": engine, "other": engine}, dict.fromkeys(("one", "other"), IMAGES))
    nodes = [node.name for node in read_model(engine.file).graph.node]
    assert [kernel.name for kernel in found["one"]] == [kernel.name for kernel in found["other"]] == nodes
    assert {kernel.precision for kernel in found["one"]} == {"float"}
    assert all(kernel.microseconds > 0 for kernel in found["one"])


def test_engines_of_different_images_take_turns_each_with_its_own(engine: EngineFile, tmp_path: Path) -> None:
    larger, shape = tmp_path / "larger", (1, 40, 40)
    larger.mkdir()
    write_graph(larger / "model.onnx", shape=shape)
    built = local.build(larger / "model.onnx", larger, TARGET, shape)
    engines = {"small": engine, "large": EngineFile(file=larger / built.file, target=TARGET)}
    protocol = TimingProtocol(timing=TIMING, clock="thread_cpu", percentile=50, once=True)
    found = local.time(engines, {"small": IMAGES, "large": np.zeros((1, *shape), np.float32)}, protocol).samples
    assert np.median(found["large"][0]) > np.median(found["small"][0])


def test_a_timing_is_told_with_the_condition_of_the_machine_and_repeated_where_it_was_throttled(
    engine: EngineFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, readings = tmp_path / "vcgencmd", tmp_path / "readings"
    program.write_text(f'#!/bin/sh\necho >> {readings}\n[ "$(wc -l < {readings})" = 2 ] && echo throttled=0x4 || echo throttled=0x0\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("bonsai.stages.backends.condition.COOL_SECONDS", 0.0)
    protocol = TimingProtocol(timing=TIMING, clock="wall", percentile=50, once=True)
    found = local.time({"engine": engine}, {"engine": IMAGES}, protocol)
    assert found.conditions is not None
    assert (found.conditions.repeated, found.conditions.throttled) == ((("throttled",),), ())
    assert found.conditions.cores == tuple(sorted(os.sched_getaffinity(0)))
    assert len(readings.read_text()) == 4, "before and after each of two tries"
    assert found.alone is not None
