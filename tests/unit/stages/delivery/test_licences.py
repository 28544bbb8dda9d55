import tomllib
from pathlib import Path

import pytest

from bonsai.profiles.loader import list_profiles, load_profile
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.delivery.licences import BONSAI, RUNTIMES, licence_notes
from bonsai.stages.networks.config import ModelConfig

DATASET = Dataset(folder=Path(), name="digits", preprocess=Preprocess.of((1, 8, 8)), classes=("0", "1"), sizes={}, licence="CC BY 4.0")


def test_the_notes_name_data_weights_runtime_and_bonsai() -> None:
    assert licence_notes(DATASET, ModelConfig(name="resnet20"), "onnxruntime").splitlines() == [
        "- Data (`digits`; the golden images are some of them): CC BY 4.0",
        "- Weights: trained from scratch on these data alone",
        "- Runtime that the engine needs, not in the package: onnxruntime, MIT",
        "- Bonsai, which made the package and is not in it: Apache-2.0",
    ]


def test_weights_of_the_users_own_code_are_not_called_trained_from_scratch() -> None:
    notes = licence_notes(DATASET, ModelConfig(name="my_models:pretrained"), "tensorrt")
    assert "from scratch" not in notes
    assert "`my_models:pretrained`, code of the user's own" in notes
    assert "proprietary" in notes


def test_given_weights_are_not_called_trained_from_scratch() -> None:
    notes = licence_notes(DATASET, ModelConfig(name="resnet20"), "onnxruntime", "best.pth")
    assert "- Weights: trained on these data from given weights (best.pth): under which licence those are, Bonsai cannot know" in notes.splitlines()


def test_bonsais_licence_is_that_of_the_distribution() -> None:
    assert tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]["license"] == BONSAI


@pytest.mark.parametrize("profile", list_profiles())
def test_the_licence_of_every_shipped_runtime_is_known(profile: str) -> None:
    assert load_profile(profile).target.runtime in RUNTIMES
