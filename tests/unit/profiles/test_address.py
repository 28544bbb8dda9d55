"""The address of a device: what is one, and that no key and no package holds it."""

import pytest

from bonsai.profiles.address import require_address, require_python
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile, load_remote
from bonsai.profiles.schema import HardwareProfile, Target

SSH = "ssh://pi@kitchen.local"


@pytest.mark.parametrize("address", [SSH, "ssh://kitchen", "ssh://10.0.0.7:2222", "ssh://root@[::1]:22", "ssh://a_b@my-pi"])
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert load_profile("cortex-a76", {"target.device.address": address}).target.device.address == address
    assert require_address(address) == address


@pytest.mark.parametrize(
    "address",
    ["pi@kitchen", "http://kitchen", "ssh://", "ssh://pi:secret@kitchen", "ssh://-oProxyCommand=id", "ssh://kitchen/path", "ssh://kitchen:70000", "ssh://a b"],
)
def test_what_is_no_address_is_refused_when_the_profile_is_loaded(address: str) -> None:
    with pytest.raises(ConfigError, match=r"target\.device\.address[\s\S]*ssh://\[user@\]host\[:port\]"):
        load_profile("cortex-a76", {"target.device.address": address})
    with pytest.raises(ConfigError, match="not the address of a device"):
        require_address(address)


@pytest.mark.parametrize("python", ["-c", "python; rm -rf /", "$(id)", "~root/python", "", "a;b"])
def test_what_is_no_path_of_a_python_is_refused(python: str) -> None:
    with pytest.raises(ConfigError, match=r"target\.device\.python"):
        load_profile("cortex-a76", {"target.device.python": python})
    with pytest.raises(ConfigError, match="not the path of a Python"):
        require_python(python)


def test_neither_keys_nor_files_hold_an_address() -> None:
    here, there = load_profile("cortex-a76"), load_profile("cortex-a76", {"target.device.address": SSH, "target.device.python": "~/other/python"})
    assert here.identity() == there.identity()
    assert here.target.identity() == there.target.identity()
    assert "kitchen" not in there.model_dump_json()
    assert HardwareProfile.model_validate_json(there.model_dump_json()).target.device.address is None


def test_a_target_can_be_reached_where_another_is() -> None:
    there = load_profile("cortex-a76", {"target.device.address": SSH}).target
    moved = load_profile("local-cpu").target.on_device_of(there)
    assert (moved.device.address, moved.device.name) == (SSH, "host")


def test_a_device_measures_its_cpu_as_its_own_and_a_gpu_by_name() -> None:
    cpu = load_profile("cortex-a76", {"target.device.address": SSH}).target.as_there()
    assert (cpu.device.is_host, cpu.device.isa, cpu.device.address) == (True, (), None)
    assert Target.model_validate(cpu.model_dump()) == cpu
    gpu = load_profile("t4", {"target.device.address": SSH}).target.as_there()
    assert (gpu.device.name, gpu.device.address) == (load_profile("t4").target.device.name, None)


def test_a_profile_without_an_address_is_refused_where_one_is_needed() -> None:
    with pytest.raises(ConfigError, match="profile local-cpu: its device has no address"):
        load_remote("local-cpu")
