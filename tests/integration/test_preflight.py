# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `preflight` on a real engine and real registries: what is wrong is found, and nothing is touched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.debs import unpacked
from tests.support.engine import BUSYBOX, Project
from tests.support.engines import PrivateEngine
from tests.support.modules import ROOT, TREE, ModuleCall
from tests.support.registries import PASSWORD, USER, Registry, basic, free_port
from tests.support.stacks import contract, leaks

Found = set[tuple[str, str, str]]


class Preflight:
    """One project looked at. Whatever is found, the engine holds afterwards what it held before."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.printed = ""
        self.env: dict[str, str] = {}

    def write(self, services: dict[str, Any], **top: Any) -> None:
        whole = {name: {"image": BUSYBOX, "healthcheck": {"test": "ls /tmp"}, **at} for name, at in services.items()}
        self.project.write({"services": whole, **top})

    def look(self, **options: Any) -> dict[str, Any]:
        before = self.held()
        given = {"project_src": str(self.project.folder), "project_name": self.project.name, **options}
        given.setdefault("docker_host", self.project.engine.host)
        call = ModuleCall("preflight", given, check=True, env={**self.project.engine.env, **self.env})
        result = call.wait(60)
        self.printed += call.stdout + call.stderr
        assert not call.stderr, call.stderr
        contract(result)
        assert (result["changed"], result["actions"]) == (False, [])
        critical = [at for at in result["findings"] if at["severity"] == "critical"]
        assert bool(result.get("failed")) == bool(critical)
        assert self.held() == before
        return result

    def found(self, **options: Any) -> Found:
        """(severity, subject, code) of all findings."""
        return {(at["severity"], at["subject"], at["code"]) for at in self.look(**options)["findings"]}

    def held(self) -> list[str]:
        engine = self.project.engine
        names = engine.lines("ps", "-a", "--format", "{{.Names}}")
        return sorted(name for name in names if name.startswith((self.project.name, "shipshape-reading")))


@pytest.fixture
def preflight(project: Project) -> Preflight:
    return Preflight(project)


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


def messages(result: dict[str, Any], code: str) -> str:
    return " ".join(at["message"] + " " + at["remedy"] for at in result["findings"] if at["code"] == code)


def test_a_project_that_is_well(preflight: Preflight) -> None:
    preflight.write({"web": {"ports": [f"127.0.0.1:{free_port()}:80"]}, "worker": {"depends_on": ["web"]}})
    result = preflight.look()
    assert result["findings"] == []
    assert result["images"]["web"] == result["images"]["worker"]
    assert result["images"]["web"]["source"] == "local"
    assert result["engine"]["platform"].startswith("linux/")
    assert result["engine"]["compose_version"]


def test_everything_is_looked_at_whatever_is_wrong_before(preflight: Preflight) -> None:
    """A project that Compose refuses for four reasons: all are told, and so is what comes after them."""
    preflight.write(
        {
            "api": {"depends_on": ["coturn"], "env_file": ".env.api", "image": "127.0.0.1:1/nowhere"},
            "coturn": {"profiles": ["turn"]},
            "jobs": {"container_name": "jobs", "deploy": {"replicas": 2}},
            "mail": {"environment": {"KEY": "${MAIL_KEY:?ask the admin}"}, "ports": ["127.0.0.1:${MAIL_PORT}:25"]},
            "site": {"volumes": [{"type": "bind", "source": "./nothing", "target": "/srv"}]},
        }
    )
    result = preflight.look()
    found = {(at["subject"], at["code"]) for at in result["findings"] if at["severity"] == "critical"}
    assert found == {
        ("api", "dependency-not-selected"),
        (f"{preflight.project.folder}/.env.api", "env-file-missing"),
        ("api", "registry-unreachable"),
        ("jobs", "container-name-replicas"),
        ("mail", "variable-required"),
        ("site", "bind-source-missing"),
    }
    assert "coturn" in messages(result, "dependency-not-selected")
    assert "profile turn" in messages(result, "dependency-not-selected")
    assert "ask the admin" in messages(result, "variable-required")
    assert result["msg"].startswith("api: it depends on coturn")
    assert "5 further critical findings" in result["msg"]
    assert ("warning", "mail", "variable-unset") in preflight.found()


def test_a_profile_brings_what_it_brings(preflight: Preflight) -> None:
    preflight.write({"api": {"depends_on": ["coturn"]}, "coturn": {"profiles": ["turn"]}})
    assert ("critical", "api", "dependency-not-selected") in preflight.found()
    assert preflight.found(profiles=["turn"]) == set()
    assert any(code == "profile-unknown" for _at, _who, code in preflight.found(profiles=["turn", "trun"]))


@pytest.mark.parametrize(
    ("services", "found"),
    [
        (
            {"db": {"healthcheck": {"disable": True}}, "web": {"depends_on": {"db": {"condition": "service_healthy"}}}},
            {("critical", "web", "condition-never-met")},
        ),
        (
            {
                "job": {"restart": "always"},
                "web": {"depends_on": {"job": {"condition": "service_completed_successfully"}}},
            },
            {("critical", "web", "condition-never-met")},
        ),
        ({"web": {"healthcheck": {"test": ["CMD", "true"]}}}, {("warning", "web", "healthcheck-vacuous")}),
        ({"web": {"healthcheck": {}}}, {("info", "web", "healthcheck-missing")}),
        (
            {"web": {"container_name": "w", "deploy": {"update_config": {"order": "start-first"}}}},
            {("warning", "web", "container-name-start-first")},
        ),
        ({"web": {"mem_limit": "1m"}}, {("critical", "web", "memory-limit-invalid")}),
        ({"web": {"mem_limit": "900g"}}, {("warning", "web", "memory-limit-above-machine")}),
        ({"web": {"image": "busy box"}}, {("critical", "web", "image-name-invalid")}),
        (
            {"web": {"image": "never/pushed", "pull_policy": "never"}},
            {("critical", "web", "image-not-found")},
        ),
        ({"web": {"volumes": ["./made:/data"]}}, {("warning", "web", "bind-source-missing")}),
        ({"web": {"volumes": ["./site.conf:/etc/site.conf"]}}, {("critical", "web", "bind-source-missing")}),
    ],
)
def test_one_thing_wrong(preflight: Preflight, services: dict[str, Any], found: Found) -> None:
    preflight.write(services)
    told = preflight.found()
    assert found <= told
    assert {at for at in told if at[0] == "critical"} <= found


def test_what_may_fail_is_a_warning(preflight: Preflight) -> None:
    preflight.write({"web": {}, "console": {"image": "never/pushed", "pull_policy": "never"}})
    assert preflight.look()["failed"]
    result = preflight.look(optional_services=["console"])
    assert not result.get("failed")
    assert ("warning", "console", "image-not-found") in preflight.found(optional_services=["console"])


def test_images_in_a_registry(preflight: Preflight, registry: Registry) -> None:
    host = registry.host
    digest = registry.push("studio/pinned", "1", ["linux/amd64", "linux/arm64"])
    preflight.write(
        {
            "web": {"image": "${WEB:-" + host + "/studio/web:1}"},
            "worker": {"image": "${WEB:-" + host + "/studio/web:1}"},
            "pinned": {"image": f"{host}/studio/pinned@{digest}"},
            "board": {"image": f"{host}/studio/board:1"},
            "arm": {"image": f"{host}/studio/web:arm"},
            "emulated": {"image": f"{host}/studio/web:arm", "platform": "linux/arm64"},
            "typo": {"image": f"{host}/studio/web:one"},
        }
    )
    login = {"registry": host, "username": USER, "password": PASSWORD}
    result = preflight.look(registry_auth=[login])
    wrong = {(at["subject"], at["code"]) for at in result["findings"] if at["severity"] == "critical"}
    assert wrong == {
        ("board", "image-wrong-architecture"),
        ("arm", "image-wrong-architecture"),
        ("typo", "image-not-found"),
    }
    assert "linux/s390x" in messages(result, "image-wrong-architecture")
    assert result["images"]["pinned"]["digest"] == digest
    assert result["images"]["worker"] == result["images"]["web"]
    assert registry.served_layers() == []
    assert {code for _at, _who, code in preflight.found()} >= {"registry-login-required"}
    wrong_login = preflight.look(registry_auth=[{**login, "password": "a-wrong-password"}])
    assert "registry-login-refused" in str(wrong_login["findings"])
    assert leaks([PASSWORD, "a-wrong-password", basic()], preflight.printed) == []


def test_the_docker_configuration_logs_in(preflight: Preflight, registry: Registry, tmp_path: Path) -> None:
    preflight.write({"web": {"image": f"{registry.host}/studio/web:1"}})
    config = tmp_path / "docker"
    config.mkdir()
    plugins = Path(
        subprocess.check_output(["docker", "info", "-f", "{{(index .ClientInfo.Plugins 0).Path}}"], text=True)
    )
    (config / "cli-plugins").symlink_to(plugins.parent)
    (config / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": basic()}}}))
    preflight.env = {"DOCKER_CONFIG": str(config)}
    assert preflight.found() == set()
    # A credential helper, found in PATH as Docker does.
    login = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper = script(tmp_path, "docker-credential-tests", f"#!/bin/sh\nread host\necho '{login}'\n")
    (config / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "tests"}}))
    preflight.env["PATH"] = f"{helper.parent}:{os.environ['PATH']}"
    assert preflight.found() == set()
    script(tmp_path, "docker-credential-tests", "#!/bin/sh\nread host\necho locked >&2\nexit 1\n")
    assert ("critical", "web", "credential-helper-failed") in preflight.found()
    (config / "config.json").write_text("{")
    assert any(code == "docker-configuration-unreadable" for _at, _who, code in preflight.found())
    assert leaks([PASSWORD, basic()], preflight.printed) == []


def test_a_worker_that_shares_an_image_that_is_built(preflight: Preflight) -> None:
    name = f"{preflight.project.name}/app"
    (preflight.project.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\n")
    preflight.write({"api": {"image": name, "build": "."}, "worker": {"image": name}})
    result = preflight.look()
    assert result["findings"] == []
    assert {at["source"] for at in result["images"].values()} == {"build"}
    assert {code for _at, _who, code in preflight.found(build="never", pull="never")} == {"image-not-found"}


def test_ports_that_somebody_has(preflight: Preflight) -> None:
    engine = preflight.project.engine
    taken, published = socket.socket(), free_port()
    with taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        mine = taken.getsockname()[1]
        other = f"{preflight.project.name}-other"
        engine.docker("run", "-d", "--name", other, "-p", f"127.0.0.1:{published}:80", BUSYBOX, "sleep", "60")
        preflight.write(
            {
                "web": {"ports": [f"127.0.0.1:{mine}:80"]},
                "api": {"ports": [f"127.0.0.1:{published}:80"]},
                "free": {"ports": [f"127.0.0.1:{published}-{published + 1}:80", "127.0.0.2::80"]},
            }
        )
        result = preflight.look()
        found = {(at["subject"], at["code"]) for at in result["findings"] if at["severity"] == "critical"}
        assert found == {("web", "port-in-use"), ("api", "port-in-use")}
        assert f"pid {os.getpid()}" in messages(result, "port-in-use")
        assert other in messages(result, "port-in-use")
    port = free_port()
    preflight.write({at: {"ports": [f"{port}:80"]} for at in ("a", "b")})
    assert ("critical", "a, b", "port-conflict") in preflight.found()


def test_its_own_containers_hold_their_ports(preflight: Preflight) -> None:
    stay = {"command": ["sleep", "60"], "ports": [f"127.0.0.1:{free_port()}:80"]}
    preflight.write({"web": stay})
    preflight.project.compose("up", "-d")
    assert preflight.found() == set()


def test_env_files(preflight: Preflight) -> None:
    folder = preflight.project.folder
    secret = "s3cret-in-the-file"
    env = folder / ".env.production"
    env.write_bytes(
        f"DB_PASSWORD={secret}\r\nNAME=Two words\r\nNAME=other\r\nTOKEN=changeme\r\nEMPTY=\r\n"
        "DATABASE_URL=postgresql://app:<password>@db/app\r\n".encode()
    )
    env.chmod(0o644)
    preflight.write({"web": {"env_file": env.name, "environment": {"A": "${EMPTY}", "B": "${NOWHERE}"}}})
    found = preflight.found(env_files=[env.name], require_env=["TOKEN", "EMPTY", "ABSENT", "web:NOT_THERE"])
    assert found == {
        ("critical", "web", "env-placeholder"),
        ("critical", "web", "env-empty"),
        ("critical", "environment", "env-missing"),
        ("critical", "web", "env-missing"),
        ("warning", "web", "env-placeholder"),
        ("warning", "web", "variable-empty"),
        ("warning", "web", "variable-unset"),
        ("warning", str(env), "env-file-crlf"),
        ("warning", str(env), "env-file-duplicate"),
        ("warning", str(env), "env-file-unquoted-space"),
        ("warning", str(env), "env-file-world-readable"),
    }
    env.chmod(0o600)
    assert ("warning", str(env), "env-file-world-readable") not in preflight.found(env_files=[env.name])
    assert leaks([secret], preflight.printed) == []


@pytest.mark.parametrize("mounted", [True, False])
def test_scripts_that_would_not_start(preflight: Preflight, mounted: bool) -> None:
    folder = preflight.project.folder

    def service(text: str, mode: int = 0o755) -> Found:
        script(folder, "start.sh", text, mode)
        if mounted:
            preflight.write({"web": {"entrypoint": ["/start.sh"], "volumes": ["./start.sh:/start.sh:ro"]}})
        else:
            (folder / "Dockerfile").write_text(f'FROM {BUSYBOX}\nCOPY start.sh /\nENTRYPOINT ["/start.sh"]\n')
            preflight.write({"web": {"build": ".", "image": f"{preflight.project.name}/web"}})
        return preflight.found()

    assert service("#!/bin/sh\nexec sleep 60\n") == set()
    assert service("#!/bin/sh\n", 0o644) == {("critical", "web", "script-not-executable")}
    assert service("#!/bin/sh\r\nexit\r\n") >= {("critical", "web", "script-crlf")}
    assert service("exec sleep 60\n") == {("critical", "web", "script-no-interpreter")}
    if mounted:
        assert service("#!/usr/bin/env bash\n") == {("critical", "web", "script-interpreter-missing")}
        assert service("#!/bin/bash\n") == {("critical", "web", "script-interpreter-missing")}
        assert service("#!/usr/bin/env sh\n") == set()


def test_what_the_dockerfile_puts_right_is_no_finding(preflight: Preflight) -> None:
    folder = preflight.project.folder
    script(folder, "start.sh", "#!/bin/sh\r\n", 0o644)
    (folder / "Dockerfile").write_text(
        f"FROM {BUSYBOX}\nCOPY start.sh /start.sh\n"
        "RUN sed -i 's/\\r$//' /start.sh && chmod +x /start.sh\nENTRYPOINT [\"/start.sh\"]\n"
    )
    preflight.write({"web": {"build": ".", "image": f"{preflight.project.name}/web"}})
    assert preflight.found() == set()


def test_too_little_disk(preflight: Preflight, registry: Registry) -> None:
    preflight.write({"web": {}})
    assert any((at, code) == ("warning", "disk-space-low") for at, _who, code in preflight.found(disk_free="9000GB"))
    preflight.write({"web": {"image": f"{registry.host}/studio/web:1"}})
    login = {"registry": registry.host, "username": USER, "password": PASSWORD}
    found = preflight.found(disk_free="9000GB", registry_auth=[login])
    assert any((at, code) == ("critical", "disk-space-low") for at, _who, code in found)
    assert "no size" in preflight.look(disk_free="plenty")["msg"]


def test_an_engine_that_does_not_answer(preflight: Preflight, tmp_path: Path) -> None:
    """The project is looked at all the same."""
    preflight.write({"web": {"environment": {"A": "${NOWHERE}"}}})
    found = preflight.found(docker_host=f"unix://{tmp_path}/none.sock")
    assert found == {("critical", "engine", "engine-not-running"), ("warning", "web", "variable-unset")}


def test_an_old_engine(preflight: Preflight, engine2010: PrivateEngine) -> None:
    preflight.write({"web": {}})
    preflight.project.engine = engine2010
    assert not {at for at in preflight.found() if at[0] == "critical"}


def test_a_directory_without_a_project(preflight: Preflight) -> None:
    result = preflight.look()
    assert [at["code"] for at in result["findings"]] == ["compose-file-missing"]
    preflight.project.write("services: [")
    assert any(at[2] == "compose-file-invalid" for at in preflight.found())


def test_a_clock_that_is_off(preflight: Preflight, tmp_path: Path) -> None:
    """libfaketime moves the controller's clock; the engine keeps the right time."""
    preflight.write({"web": {}})
    faketime = next(unpacked("faketime", ["libfaketime"], ["bookworm"]).rglob("libfaketime.so.1"))
    task = {"project_src": str(preflight.project.folder), "project_name": preflight.project.name}
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {"shipshape.deploy.preflight": task, "register": "seen"},
                {"ansible.builtin.copy": {"content": "{{ seen | to_json }}", "dest": str(tmp_path / "seen.json")}},
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(json.dumps(play))

    def codes(**env: str) -> list[str]:
        words = [
            str(ROOT / ".venv/bin/ansible-playbook"),
            "-i",
            "localhost,",
            "-c",
            "local",
            str(tmp_path / "play.yml"),
        ]
        words += ["-e", f"ansible_python_interpreter={ROOT}/.venv/bin/python"]
        whole = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(TREE), **env}
        done = subprocess.run(words, env=whole, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [at["code"] for at in json.loads((tmp_path / "seen.json").read_text())["findings"]]

    assert codes() == []
    assert codes(LD_PRELOAD=str(faketime), FAKETIME="-90s") == ["clock-off"]
