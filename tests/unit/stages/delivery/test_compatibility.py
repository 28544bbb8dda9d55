import pytest
from tiny_package import a_machine, needs

from bonsai.stages.backends.machine import Gpu
from bonsai.stages.delivery.compatibility import find_absence, list_differences, runtime_difference, versions_like

RTX_4090, A10G, L40S = Gpu("NVIDIA GeForce RTX 4090", "8.9", "GPU-1"), Gpu("NVIDIA A10G", "8.6", "GPU-2"), Gpu("NVIDIA L40S", "8.9", "GPU-3")
HOST = needs(device="AMD EPYC", isa=("avx2", "avx512f"), present=True, runtime_version="1.31.1")
OLD_HOST = needs(device="old CPU", isa=("avx2",), present=True, runtime_version="1.31.1")
A10 = needs("a10", device="A10", driver="550.54.15", present=True)
RTX = needs("rtx-4090")


def first(needed: object, here: object) -> str:
    return next(list_differences(needed, here))  # type: ignore[arg-type]


def test_an_engine_for_the_host_needs_its_system_architecture_and_instructions() -> None:
    assert (HOST.system, HOST.architecture, HOST.isa, HOST.excluded_isa) == ("Linux", "x86_64", ("avx2", "avx512f"), ())
    assert (HOST.runtime, HOST.built_with, HOST.runtime_versions) == ("onnxruntime", "1.31.1", "==1.31.*")
    assert (HOST.threads, HOST.batch, HOST.sm, HOST.driver) == (1, (1, 1), None, None)
    assert list(list_differences(HOST, a_machine())) == []


def test_an_engine_for_another_cpu_needs_its_instructions_on_any_system() -> None:
    needed = needs("cortex-a72")
    assert (needed.system, needed.architecture, needed.isa) == (None, "aarch64", ("asimd",))
    assert list(list_differences(needed, a_machine(system="Darwin", architecture="aarch64", isa=("asimd", "asimddp")))) == []


def test_an_engine_of_tensorrt_needs_its_gpu_and_system_and_one_of_tensorrt_rtx_its_gpu() -> None:
    assert (A10.system, A10.sm, A10.device, A10.driver, A10.batch) == ("Linux", "8.6", "A10", "550.54.15", (1, 32))
    assert (RTX.system, RTX.architecture, RTX.sm, RTX.driver, RTX.batch) == (None, None, "8.9", None, (1, 32))


@pytest.mark.parametrize(
    ("runtime", "version", "versions", "others"),
    [
        ("onnxruntime", "1.31.1", "==1.31.*", ["1.30.0", "1.32.0", "2.31.1"]),
        ("tensorrt", "10.3.0", "==10.3.0", ["10.3.1", "10.4.0"]),
        ("tensorrt-rtx", "1.7.1.116", "==1.7.1.116", ["1.7.1.117", "1.8.0"]),
        ("some-runtime", "2.0", "==2.0", ["2.0.1"]),
    ],
)
def test_an_engine_is_valid_for_what_its_runtime_promises(runtime: str, version: str, versions: str, others: list[str]) -> None:
    assert versions_like(runtime, version) == versions
    needed = HOST.model_copy(update={"runtime": runtime, "built_with": version, "runtime_versions": versions})
    assert runtime_difference(needed, version) is None
    for other in others:
        found = runtime_difference(needed, other)
        assert found is not None
        assert f"given:   {other}\n  allowed: {versions} (built with {version})\n  do:      pip install '{runtime}{versions}'" in found


def test_a_patch_release_of_onnxruntime_is_accepted() -> None:
    assert runtime_difference(HOST, "1.31.7") is None


@pytest.mark.parametrize(
    ("facts", "problem", "given"),
    [
        ({"system": "Windows"}, "the operating system is another", "Windows\n  allowed: Linux"),
        ({"architecture": "aarch64"}, "the CPU has another architecture", "aarch64\n  allowed: x86_64"),
        ({"isa": ("avx2",)}, "the CPU lacks avx512f", "some CPU: avx2\n  allowed: a CPU with avx2, avx512f"),
        ({"cores": 0}, "fewer cores", "0\n  allowed: at least 1"),
    ],
    ids=["system", "architecture", "isa", "cores"],
)
def test_each_difference_of_a_cpu_is_named(facts: dict[str, object], problem: str, given: str) -> None:
    difference = first(HOST, a_machine(**facts))
    assert problem in difference
    assert f"given:   {given}" in difference


def test_weights_that_avx2_laid_out_are_not_for_avx512() -> None:
    assert OLD_HOST.excluded_isa == ("avx512f",)
    assert "the CPU has avx512f" in first(OLD_HOST, a_machine())
    assert list(list_differences(OLD_HOST, a_machine(isa=("avx2", "avx_vnni")))) == []


@pytest.mark.parametrize(
    ("gpus", "driver", "problem"),
    [
        ((A10G,), "560.1", "no GPU has the compute capability"),
        ((A10G, L40S), "560.1", "no GPU is of the model"),
        ((A10G, RTX_4090), "550.54.14", "NVIDIA's driver is older"),
    ],
    ids=["sm", "model", "driver"],
)
def test_each_difference_of_a_gpu_is_named(gpus: tuple[Gpu, ...], driver: str, problem: str) -> None:
    needed = RTX.model_copy(update={"driver": "550.54.15"})
    assert problem in first(needed, a_machine(gpus=gpus, driver=driver))


@pytest.mark.parametrize("driver", ["550.54.15", "550.100", "560.1"])
def test_the_gpu_itself_with_as_new_a_driver_passes(driver: str) -> None:
    assert list(list_differences(RTX.model_copy(update={"driver": "550.54.15"}), a_machine(gpus=(A10G, RTX_4090), driver=driver))) == []


def test_only_what_a_machine_has_nothing_of_is_absent() -> None:
    assert find_absence(RTX, a_machine()) == "GeForce RTX 4090 is not in this machine, nor any other NVIDIA GPU"
    assert find_absence(RTX, a_machine(gpus=(A10G,))) is None
    assert find_absence(needs("cortex-a72"), a_machine()) == "Cortex-A72 (Raspberry Pi 4) is not in this machine, whose CPU is x86_64"
    assert find_absence(needs("x86-amx"), a_machine()) is None
    assert find_absence(HOST, a_machine(architecture="aarch64")) is None  # it was run on such a machine as it needs: another one differs


def test_the_sentence_says_all_that_is_needed() -> None:
    assert HOST.sentence == "onnxruntime ==1.31.*, Linux x86_64, avx2, avx512f, 1 CPU thread(s); built for 1 image per inference"
    assert OLD_HOST.sentence == "onnxruntime ==1.31.*, Linux x86_64, avx2, without avx512f, 1 CPU thread(s); built for 1 image per inference"
    expected = "tensorrt ==10.3.0, Linux x86_64, A10 (sm 8.6), NVIDIA driver 550.54.15 or newer, 1 CPU thread(s); built for 1 to 32 images per inference"
    assert A10.sentence == expected
