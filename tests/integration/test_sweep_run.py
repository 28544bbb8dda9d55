"""Variants of one recipe: a package each, work that they share is done once, and one that fails leaves the others alone."""

import csv
import json
from pathlib import Path

import pytest
from tiny_comparison import SETTINGS, config

from bonsai import compare
from bonsai.pipeline.compare.comparison import Comparison
from bonsai.profiles.errors import ConfigError
from bonsai.stages.store.manifest import MANIFEST

NARROW = config("tiny-narrow")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swept")


@pytest.fixture(scope="module")
def swept(store: Path) -> Comparison:
    return compare(config("tiny"), [NARROW], {**SETTINGS, "prune.criterion": "snip,magnitude_l2", "training.lr": [0.05, 1e30]}, store=store)


@pytest.mark.slow
def test_every_combination_is_an_outcome_and_what_diverges_leaves_the_others_alone(swept: Comparison) -> None:
    names = [f"tiny-narrow--criterion-{criterion}--lr-{rate}" for criterion in ("snip", "magnitude-l2") for rate in ("0.05", "1e30")]
    assert [outcome.profile for outcome in swept.outcomes] == names
    good, failed = swept.outcomes[::2], swept.outcomes[1::2]
    assert all("lower training.lr" in outcome.error and not outcome.package for outcome in failed)
    assert [outcome.package for outcome in good] == [f"tiny--{outcome.profile}" for outcome in good]
    assert good[1].settings == {"prune.criterion": "magnitude_l2", "training.lr": 0.05}
    assert swept.cost.runs == 2


@pytest.mark.slow
def test_variants_that_differ_behind_the_trunk_share_it(swept: Comparison, store: Path) -> None:
    trunks = []
    for outcome in swept.outcomes[::2]:
        lineage = json.loads((store / "packages" / outcome.package / MANIFEST).read_text())["lineage"]
        trunks.append({ancestor["artifact"] for ancestor in lineage if ancestor["artifact"].startswith("train_dense/")})
    assert trunks[0] == trunks[1] != set()
    assert swept.cost.repeated > 0


@pytest.mark.slow
def test_table_and_page_have_a_line_per_variant(swept: Comparison, store: Path) -> None:
    folder = store / "comparisons" / "tiny"
    lines = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert [(line["prune.criterion"], line["training.lr"], line["exit_code"]) for line in lines] == [
        ("snip", "0.05", "0"), ("snip", "1e+30", "1"), ("magnitude_l2", "0.05", "0"), ("magnitude_l2", "1e+30", "1"),
    ]  # fmt: skip
    report = (folder / "report.md").read_text()
    assert report.startswith("# tiny in 4 variants")
    assert all(outcome.profile in report for outcome in swept.outcomes)
    assert Comparison.model_validate_json((folder / "comparison.json").read_text()) == swept


def test_a_value_that_is_not_allowed_ends_the_comparison_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'prune\.criterion' is not usable"):
        compare(config("tiny"), [NARROW], {**SETTINGS, "prune.criterion": "snip,snap"}, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
