"""`bonsai device setup` against a real sshd: what it makes, that it does nothing twice, and what it says of a device that lacks something."""

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from light_environment import ROOT
from ssh_server import SshServer

from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.remote.build_mark import this_build
from bonsai.stages.backends.remote.refusals import Unreachable
from bonsai.stages.backends.remote.remote_device import RemoteDevice
from bonsai.stages.backends.remote.setup import Wanted, set_up
from bonsai.stages.backends.remote.wheel import write_wheel
from bonsai.stages.errors import DeviceUnavailable

pytestmark = pytest.mark.slow

Serve = Callable[..., AbstractContextManager[SshServer]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    @contextmanager
    def serving(**environment: str):  # type: ignore[no-untyped-def]  # of a fixture
        with SshServer(tmp_path, **environment) as server:
            monkeypatch.setenv("BONSAI_SSH", server.ssh)
            yield server

    return serving


def tools(folder: Path, **scripts: str) -> str:
    """Return a search path with the least that a shell needs, and these scripts."""
    folder.mkdir()
    for name in ("sh", "mkdir", "cat", "mv", "sha256sum", "env"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_a_wheel_of_what_runs_here_is_whole(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        listed = {line.rpartition(",")[0].rpartition(",")[0]: line.split(",")[-2] for line in archive.read(record).decode().splitlines()}
        assert set(listed) == names
        for name in names - {record}:
            assert listed[name] == "sha256=" + urlsafe_b64encode(sha256(archive.read(name)).digest()).rstrip(b"=").decode(), name
        assert b"bonsai = bonsai.pipeline.cli.main:main" in archive.read(record.replace("RECORD", "entry_points.txt"))
        archive.extractall(tmp_path / "site")
    tracked = subprocess.run(["git", "ls-files", "profiles", "stages", "pipeline"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {f"bonsai/{name}" for name in tracked} <= names
    assert not [name for name in names if "__pycache__" in name]
    code = "from bonsai.stages.backends.remote.build_mark import this_build; print(this_build().code)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == this_build().code


@pytest.mark.parametrize(
    ("scripts", "says"),
    [
        ({}, r"there is no Python that is new enough[\s\S]*no python3[\s\S]*apt install python3 python3-venv"),
        ({"python3": "echo /usr/bin/python3 3 8 Linux armv7l whole"}, r"new enough[\s\S]*/usr/bin/python3 3\.8[\s\S]*3\.10 or later"),
        ({"python3": "echo /usr/bin/python3 3 11 Linux aarch64 bare"}, r"cannot make environments[\s\S]*apt install python3-venv"),
        ({"python3": "case $1 in -c) echo $0 3 11 Linux aarch64 whole;; *) echo no space left >&2; exit 1;; esac"}, r"cannot be made[\s\S]*no space left"),
    ],
)
def test_what_a_device_lacks_is_told(scripts: dict[str, str], says: str, serve: Serve, tmp_path: Path) -> None:
    with serve(PATH=tools(tmp_path / "bin", **scripts)) as server, pytest.raises(DeviceUnavailable, match=says):
        set_up(server.address, Wanted("~/bonsai/bin/python"))


def test_a_device_without_network_is_told_how_to_get_wheels(serve: Serve) -> None:
    with (
        serve(PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0") as server,
        pytest.raises(DeviceUnavailable, match=r"what Bonsai needs cannot be installed") as raised,
    ):
        set_up(server.address, Wanted("~/bonsai/bin/python"))
    text = str(raised.value)
    assert "`pip download --dest wheels --only-binary=:all: --python-version 3." in text
    assert "--platform manylinux2014_" in text
    assert "onnxruntime<2,>=1.22" in text
    assert "torch" not in text
    assert f"`bonsai device setup {server.address} --python '~/bonsai/bin/python' --wheels wheels`" in text


def test_a_device_that_nobody_reaches_is_told(serve: Serve) -> None:
    with serve() as server:
        address = server.address
    with pytest.raises(Unreachable, match="does not answer"):
        set_up(address, Wanted("~/bonsai/bin/python"))


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted("python3"), "--python: no place for an environment"),
        (Wanted("~/x/bin/python", extras=("train",)), "--extra: no runtime comes with this"),
        (Wanted("~/x/bin/python", wheels=Path("/nowhere")), "--wheels: no wheels there"),
    ],
)
def test_a_choice_that_cannot_be_used_is_refused_before_anything_is_done(wanted: Wanted, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        set_up("ssh://nowhere.invalid", wanted)


@pytest.mark.long
def test_a_device_is_set_up_from_the_index_and_again_from_wheels(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve() as server:
        *_, how = set_up(server.address, Wanted("~/bonsai/bin/python"))
        assert f"address: '{server.address}', python: '~/bonsai/bin/python'" in how
        target = load_profile("local-cpu", {"target.device.address": server.address, "target.precision": "fp32"}).target
        device = RemoteDevice(server.address, "~/bonsai/bin/python")
        assert device.describe(target).present
        device.close()
        python = server.home / "bonsai" / "bin" / "python"
        found = "import importlib.util as u; print([name for name in ('torch', 'prefect', 'bonsai') if u.find_spec(name)])"
        assert subprocess.run([python, "-P", "-c", found], capture_output=True, text=True, check=True).stdout.strip() == "['bonsai']"
        caplog.clear()
        assert "already" in set_up(server.address, Wanted("~/bonsai/bin/python"))[0]
        assert "installing" not in caplog.text.lower()
        frozen = subprocess.run([python, "-m", "pip", "freeze", "--exclude", "bonsai-compress"], capture_output=True, text=True, check=True).stdout.split()
        subprocess.run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path / "wheels", *frozen], check=True)
        shutil.rmtree(server.home / "bonsai")
    with SshServer(tmp_path_of(tmp_path, "offline"), PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0") as server:
        os.environ["BONSAI_SSH"] = server.ssh
        command = ["device", "setup", server.address, "--wheels", str(tmp_path / "wheels")]
        done = subprocess.run([sys.executable, "-m", "bonsai", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + shlex.join(command)
        assert str(this_build()) in done.stdout


def tmp_path_of(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name
