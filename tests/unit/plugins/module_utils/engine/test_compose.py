# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine import compose as compose_module
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.compose import (
    DEFAULT_FILES,
    Compose,
    Source,
    plugin,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError


class Recorded:
    """Stands in for run_command: remembers the call and answers it."""

    def __init__(self, out="", err="", code=0):
        self.answer = (code, out, err)

    def __call__(self, argv, environment, directory, stdin):
        self.argv, self.environment, self.directory, self.stdin = list(argv), dict(environment), directory, stdin
        return self.answer


def compose(source=None, **answer):
    run = Recorded(**answer)
    return Compose(run, "/usr/bin/docker", source or Source(directory="/srv/p")), run


def test_variables_are_asked_for_in_words_that_every_compose_knows():
    asked, run = compose(
        Source(directory="/srv/p", env_files=("e",), files=("a.yml",)),
        out='{"x-asked": {"A": ["1", "set"], "EMPTY": ["", "set"], "UNSET": ["", ""]}}',
    )
    assert asked.variables(["A", "EMPTY", "UNSET"]) == {"A": "1", "EMPTY": ""}
    words = "compose -f - --project-directory /srv/p --env-file e config --format json"
    assert " ".join(run.argv[1:]) == words
    assert json.loads(run.stdin)["x-asked"]["A"] == ["${A-}", "${A+set}"]


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        (Source(directory="/srv/p"), "--project-directory /srv/p"),
        (
            Source(directory="/srv/p", files=("a.yml", "b.yml"), env_files=("e", "f")),
            "-f a.yml -f b.yml --project-directory /srv/p --env-file e --env-file f",
        ),
        (Source(directory="/srv/p", profiles=("x", "y")), "--project-directory /srv/p --profile x --profile y"),
        (Source(directory="/srv/p", name="n"), "--project-directory /srv/p --project-name n"),
        (Source(definition={"services": {}}, name="n"), "-f - --project-name n"),
        (Source(definition={}, directory="/srv/p", name="n"), "-f - --project-directory /srv/p --project-name n"),
    ],
)
def test_a_source_in_compose_s_own_words(source, flags):
    asked, run = compose(source)
    asked.profiles()
    assert " ".join(run.argv) == f"/usr/bin/docker compose {flags} config --profiles"
    assert run.directory == source.directory


def test_only_the_services_that_are_asked_for():
    asked, run = compose(Source(directory="/srv/p", services=("web", "db")), out='{"name": "p"}')
    assert asked.model() == ({"name": "p"}, [])
    assert run.argv[-5:] == ["config", "--format", "json", "web", "db"]


def test_an_inline_project_goes_through_standard_input_and_not_into_the_arguments():
    definition = {"services": {"web": {"environment": {"PASSWORD": "hunter22"}}}}
    asked, run = compose(Source(definition=definition, name="n"), out="{}")
    asked.model()
    assert json.loads(run.stdin) == definition
    assert "hunter22" not in str(run.argv) + str(run.environment)


def test_a_question_of_compose_s_is_answered_and_does_not_wait_for_ever():
    asked, run = compose()
    asked.pull("unix:///s", ["web"])
    assert run.stdin == "\n"


@pytest.mark.parametrize("variable", ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS"])
def test_the_caller_s_shell_cannot_send_compose_elsewhere(variable):
    asked, run = compose()
    asked.create("unix:///view", ["web"])
    assert run.environment["DOCKER_HOST"] == "unix:///view"
    assert run.environment[variable] == ""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda asked: asked.create("unix:///v", ["web", "db"]), "create --no-recreate --no-build --pull never web db"),
        (lambda asked: asked.pull("unix:///v", ["web"]), "pull --quiet web"),
        (lambda asked: asked.build("unix:///v", ["web"]), "build web"),
    ],
)
def test_what_compose_is_told_to_do(call, words):
    asked, run = compose()
    call(asked)
    assert " ".join(run.argv).endswith(f" {words}")


def test_services_of_every_profile():
    asked, run = compose(Source(directory="/srv/p", profiles=("x",)), out="web\ndb\n")
    assert asked.all_services() == ["web", "db"]
    assert [word for word in run.argv if word in ("x", "*")] == ["*"]


def test_hashes_are_those_of_the_resolved_model():
    asked, run = compose(out="web 0a1b\ndb 2c3d\n")
    model = {"name": "p", "services": {"web": {"image": "a", "depends_on": {"elsewhere": {}}}}}
    assert asked.hashes(model) == {"web": "0a1b", "db": "2c3d"}
    # What it depends on may be in a profile that is not enabled: the model would not be valid with it.
    assert json.loads(run.stdin) == {"name": "p", "services": {"web": {"image": "a"}}}
    assert run.argv[2:4] == ["-f", "-"]


def test_variables():
    asked, _ = compose(out="A=1\nURL=postgres://h/x?a=b\nEMPTY=\nnonsense\n")
    assert asked.environment() == {"A": "1", "URL": "postgres://h/x?a=b", "EMPTY": ""}


