# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a project lies, as its files may speak of it: `${PWD}` is the directory that Compose is called in by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.engine import Project
from tests.support.playbook import play
from tests.support.stacks import Stack, service


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


def test_a_plan_of_files_to_come_has_pwd_where_they_will_be(stack: Stack, tmp_path: Path) -> None:
    """The plan lets Compose read the files in a private directory; they will mean the real one."""
    stack.write({"web": service(volumes=["${PWD}/data:/data"])})
    stack.deploy()
    staged = tmp_path / "plan" / stack.project.folder.name
    staged.mkdir(parents=True)
    document = {"name": stack.name, "services": {"web": service(volumes=["${PWD}/data:/data"], labels={"a": "b"})}}
    (staged / "compose.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    role = {"name": "shipshape.deploy.stack"}
    given = {
        "stack_project_src": str(stack.project.folder),
        "stack_staged_src": str(staged),
        "stack_docker_host": stack.project.engine.host,
    }
    played = play(
        tmp_path / "play",
        {"ansible.builtin.include_role": role, "vars": given},
        options=["--check"],
        env={"PWD": str(tmp_path), **stack.project.engine.env},
    )

    assert played.rc == 0, played.output
    [action] = played.last["actions"]
    assert action["reason"] == "labels.a added", "the mount was taken for another one"
