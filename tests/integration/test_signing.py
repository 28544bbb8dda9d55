"""A signature tells who made a package: from the real command line, with keys that openssl's format holds."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat
from tiny_package import reseal

from bonsai.stages.delivery.signing import PASSWORD, SIGNATURE

installed = importlib.util.find_spec("model_signing") is not None
needs_library = pytest.mark.skipif(not installed, reason="the extra `sign` is not installed")


def bonsai(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bonsai", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def keys(folder: Path, password: str = "") -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    (folder / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    (folder / "public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder / "private.pem", folder / "public.pem"


@needs_library
def test_a_signed_package_is_verified_with_its_makers_key(package: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path / "keys")
    done = bonsai("sign", package, "--key", private)
    assert (done.returncode, done.stdout) == (0, f"{package / SIGNATURE}\n"), done.stderr
    done = bonsai("verify", package, "--key", public)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"origin: signed by the holder of the private key of {public}"
    unasked = bonsai("verify", package)
    assert unasked.returncode == 0, unasked.stderr
    assert unasked.stdout.startswith("not checked: model.sig, which tells who made the package")


@needs_library
def test_an_encrypted_key_takes_its_password_from_the_environment(package: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path / "keys", "secret")
    assert bonsai("sign", package, "--key", private, **{PASSWORD: "secret"}).returncode == 0
    assert bonsai("verify", package, "--key", public).returncode == 0
    wrong = bonsai("sign", package, "--key", private, **{PASSWORD: "other"})
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert "cannot be signed with this key" in wrong.stderr


def forge(package: Path) -> None:
    """Change a file and make all sums right again, as one would who means it."""
    (package / "MODEL_CARD.md").write_text("# better\n")
    reseal(package)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "forged": (forge, "model.sig: the package is not what was signed"),
    "not signed": (lambda p: (p / SIGNATURE).unlink(), "model.sig: the package is not signed"),
    "no signature": (lambda p: (p / SIGNATURE).write_text("{}"), "model.sig: the package is not what was signed"),
    "no JSON": (lambda p: (p / SIGNATURE).write_text("["), "model.sig: the package is not what was signed"),
    "linked signature": (lambda p: ((p / SIGNATURE).rename(p.parent / "sig"), (p / SIGNATURE).symlink_to(p.parent / "sig")), "model.sig: a link"),
}


@needs_library
@pytest.mark.parametrize("case", BROKEN)
def test_a_package_that_is_not_what_was_signed_ends_with_code_6(case: str, package: Path, tmp_path: Path) -> None:
    break_it, message = BROKEN[case]
    private, public = keys(tmp_path / "keys")
    assert bonsai("sign", package, "--key", private).returncode == 0
    break_it(package)
    done = bonsai("verify", package, "--key", public)
    assert done.returncode == 6, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@needs_library
def test_another_makers_signature_ends_with_code_6(package: Path, tmp_path: Path) -> None:
    private, _ = keys(tmp_path / "theirs")
    _, public = keys(tmp_path / "ours")
    assert bonsai("sign", package, "--key", private).returncode == 0
    done = bonsai("verify", package, "--key", public)
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr


@needs_library
def test_keys_that_are_none_end_with_code_2(package: Path, tmp_path: Path) -> None:
    private, _ = keys(tmp_path / "keys")
    assert bonsai("sign", package, "--key", private).returncode == 0
    other = rsa.generate_private_key(65537, 2048)
    (tmp_path / "rsa.pem").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "rsa.pub").write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text.pem").write_text("no key")
    for command, name in (
        ("sign", "rsa.pem"),
        ("sign", "text.pem"),
        ("sign", "gone.pem"),
        ("verify", "rsa.pub"),
        ("verify", "text.pem"),
        ("verify", "gone.pem"),
    ):
        done = bonsai(command, package, "--key", tmp_path / name)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), (command, name, done.stderr)


@pytest.mark.skipif(installed, reason="the extra `sign` is installed")
def test_without_the_library_the_extra_is_named(package: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path / "keys")
    for done in (bonsai("sign", package, "--key", private), bonsai("verify", package, "--key", public)):
        assert done.returncode == 5
        assert "pip install 'bonsai-compress[sign]'" in done.stderr


def test_a_changed_package_is_not_signed(package: Path, tmp_path: Path) -> None:
    private, _ = keys(tmp_path / "keys")
    (package / "MODEL_CARD.md").write_text("# other\n")
    done = bonsai("sign", package, "--key", private)
    assert done.returncode == 6
    assert not (package / SIGNATURE).exists()
