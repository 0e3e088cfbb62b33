"""``hbm serve`` and ``hbm worker``: what is wrong is said before anything starts."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from hbm_core.cli import main


@pytest.fixture
def refused(monkeypatch, capfd, tmp_path):
    """Run a command that must end by itself: its exit code and its one line."""
    monkeypatch.setenv("HBM_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def started(*_: object) -> None:
        raise AssertionError("the server was started")

    monkeypatch.setattr(os, "execv", started)
    monkeypatch.setattr(os, "execve", started)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hbm", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        assert out == "" and len(err.strip().splitlines()) == 1
        return int(stop.value.code or 0), err

    return run


def test_a_busy_port_is_told(refused) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, said = refused("serve", "--port", port, "--address", "127.0.0.1")
    assert code == 2 and port in said and "in use" in said


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("serve", "--address", "203.0.113.7"), "203.0.113.7"),
        (("serve", "--address", "no.such.host.invalid"), "no.such.host.invalid"),
        (("serve", "--base-path", "a b?c"), "--base-path"),
        (("serve", "--scheduler", "localhost"), "tcp://host:port"),
        (("serve", "--workers", "1000"), "HBM_WORKERS"),
        (("serve", "--port", "0"), "--port"),
        (("worker", "--scheduler", "http://x"), "tcp://host:port"),
        (("worker", "--scheduler", "tcp://x:1", "--store", "y"), "either"),
        (("gallery", "--scenario", "schools"), "--build"),
    ],
)
def test_nonsense_is_one_line_and_exit_2(refused, arguments, words) -> None:
    code, said = refused(*arguments)
    assert code == 2 and words in said


def test_a_store_that_cannot_be_made_is_told(refused, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    code, said = refused("serve", "--port", "18497", "--store", str(tmp_path / "file" / "below"))
    assert code == 1 and "--store" in said


def test_options_reach_the_server_and_its_workers(monkeypatch, tmp_path) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda path, line: started.append(line))
    line = ("serve", "--port", "18498", "--base-path", "/a/b/", "--store", "here", "--workers", "3")
    monkeypatch.setattr(sys, "argv", ["hbm", *line, "--scheduler", "tcp://x:1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert {"--server.port=18498", "--server.baseUrlPath=a/b", "--server.address=localhost"} <= set(
        started[0]
    )
    found = {name: os.environ[f"HBM_{name}"] for name in ("STORE", "WORKERS", "SCHEDULER")}
    assert found == {"STORE": str(tmp_path / "here"), "WORKERS": "3", "SCHEDULER": "tcp://x:1"}
