# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a project lies, as its files may speak of it: `${PWD}` is the directory that Compose is called in by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.engine import Project
from tests.support.playbook import play
from tests.support.stacks import Stack, actions, service, told


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


def test_pwd_is_the_directory_of_the_project(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(tmp_path))
    stack.write({"web": service(volumes=["${PWD}/data:/data"], environment={"PLACE": "$PWD"})})

    stack.deploy()

    mount = stack.container("web")["HostConfig"]["Binds"]
    assert mount == [f"{stack.project.folder}/data:/data:rw"]
    assert not (tmp_path / "data").exists(), "made where the module was started, and not in the project"
    stack.unchanged()
    monkeypatch.setenv("PWD", str(stack.project.folder))  # as a shell has it there
    stack.up_finds_nothing_to_do()


def plan(stack: Stack, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    """What role `stack` plans when `files` are to come: they lie elsewhere yet, as deploy.yml --check lays them out."""
    staged = folder / "plan" / stack.project.folder.name
    staged.mkdir(parents=True)
    for name, text in files.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_text(text, encoding="utf-8")
    given = {
        "stack_project_src": str(stack.project.folder),
        "stack_staged_src": str(staged),
        "stack_docker_host": stack.project.engine.host,
    }
    before = stack.snapshot()
    played = play(
        folder / "play",
        {"ansible.builtin.include_role": {"name": "shipshape.deploy.stack"}, "vars": given},
        options=["--check"],
        env={"PWD": str(folder), **stack.project.engine.env},
    )
    assert played.rc == 0, played.output
    assert stack.snapshot() == before
    return played.last


def document(stack: Stack, services: dict[str, Any], **top: Any) -> dict[str, str]:
    return {"compose.yaml": yaml.safe_dump({"name": stack.name, "services": services, **top})}


def test_a_plan_of_files_to_come_has_pwd_where_they_will_be(stack: Stack, tmp_path: Path) -> None:
    """The plan lets Compose read the files in a private directory; they will mean the real one."""
    stack.write({"web": service(volumes=["${PWD}/data:/data"])})
    stack.deploy()

    planned = plan(stack, tmp_path, document(stack, {"web": service(volumes=["${PWD}/data:/data"], labels={"a": "b"})}))

    [action] = planned["actions"]
    assert action["reason"] == "labels.a added", "the mount was taken for another one"


def test_a_plan_knows_what_mounted_files_will_hold(stack: Stack, tmp_path: Path) -> None:
    services = {
        "changed": service(volumes=["./proxy/$$1.conf:/etc/proxy.conf:ro"]),
        "config": service(configs=["conf"]),
        "same": service(volumes=["./same.conf:/etc/same.conf"]),
        "own": service(volumes=["./data/own.conf:/etc/own.conf"]),
    }
    top = {"configs": {"conf": {"file": "./app.conf"}}}
    files = {"proxy/$1.conf": "a\n", "same.conf": "same\n", "data/own.conf": "the target's own\n", "app.conf": "1\n"}
    for name, text in files.items():
        (stack.project.folder / name).parent.mkdir(exist_ok=True)
        (stack.project.folder / name).write_text(text, encoding="utf-8")
    stack.write(services, **top)
    stack.deploy()
    coming = {"proxy/$1.conf": "b\n", "same.conf": "same\n", "app.conf": "2\n"}

    planned = plan(stack, tmp_path, {**document(stack, services, **top), **coming})

    for name, text in coming.items():
        (stack.project.folder / f"{name}.new").write_text(text, encoding="utf-8")
        (stack.project.folder / f"{name}.new").rename(stack.project.folder / name)
    assert actions(planned) == {
        ("recreate", f"{stack.name}-changed-1", "the content of volumes./etc/proxy.conf changed"),
        ("recreate", f"{stack.name}-config-1", "the content of configs.conf changed"),
    }
    done = stack.deploy()
    assert told(planned) <= told(done)
    assert actions(done) >= actions(planned)


def test_a_plan_leaves_out_what_is_optional_and_not_there(stack: Stack, tmp_path: Path) -> None:
    """Compose writes an optional dependency on what a profile switches off, and does not read what it wrote."""
    services = {
        "web": service(depends_on={"mail": {"condition": "service_started", "required": False}}),
        "mail": service(profiles=["debug"]),
    }
    stack.write(services)
    stack.deploy()

    assert plan(stack, tmp_path, document(stack, services))["actions"] == []
