"""A real sshd on loopback, for tests: a port, a host key and a login key of its own, and an account whose Python has no torch.

    with SshServer(folder) as server:
        server.address                        # ssh://root@127.0.0.1:40123
        os.environ["BONSAI_SSH"] = server.ssh  # "ssh -F FILE", with the login key and the known host key

The system's sshd serves where there is one, else that of Debian's package, which is unpacked into a cache folder and not installed. `ssh_proxy.py` has
what stands between host and server and disturbs them.
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bonsai-tests" / "sshd"
PACKAGES = ("openssh-server", "libwrap0")
WITH_ACCOUNT = 'mount --bind "$0" /etc/passwd && mkdir -p /run/sshd && exec "$@"'
"""Gives a server that root starts the account that it asks for, in a mount namespace of its own: nothing of the system is changed."""
SETTINGS = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/login_key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
Subsystem sftp internal-sftp
MaxStartups 100
SetEnv {environment}
"""
CLIENT = """
Host *
  IdentityFile {folder}/login_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""


class SshServer:
    """An sshd that runs while the block does.

    Args:
        folder: Receives keys, configuration, the home and the cache of the account.
        environment: Further variables of the account.

    Attributes:
        port: Where it listens.
        home: Home folder of the account.
        ssh: Command for `BONSAI_SSH`.
        cache: The device's cache.
        lock: The device's file of the lock for timing.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.port, self.home = folder, free_port(), folder / "home"
        self.home.mkdir()
        self.cache, self.lock = folder / "cache", folder / "device.lock"
        for key in ("host_key", "login_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        own = {"HOME": self.home, "BONSAI_DEVICE_CACHE": self.cache, "BONSAI_TIMING_LOCK": self.lock, "OMP_NUM_THREADS": 1, **environment}
        settings = " ".join(f"{name}={value}" for name, value in own.items())
        (folder / "sshd.conf").write_text(SETTINGS.format(port=self.port, folder=folder, environment=settings))
        (folder / "ssh.conf").write_text(CLIENT.format(folder=folder))
        self.know(self.port)
        self.ssh = f"ssh -F {folder / 'ssh.conf'}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it is reached without a proxy."""
        return self.address_at(self.port)

    def address_at(self, port: int) -> str:
        """Return the address of another port of this machine, whose host key is known too."""
        self.know(port)
        return f"ssh://{getpass.getuser()}@127.0.0.1:{port}"

    def know(self, port: int) -> None:
        """Let the client know the host key at a port."""
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        with (self.folder / "known_hosts").open("a") as hosts:
            hosts.write(f"[127.0.0.1]:{port} {kind} {key}\n")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        sshd, libraries = find_sshd()
        command = [str(sshd), "-D", "-e", "-f", str(self.folder / "sshd.conf")]
        has_account = any(line.startswith("sshd:") for line in Path("/etc/passwd").read_text().splitlines())
        if os.geteuid() == 0 and has_account:
            Path("/run/sshd").mkdir(exist_ok=True)  # of a package that is installed, and whose service never ran
        elif os.geteuid() == 0:
            passwd = self.folder / "passwd"
            passwd.write_text(Path("/etc/passwd").read_text() + "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
            command = ["unshare", "--mount", "sh", "-c", WITH_ACCOUNT, str(passwd), *command]
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "LD_LIBRARY_PATH": libraries})
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                if probe.recv(4) == b"SSH-":
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"sshd did not start: {(self.folder / 'sshd.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End the server and every connection that it has: parents first, for an agent that outlives its engine's process reports that, and not the loss."""
        if self._process is not None:
            for pid in [self._process.pid, *children_of(self._process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self._process.wait()
            self._process = None

    def agents(self) -> list[int]:
        """Return the processes of agents that it started."""
        found = children_of(self._process.pid) if self._process is not None else []
        return [pid for pid in found if "bonsai.stages.backends.remote.agent" in command_of(pid) and "sshd" not in command_of(pid)]

    def __enter__(self) -> "SshServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_sshd() -> tuple[Path, str]:
    """Return the server and the folder of libraries that it needs besides the system's."""
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found:
        return Path(found), ""
    unpacked = CACHE / "root" / "usr" / "sbin" / "sshd"
    if not unpacked.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["apt-get", "download", *PACKAGES], cwd=CACHE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"there is no sshd, and Debian's package cannot be fetched: apt install openssh-server\n{done.stderr}"
        for package in CACHE.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, CACHE / "root"], check=True, capture_output=True)
    return unpacked, str(next((CACHE / "root").rglob("libwrap.so.0")).parent)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def children_of(pid: int) -> list[int]:
    """Return all processes below one, parents before their children."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            below.setdefault(int(words[1]), []).append(int(stat.parent.name))
    found, ahead = list[int](), [pid]
    while ahead:
        children = below.get(ahead.pop(), [])
        found += children
        ahead += children
    return found


def command_of(pid: int) -> str:
    """Return the command line of a process; nothing where it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


if __name__ == "__main__":
    print(find_sshd(), file=sys.stderr)
