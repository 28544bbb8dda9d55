"""Only files of the folder, only to this machine, and nothing that a browser would run."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bonsai.pipeline.service.package_server import serve_packages


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "secret").write_text("no")
    folder = tmp_path / "package"
    (folder / "key" / "package").mkdir(parents=True)
    (folder / "key" / "package" / "MODEL_CARD.md").write_text("# card")
    (folder / "key" / "package" / "training.svg").write_text("<svg/>")
    with serve_packages(folder, 0) as address:
        found = urlsplit(address).port
        assert found is not None
        yield found


def ask(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    reply = connection.getresponse()
    found = reply.status, reply.read().decode(), dict(reply.getheaders())
    connection.close()
    return found


def test_files_and_lists_of_the_folder_are_served_as_what_they_are(port: int) -> None:
    status, body, headers = ask(port, "/key/package/MODEL_CARD.md")
    assert (status, body, headers["Content-type"]) == (200, "# card", "text/plain; charset=utf-8")
    assert ask(port, "/key/package/training.svg")[2]["Content-type"] == "image/svg+xml"
    assert "training.svg" in ask(port, "/key/package/")[1]


def test_no_file_can_run_code_in_the_browser(port: int) -> None:
    headers = ask(port, "/key/package/training.svg")[2]
    assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "/key/../../secret", "//secret"])
def test_nothing_beside_the_folder_is_served(port: int, path: str) -> None:
    assert ask(port, path)[0] == 404


def test_a_page_whose_name_was_made_to_lead_here_gets_nothing(port: int) -> None:
    assert ask(port, "/key/package/MODEL_CARD.md", host=f"evil.example:{port}")[0] == 403
    assert ask(port, "/key/package/MODEL_CARD.md", host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(port: int, method: str) -> None:
    assert ask(port, "/key/package/MODEL_CARD.md", method=method)[0] == 501


def test_a_port_that_is_taken_gives_way_to_a_free_one(port: int, tmp_path: Path) -> None:
    with serve_packages(tmp_path, port) as address:
        assert urlsplit(address).port not in (port, None)
