from pathlib import Path

import pytest

from profiles.errors import ConfigError
from profiles.loader import SHIPPED, list_profiles, load_profile
from profiles.schema import Budget


@pytest.mark.parametrize("name", list_profiles())
def test_every_shipped_profile_loads_and_bears_its_files_name(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.width_step >= 1


def test_a_missing_profile_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no profile of this name \(did you mean 'rtx-4090'\?\).*allowed: local-cpu"):
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


def test_a_budget_is_either_relative_or_absolute() -> None:
    with pytest.raises(ConfigError, match="exactly one of `latency`"):
        load_profile("local-cpu", {"budget.latency_ms": "2"})


def test_a_device_elsewhere_needs_published_rates(tmp_path: Path) -> None:
    text = (SHIPPED / "rtx-4090.yaml").read_text()
    stripped = "\n".join(line for line in text.splitlines() if not line.strip().startswith("peak:"))
    file = tmp_path / "unknown.yaml"
    file.write_text(stripped)
    with pytest.raises(ConfigError, match="needs `peak`"):
        load_profile(str(file))


@pytest.mark.parametrize(("budget", "limit"), [(Budget(latency=0.25), 0.5), (Budget(latency_ms=3.0), 3.0)])
def test_limit_is_a_share_of_dense_or_milliseconds(budget: Budget, limit: float) -> None:
    assert budget.limit_ms(dense_ms=2.0) == limit
