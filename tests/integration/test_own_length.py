"""A recovery of a length of its own, in a whole run: what it took stands in the card, the report and the manifest."""

import json
from pathlib import Path

import pytest
from tiny_comparison import SETTINGS, config

from bonsai import compress
from bonsai.stages.delivery.contents import CARD, REPORTS
from bonsai.stages.store.manifest import MANIFEST

AUTO = {**SETTINGS, "prune.recover": "{epochs: auto, most: 12}", "training.lr": 0.02, "profile.gates.max_drop": 0.0}
"""A short training, so that the first round is below the dense network or level with it."""


@pytest.mark.slow
def test_what_a_recovery_took_is_told_and_a_repeated_run_trains_nothing(tmp_path: Path) -> None:
    (package,) = compress(config("tiny"), config("tiny-narrow"), AUTO, store=tmp_path)
    found = package.decisions.recovery
    assert found is not None
    assert found.least <= found.kept <= found.epochs <= found.most == 12
    assert found.cost >= found.plain_cost
    folder = tmp_path / "packages" / package.name
    sentence = found.sentence(package.metric)
    assert sentence in (folder / CARD).read_text()
    assert all(sentence in (folder / name).read_text() for name in REPORTS if name.endswith(".md"))
    assert json.loads((folder / MANIFEST).read_text())["decisions"]["recovery"]["ended"] == found.ended
    branch = [line for line in json.loads((folder / MANIFEST).read_text())["history"] if line["phase"] == "branch"]
    assert len(branch) == found.kept
    recovered = sorted((tmp_path / "recover").iterdir())
    compress(config("tiny"), config("tiny-narrow"), AUTO, store=tmp_path)
    assert sorted((tmp_path / "recover").iterdir()) == recovered


@pytest.mark.slow
def test_a_recovery_of_a_fixed_length_does_not_depend_on_the_gates(tmp_path: Path) -> None:
    for drop in (0.5, 0.4):
        (package,) = compress(config("tiny"), config("tiny-narrow"), {**SETTINGS, "profile.gates.max_drop": drop}, store=tmp_path)
        assert package.decisions.recovery is None
    assert len(list((tmp_path / "recover").iterdir())) == 1
