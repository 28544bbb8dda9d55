"""Every command of docs/devices.md that needs a device, in order, against a real sshd: with its address, and with a recipe that takes no hour."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from page_story import check_data
from pages import ROOT, Block, blocks_of
from ssh_server import SshServer

pytestmark = pytest.mark.long  # installs the plain install twice, and runs a recipe

PAGE = ROOT / "docs" / "devices.md"
CONFIGS = Path(__file__).parent / "configs"
QUICK = (
    "training.epochs=1",
    "timing.fitting=2",
    "timing.runs=100",
    "timing.tries=1",
    "profile.target.precision=fp32",
    "profile.gates.max_drop=1",
    "profile.budget.latency=0.9",
)
SETTINGS = " ".join(f"--set {setting}" for setting in QUICK)


def meant(text: str, server: SshServer) -> str:
    """Return a block for the tests' device: an x86 at another address, and another recipe."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for shown, real in {
        "cortex-a76": "local-cpu",
        "ssh pi@kitchen.local": f"{server.ssh} {server.address}",
        "ssh://pi@kitchen.local": server.address,
        "3.11": here,
        "aarch64": platform.machine(),
        "run resnet-edge": f"run {CONFIGS / 'tiny.yaml'} --allow-undecided {SETTINGS}",
        "characterize resnet-edge": f"characterize {CONFIGS / 'tiny.yaml'} --no-steps {SETTINGS}",
        "resnet-edge--": "tiny--",
        "--time\n": "--time --allow-undecided\n",
        "--wheels": "--python '~/other/bin/python' --wheels",
    }.items():
        text = text.replace(shown, real)
    return text


def wanted(block: Block) -> bool:
    return block.file is not None or "test_devices_page" in (block.not_run or "")


def test_the_commands_of_the_page_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "device").mkdir()
    with SshServer(tmp_path / "device") as server:
        monkeypatch.setenv("BONSAI_SSH", server.ssh)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        blocks = [block for block in blocks_of(PAGE) if wanted(block)]
        assert [block.language for block in blocks] == ["yaml", "sh", "sh"]
        for block in blocks:
            text = meant(block.text, server)
            if block.file is not None:
                (tmp_path / block.file).write_text(text)
                check_data(block, tmp_path / "device")
                continue
            done = subprocess.run(["bash", "-euxo", "pipefail", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block.name}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        assert (server.home / "bonsai" / "bin" / "python").exists()
        assert (server.home / "other" / "bin" / "python").exists()
        assert list((tmp_path / "tables").glob("tiny--kitchen-pi.csv"))
