from pathlib import Path

import pytest

from bonsai.profiles.budget import Budget
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import SHIPPED, list_profiles, load_profile
from bonsai.profiles.schema import Gates, HardwareProfile


@pytest.mark.parametrize("name", list_profiles())
def test_every_shipped_profile_loads_and_bears_its_files_name(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.width_step >= 1


def test_a_missing_profile_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no profile of this name \(did you mean 'rtx-4090'\?\).*allowed: a10, .*local-cpu"):
        load_profile("rtx4090")


def test_a_missing_profile_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="profile file not found"):
        load_profile("nowhere/none.yaml")


def test_extends_lays_a_file_over_its_parent(tmp_path: Path) -> None:
    child = tmp_path / "mine.yaml"
    child.write_text("extends: local-cpu\nname: mine\nbudget: {latency: 0.5}\n")
    profile = load_profile(str(child))
    assert profile.budget.latency == 0.5
    assert profile.target == load_profile("local-cpu").target


def test_profiles_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="extend each other in a circle"):
        load_profile(str(tmp_path / "a.yaml"))


def test_overrides_reach_the_profile() -> None:
    assert load_profile("local-cpu", {"budget.latency": "0.3"}).budget.latency == 0.3


def test_a_section_given_whole_replaces_the_files_and_its_parents_but_a_childs_file_adds(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(
        "extends: local-cpu\nname: parent\nbudget: {latency: null, latency_ms: 2, size_mb: 3}\ngates: {min_metric: 0.7, max_drop: 0.1}\n"
    )
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nname: child\ngates: {max_drop: 0.05}\n")
    plain = load_profile(str(child))
    assert (plain.gates.max_drop, plain.gates.min_metric, plain.budget.latency_ms, plain.budget.size_mb) == (0.05, 0.7, 2, 3)
    changed = load_profile(str(child), {"budget": "{latency: 0.3}", "gates": "{max_accuracy_drop: 0.2}"})
    assert (changed.budget.latency, changed.budget.latency_ms, changed.budget.size_mb) == (0.3, None, None)
    assert (changed.gates.max_drop, changed.gates.min_metric) == (0.2, None)
    assert load_profile(str(child), {"gates.max_drop": "0.2"}).gates.min_metric == 0.7


@pytest.mark.parametrize("parents", ["max_drop", "max_accuracy_drop"])
@pytest.mark.parametrize("childs", ["max_drop", "max_accuracy_drop"])
@pytest.mark.parametrize("given", ["max_drop", "max_accuracy_drop"])
def test_an_older_name_of_a_gate_still_works_over_either(parents: str, childs: str, given: str, tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(f"extends: local-cpu\nname: parent\ngates: {{{parents}: 0.5, min_metric: 0.7}}\n")
    (tmp_path / "child.yaml").write_text(f"extends: parent.yaml\nname: child\ngates:\n  {childs}: 0.4\n")
    assert load_profile(str(tmp_path / "child.yaml")).gates == Gates(max_drop=0.4, min_metric=0.7)
    assert load_profile(str(tmp_path / "child.yaml"), {f"gates.{given}": "0.3"}).gates.max_drop == 0.3
    packaged = load_profile("local-cpu").model_dump(mode="json") | {"gates": {given: 0.2}}
    assert HardwareProfile.model_validate(packaged).gates.max_drop == 0.2


@pytest.mark.parametrize("given", ["gates.max_size_mb", "budget.size_mb"])
def test_the_size_was_a_gate_and_is_a_part_of_the_budget(given: str, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("extends: local-cpu\nname: old\ngates: {max_size_mb: 3, max_drop: 0.1}\n")
    (tmp_path / "child.yaml").write_text("extends: old.yaml\nname: child\nbudget: {size_mb: 2}\n")
    (tmp_path / "later.yaml").write_text("extends: child.yaml\nname: later\ngates: {max_size_mb: 1}\n")
    assert [load_profile(str(tmp_path / f"{name}.yaml")).budget.size_mb for name in ("old", "child", "later")] == [3, 2, 1]
    assert load_profile(str(tmp_path / "old.yaml"), {given: "0.5"}).budget.size_mb == 0.5
    assert load_profile(str(tmp_path / "old.yaml"), {"gates": "{max_size_mb: 0.5}"}).budget.size_mb == 0.5
    assert str(load_profile(str(tmp_path / "old.yaml")).budget) == "p50 <= 0.25 of the dense network, size <= 3 MB"
    (tmp_path / "both.yaml").write_text("extends: local-cpu\nname: both\ngates: {max_size_mb: 3}\nbudget: {size_mb: 2}\n")
    with pytest.raises(ConfigError, match=r"'gates\.max_size_mb' is the older name of 'budget\.size_mb', and both are set\n.*3, and 2 at .*both\.yaml:4"):
        load_profile(str(tmp_path / "both.yaml"))


def test_a_profile_of_an_older_package_is_read() -> None:
    packaged = load_profile("local-cpu").model_dump(mode="json")
    older = packaged | {"budget": {"latency": 0.25, "latency_ms": None, "percentile": 50}, "gates": {"max_drop": 0.02, "min_metric": None, "max_size_mb": None}}
    assert HardwareProfile.model_validate(older) == load_profile("local-cpu")
    older["gates"] = {"max_drop": 0.02, "max_size_mb": 1.5}
    assert HardwareProfile.model_validate(older).budget.size_mb == 1.5


@pytest.mark.parametrize("key", ["p99_ms", "memory_mb", "size_mb", "energy_mj"])
def test_a_limit_beside_the_latency_is_a_positive_number_and_needs_the_latency(key: str, tmp_path: Path) -> None:
    assert getattr(load_profile("local-cpu", {f"budget.{key}": "2.5"}).budget, key) == 2.5
    with pytest.raises(ConfigError, match=rf"'budget\.{key}' is not usable\n +given: +0\n.*greater than 0"):
        load_profile("local-cpu", {f"budget.{key}": "0"})
    with pytest.raises(ConfigError, match="exactly one of `latency`"):
        load_profile("local-cpu", {"budget": f"{{{key}: 2}}"})


def test_a_fault_under_an_older_name_is_told_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: local-cpu\nname: mine\ngates:\n  max_accuracy_drop: -2\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:4: 'gates.max_drop' is not usable\n +given: +-2"):
        load_profile(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("extends: local-cpu\nname: mine\ngates: {max_accuracy_drop: 0.1, max_drop: 0.2}\n")
    with pytest.raises(ConfigError, match=r"'gates\.max_accuracy_drop' is the older name of 'gates\.max_drop', and both are set"):
        load_profile(str(tmp_path / "mine.yaml"))


def test_a_budget_is_either_relative_or_absolute(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: local-cpu\nname: child\nbudget: {latency: 0.4, latency_ms: 2}\n")
    with pytest.raises(ConfigError, match="exactly one of `latency`"):
        load_profile(str(child))
    with pytest.raises(ConfigError, match="exactly one of `latency`"):
        load_profile("local-cpu", {"budget.latency": "null"})


def test_a_budget_in_one_unit_replaces_a_parents_in_the_other(tmp_path: Path) -> None:
    child, grandchild = tmp_path / "child.yaml", tmp_path / "grandchild.yaml"
    child.write_text("extends: local-cpu\nname: child\nbudget: {latency_ms: 2, percentile: 90}\n")
    grandchild.write_text("extends: child.yaml\nname: grandchild\nbudget: {latency: 0.3}\n")
    assert load_profile(str(child)).budget == Budget(latency_ms=2, percentile=90)
    assert load_profile(str(grandchild)).budget == Budget(latency=0.3, percentile=90)
    assert load_profile(str(grandchild), {"budget.latency_ms": "5"}).budget == Budget(latency_ms=5, percentile=90)
    assert load_profile(str(child), {"budget.percentile": "95"}).budget == Budget(latency_ms=2, percentile=95)


def test_a_device_elsewhere_needs_published_rates(tmp_path: Path) -> None:
    text = (SHIPPED / "rtx-4090.yaml").read_text()
    stripped = "\n".join(line for line in text.splitlines() if not line.strip().startswith("peak:"))
    file = tmp_path / "unknown.yaml"
    file.write_text(stripped)
    with pytest.raises(ConfigError, match="needs `peak`"):
        load_profile(str(file))


def test_a_target_without_a_float_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)'target.precisions' is not usable.*int8.*the dense reference is a float engine"):
        load_profile("local-cpu", {"target.precision": "int8", "target.precisions": "[int8]"})


def test_a_precision_must_be_among_those_of_the_device() -> None:
    with pytest.raises(ConfigError, match=r"(?s)'target.precision' is not usable.*given:   'fp16'.*one of `precisions`: fp32, int8"):
        load_profile("local-cpu", {"target.precision": "fp16"})


def test_every_precision_needs_its_published_rate() -> None:
    with pytest.raises(ConfigError, match=r"`device\.peak` lacks the rate of fp16"):
        load_profile("cortex-a76", {"target.precisions": "[fp16, int8]"})


@pytest.mark.parametrize(
    ("name", "isa"), [("cortex-a72", "[]"), ("local-cpu", "[avx2]"), ("t4", "[avx2]")], ids=["another cpu without", "the host with", "a gpu with"]
)
def test_instruction_sets_are_what_another_cpu_needs(name: str, isa: str) -> None:
    with pytest.raises(ConfigError, match="`isa` is what a cpu other than `host` needs"):
        load_profile(name, {"target.device.isa": isa})


@pytest.mark.parametrize(("budget", "limit"), [(Budget(latency=0.25), 0.5), (Budget(latency_ms=3.0), 3.0)])
def test_limit_is_a_share_of_dense_or_milliseconds(budget: Budget, limit: float) -> None:
    assert budget.limit_ms(dense_ms=2.0) == limit