def test_a_failure_is_an_error_in_words():
    asked, _ = compose(code=15, err="yaml: line 2: mapping values are not allowed in this context\n")
    with pytest.raises(ShipshapeError, match="line 2: mapping values") as raised:
        asked.model()
    assert [at.code for at in raised.value.findings] == ["compose-file-invalid"]


# -- what is wrong before Compose is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "source", "problem"),
    [
        (["compose.yaml"], {}, None),
        (["docker-compose.yml"], {}, None),
        ([], {}, "holds no Compose file"),
        (["other.yml"], {}, "holds no Compose file"),
        (["other.yml"], {"files": ("other.yml",)}, None),
        (["compose.yaml"], {"files": ("other.yml",)}, "other.yml: does not exist"),
        (["compose.yaml"], {"env_files": ("e",)}, "e: does not exist"),
        (["compose.yaml", "e"], {"env_files": ("e",)}, None),
        ([], {"definition": {}, "name": "n"}, None),
        ([], {"definition": {}, "name": "n", "env_files": ("e",)}, "e: does not exist"),
    ],
)
def test_files_that_must_be_there(tmp_path, monkeypatch, present, source, problem):
    monkeypatch.delenv("COMPOSE_FILE", raising=False)
    for name in present:
        (tmp_path / name).touch()
    found = Source(directory=str(tmp_path), **source).problem()
    assert (found is None) == (problem is None)
    if found is not None:
        assert problem in found.sentence()
        assert (found.severity, found.code) == ("critical", "compose-file-missing")


def test_a_directory_that_is_not_there(tmp_path):
    assert "is not a directory on the target" in Source(directory=str(tmp_path / "none")).problem().message


def test_a_file_that_is_named_in_the_environment_is_looked_for_by_compose(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPOSE_FILE", "else.yml")
    assert Source(directory=str(tmp_path)).problem() is None


def test_files_without_a_directory(tmp_path):
    (tmp_path / "there.yml").touch()
    assert Source(files=(str(tmp_path / "there.yml"),)).problem() is None
    assert "none.yml: does not exist" in Source(files=(str(tmp_path / "none.yml"),)).problem().sentence()


def test_whatever_lies_in_the_working_directory_is_not_meant(tmp_path, monkeypatch):
    (tmp_path / "compose.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert Source(name="p").problem().code == "compose-file-missing"


@pytest.mark.parametrize(
    ("present", "source", "spoken"),
    [
        (["compose.yaml"], {}, "{}/compose.yaml"),
        (["compose.yml", "docker-compose.yml"], {}, "{}/compose.yml"),
        ([], {}, ""),
        ([], {"files": ("a.yml", "b.yml")}, "{0}/a.yml, {0}/b.yml"),
        ([], {"files": ("/x/a.yml",)}, "/x/a.yml"),
        (["compose.yaml"], {"definition": {}}, "definition"),
    ],
)
def test_how_the_project_s_files_are_called_in_a_message(tmp_path, present, source, spoken):
    for name in present:
        (tmp_path / name).touch()
    assert Source(directory=str(tmp_path), **source).spoken == spoken.format(tmp_path)


def test_options():
    options = {
        "project_src": "/srv/p",
        "files": None,
        "env_files": ["e"],
        "profiles": [],
        "project_name": "n",
        "definition": None,
        "services": ["web"],
        "state": "present",
    }
    assert Source.from_options(options) == Source("/srv/p", (), ("e",), (), "n", None, ("web",))


def test_compose_s_own_order_of_names():
    assert DEFAULT_FILES == ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def plugin_of(tmp_path, monkeypatch, docker=b"\x7fELF", config=None, mode=0o755):
    """What `plugin` finds for a CLI of these bytes, with one plugin in the user's own directory."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    own = tmp_path / "cli-plugins" / "docker-compose"
    own.parent.mkdir()
    own.write_bytes(b"\x7fELF")
    own.chmod(mode)
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    cli = tmp_path / "docker"
    cli.write_bytes(docker)
    return plugin(str(cli)), str(own)


def test_the_users_own_plugin_comes_first(tmp_path, monkeypatch):
    found, own = plugin_of(tmp_path, monkeypatch, config='{"auths": {}}')
    assert found == own


def test_a_plugin_that_cannot_be_run_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(compose_module, "_PLUGINS", ())
    monkeypatch.setattr(compose_module.os, "access", lambda path, mode: False)
    assert plugin_of(tmp_path, monkeypatch)[0] is None


@pytest.mark.parametrize(
    "given", [{"docker": b"#!/bin/sh\nexec /usr/bin/docker"}, {"config": '{"cliPluginsExtraDirs": ["/opt"]}'}]
)
def test_a_wrapper_and_directories_of_the_users_are_left_to_the_cli(tmp_path, monkeypatch, given):
    assert plugin_of(tmp_path, monkeypatch, **given)[0] is None


def test_the_plugin_is_called_by_itself():
    run = Recorded(out="2.26.1")
    Compose(run, "/usr/bin/docker", Source(directory="/srv/p"), "/x/docker-compose").version()
    assert run.argv == ["/x/docker-compose", "version", "--short"]
