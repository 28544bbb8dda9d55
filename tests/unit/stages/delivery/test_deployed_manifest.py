"""A package of `bonsai.deploy` is told apart from one that a run made."""

import json
from pathlib import Path

import pytest
from tiny_package import make_package

from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.contents import read_any_intact, read_intact, require_recipe, seal
from bonsai.stages.delivery.deployed import Closeness, DeployedManifest, NetworkFacts, ScoredRow
from bonsai.stages.delivery.packed_facts import PackedFacts
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.errors import VerificationError
from bonsai.stages.reporting.deployed_card import write_deployed_card
from bonsai.stages.store.manifest import MANIFEST


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a package whose manifest is one of `bonsai.deploy`."""
    made = read_intact(make_package(tmp_path))
    counts = {"parameters": 208, "macs": 9216}
    facts = NetworkFacts(name="Net", structure="a" * 64, weights="b" * 64)
    seal(
        tmp_path,
        DeployedManifest(
            **{name: getattr(made, name) for name in PackedFacts.model_fields if name not in {"files", "warnings"}},
            warnings=("No dense reference was given, so no drop of the score is judged.",),
            score="mAP | 0.5",
            higher_is_better=True,
            rows=(ScoredRow(what="torch", precision="fp32", score=0.5, **counts), ScoredRow(what="shipped engine", precision="fp32", score=0.5, **counts)),
            graph_parity=(Closeness(output="logits", mean=0.001, largest=0.002),),
            engine_parity=(Closeness(output="logits", mean=0.003, largest=0.004),),
            samples=64,
            network=facts,
            reference=None,
            timing=TimingConfig(),
            notes=("Score: one number.",),
        ),
    )
    return tmp_path


def test_it_is_verified_as_any_package(folder: Path) -> None:
    assert isinstance(read_any_intact(folder), DeployedManifest)
    assert "gives the golden outputs of 3 images" in verify_package(folder)[-1]


def test_what_needs_a_recipe_refuses_it(folder: Path) -> None:
    for read in (read_intact, require_recipe):
        with pytest.raises(VerificationError, match=r"made by bonsai.deploy, so it has no recipe"):
            read(folder)


def test_what_a_run_made_has_a_recipe(tmp_path: Path) -> None:
    require_recipe(make_package(tmp_path))


def test_a_manifest_that_lacks_a_part_is_refused(folder: Path) -> None:
    facts = json.loads((folder / MANIFEST).read_text())
    del facts["rows"]
    (folder / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(VerificationError, match="rows"):
        read_any_intact(folder)


def test_its_card_has_verdict_figures_and_warning_in_words(folder: Path) -> None:
    manifest = read_any_intact(folder)
    assert isinstance(manifest, DeployedManifest)
    card = write_deployed_card(manifest)
    assert f"**Warning: {manifest.warnings[0]}**" in card
    assert "computes the score, mAP \\| 0.5; higher is better." in card
    assert "| torch | fp32 | 0.5 (no interval) |" in card
    assert "`logits` by 0.30% of its spread" in card
    assert "No dense reference was given." in card
