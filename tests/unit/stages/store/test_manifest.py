from importlib import metadata

from bonsai.stages.store.manifest import tool_versions


def test_a_manifest_names_the_version_of_bonsai() -> None:
    assert tool_versions()["bonsai-compress"] == metadata.version("bonsai-compress")
