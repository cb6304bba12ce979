# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules `visitor_pool` and `visitor_pool_info` with a template on a git server that wants a login: the token in its
URL is told to nobody else, and what cannot be fetched is said."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.shipshape.deploy.plugins.module_utils.pool.origin import source
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.template import Template
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report
from tests.support.pools import World, make_template
from tests.support.stacks import leaks
from tests.support.worlds import codes

# -- tokens in URLs ---------------------------------------------------------------------------------------------------

TOKEN = "t0k3n/of+the=operator"
ENCODED = TOKEN.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D")


class Forge(BaseHTTPRequestHandler):
    """A git server that wants to know who asks."""

    folder: Path
    login = ""

    def log_message(self, *_words: object) -> None:
        pass

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.headers["Authorization"] != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="forge"')
            self.end_headers()
            return
        path, _mark, query = self.path.partition("?")
        about = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "somebody",
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = subprocess.run(["git", "http-backend"], env=about, input=body, capture_output=True).stdout
        head, _gap, content = said.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[type[Forge]]:
    class Fresh(Forge):
        folder = tmp_path / "forge"

    top = make_template(Fresh.folder / "x.git")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "init.defaultBranch=main"]
    for words in (["init"], ["add", "."], ["commit", "-m", "one"], ["tag", "v1"]):
        subprocess.run(["git", *who, *words], cwd=top, check=True, capture_output=True)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    Fresh.host = f"127.0.0.1:{made.server_address[1]}"  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield Fresh
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize(
    ("written", "login"),
    [
        (ENCODED, f"{TOKEN}:"),
        (f"{ENCODED}:x-oauth-basic", f"{TOKEN}:x-oauth-basic"),
        (f"oauth2:{ENCODED}", f"oauth2:{TOKEN}"),
    ],
)
def test_a_token_goes_to_its_server_and_nowhere_else(
    light: World, forge: type[Forge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, login: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    light.secrets = [TOKEN, ENCODED]
    seen: list[str] = []
    real = AnsibleModule.run_command

    def run_command(self: Any, args: Any, *words: Any, **keys: Any) -> Any:
        seen.append(str(args))
        return real(self, args, *words, **keys)

    monkeypatch.setattr(AnsibleModule, "run_command", run_command)
    forge.login = login
    url = f"http://{written}@{forge.host}/x.git"  # type: ignore[attr-defined]
    result = light.call(workspace={"template": url, "branch": "main"})
    assert not result.get("failed"), result["msg"]
    light.is_whole()
    assert forge.host in result["invocation"]["module_args"]["workspace"]["template"]  # type: ignore[attr-defined]
    forge.login = "somebody:else"
    light.save(1, "x", "x")
    result = light.call(workspace={"template": url, "tag": "v1"}, state="reset")
    assert "template-not-fetched" in codes(result)
    result = light.call(workspace={"template": url})
    assert "template-invalid" in codes(result)
    assert seen
    assert not leaks(light.secrets, str(seen))
    kept = [at.read_text(errors="replace") for at in (tmp_path / "state").rglob("*") if at.is_file()]
    assert kept
    assert not leaks(light.secrets, str(kept))


def test_a_login_is_not_told_to_another_server(forge: type[Forge], tmp_path: Path) -> None:
    """The server that is named sends git to the one that wants a login."""

    class Elsewhere(BaseHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://{forge.host}{self.path}")  # type: ignore[attr-defined]
            self.end_headers()

    forge.login = f"{TOKEN}:"
    made = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        url = f"http://{ENCODED}@127.0.0.1:{made.server_address[1]}/x.git"
        with pytest.raises(ShipshapeError) as raised:
            template(tmp_path, {"template": url, "branch": "main"}).tree()
        assert raised.value.findings[0].code == "template-not-fetched"
    finally:
        made.shutdown()
        made.server_close()


# -- templates that are not there -------------------------------------------------------------------------------------


def template(folder: Path, workspace: dict[str, str]) -> Template:
    def command(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        done = subprocess.run(
            argv, env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", **environment},
            capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return Template(source(workspace), ("01_manuscript",), command, str(folder / "cache"), Report())


def test_looking_for_a_template_fails_as_using_it_would(forge: type[Forge], tmp_path: Path) -> None:
    forge.login = f"{TOKEN}:"
    url = f"http://{ENCODED}@{forge.host}/x.git"  # type: ignore[attr-defined]
    bad = [
        {"template": "/nowhere/at/all"},
        {"template": url, "branch": "none"},
        {"template": url, "tag": "none"},
        {"template": f"{url}.not", "branch": "main"},
        {"template": "http://127.0.0.1:9/x.git", "tag": "v1"},
    ]
    for workspace in bad:
        said = []
        for act in (Template.check, Template.tree):
            with pytest.raises(ShipshapeError) as raised:
                act(template(tmp_path, workspace))
            [finding] = raised.value.findings
            said.append((finding.subject, finding.code))
        assert said[0] == said[1]
    for kind, name in (("branch", "main"), ("tag", "v1")):
        template(tmp_path, {"template": url, kind: name}).check()
        assert not [at for at in (tmp_path / "cache").glob("*/current") if kind == "branch"]
        template(tmp_path, {"template": url, kind: name}).tree()
    forge.login = "somebody:else"  # a tag stays what it is; a branch is what it was
    template(tmp_path, {"template": url, "tag": "v1"}).check()
    template(tmp_path, {"template": url, "branch": "main"}).check()


def test_without_git(light: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(tmp_path))
    result = light.call(workspace={"template": "https://example.invalid/x.git", "tag": "v1"})
    assert result["failed"]
    assert "template-not-fetched" in codes(result)
    assert "git cannot be run" in result["msg"]
