# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation says of options is what the modules take."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.shipshape.deploy.plugins.doc_fragments import docker, pool, project
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.arguments import (
    DOCKER_OPTIONS,
    LOOK_OPTIONS,
    PROJECT_OPTIONS,
    PROJECT_RULES,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.endpoint import DEFAULT_HOST
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.arguments import POOL_OPTIONS

PLUGINS = "ansible_collections.shipshape.deploy.plugins"
MODULES = sorted(
    path.stem for path in Path(importlib.import_module(docker.__name__).__file__).parents[1].glob("modules/*.py")
)


def fragment(module, part="DOCUMENTATION"):
    return yaml.safe_load(getattr(module.ModuleDocFragment, part))["options"]


def told(option):
    """An option's spec or documentation, reduced to what both have to agree on."""
    return {
        "type": option.get("type", "str"),
        "elements": option.get("elements"),
        "default": option.get("default"),
        "required": option.get("required", False),
        "choices": option.get("choices"),
        "aliases": sorted(option.get("aliases") or []),
    }


def assert_same(spec, documented):
    assert set(spec) == set(documented)
    for name, option in spec.items():
        assert told(option) == told(documented[name]), name
        below = documented[name].get("suboptions")
        assert ("options" in option) == bool(below), name
        if below:
            assert_same(option["options"], below)


# By their names in `extends_documentation_fragment`, without that of the collection.
FRAGMENTS = {
    "docker": (DOCKER_OPTIONS, fragment(docker)),
    "project": (PROJECT_OPTIONS, fragment(project)),
    "pool": (POOL_OPTIONS, fragment(pool)),
    "project.look": (LOOK_OPTIONS, fragment(project, "LOOK")),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments(name):
    assert_same(*FRAGMENTS[name])


@pytest.mark.parametrize("name", sorted(DOCKER_OPTIONS))
def test_the_environment_that_an_option_falls_back_to_is_documented(name):
    text = " ".join(fragment(docker)[name]["description"])
    fallback = DOCKER_OPTIONS[name].get("fallback")
    named = set(re.findall(r"E\((\w+)\)", text)) - {"DOCKER_CERT_PATH"}
    assert named == (set(fallback[1]) if fallback else set())


class Called(Exception):  # noqa: N818  (no error: it carries the arguments out)
    pass


def called_with(name, monkeypatch):
    """What module `name` passes to AnsibleModule."""
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")

    def called(*arguments, **keywords):
        assert not arguments
        raise Called(keywords)

    monkeypatch.setattr(module, "AnsibleModule", called)
    with pytest.raises(Called) as raised:
        module.main()
    return module, raised.value.args[0]


@pytest.mark.parametrize("name", MODULES)
def test_each_module_takes_what_it_documents(name, monkeypatch):
    module, keywords = called_with(name, monkeypatch)
    documented = yaml.safe_load(module.DOCUMENTATION)
    options = dict(documented.get("options") or {})
    for one in documented.get("extends_documentation_fragment") or []:
        _, _, fragment_name = one.partition("shipshape.deploy.")
        options.update(FRAGMENTS.get(fragment_name, ({}, {}))[1])
    # What begins with an underscore passes between an action plugin and its module.
    spec = {name: option for name, option in keywords["argument_spec"].items() if not name.startswith("_")}
    assert_same(spec, options)
    assert keywords["supports_check_mode"] is True
    assert documented["module"] == name


@pytest.mark.parametrize("name", MODULES)
def test_each_module_s_examples_and_returns_can_be_read(name):
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")
    returned = yaml.safe_load(module.RETURN)
    assert {"actions", "findings"} <= set(returned)
    examples = yaml.safe_load(module.EXAMPLES)
    options = set(yaml.safe_load(module.DOCUMENTATION).get("options") or {})
    options = options.union(*(spec for spec, _ in FRAGMENTS.values()))
    for task in examples:
        used = task.get(f"shipshape.deploy.{name}")
        assert set(used or {}) <= options, task["name"]


@pytest.mark.parametrize("name", ["stack", "stack_info"])
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "one of the following is required: project_src, definition, project_name"),
        ({"definition": {}, "project_name": "n"}, None),
        ({"definition": {}}, "missing parameter(s) required by 'definition': project_name"),
        ({"definition": {}, "project_name": "n", "files": ["a"]}, "mutually exclusive: definition|files"),
        ({"project_src": "/srv/p", "stability": -1, "state": "gone"}, "state"),
        ({"project_src": "/srv/p", "files": ["a", "b"], "env_files": ["e"], "profiles": ["x"]}, None),
    ],
)
def test_rules_between_options(name, options, problem, monkeypatch):
    if name == "stack_info":
        options = {key: value for key, value in options.items() if key not in ("stability", "state")}
        problem = None if problem == "state" else problem
    _, keywords = called_with(name, monkeypatch)
    rules = {key: value for key, value in keywords.items() if key not in ("argument_spec", "supports_check_mode")}
    assert rules == PROJECT_RULES
    result = ArgumentSpecValidator(keywords["argument_spec"], **rules).validate(options)
    assert (result.error_messages == []) == (problem is None), result.error_messages
    assert problem is None or problem in " ".join(result.error_messages)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {},
            {"docker_host": DEFAULT_HOST, "tls": False, "validate_certs": False, "api_version": "auto", "timeout": 60},
        ),
        ({"DOCKER_HOST": "tcp://h:2375"}, {"docker_host": "tcp://h:2375"}),
        ({"DOCKER_TLS_VERIFY": "1"}, {"validate_certs": True}),
        ({"DOCKER_TLS": "true", "DOCKER_TLS_HOSTNAME": "h"}, {"tls": True, "tls_hostname": "h"}),
        ({"DOCKER_API_VERSION": "1.41", "DOCKER_TIMEOUT": "5"}, {"api_version": "1.41", "timeout": 5}),
        # The Docker CLI takes an empty variable for one that is not set.
        ({"DOCKER_TLS_VERIFY": "", "DOCKER_TLS": ""}, {"tls": False, "validate_certs": False}),
    ],
)
def test_what_docker_users_have_in_their_environment(environment, expected, monkeypatch):
    for variable in ("HOST", "TLS", "TLS_VERIFY", "TLS_HOSTNAME", "API_VERSION", "TIMEOUT"):
        monkeypatch.delenv(f"DOCKER_{variable}", raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    result = ArgumentSpecValidator(DOCKER_OPTIONS).validate({})
    assert result.error_messages == []
    assert {name: result.validated_parameters[name] for name in expected} == expected


def test_what_is_written_in_the_task_counts_more_than_the_environment(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    result = ArgumentSpecValidator(DOCKER_OPTIONS).validate({"docker_url": "unix:///here.sock"})
    assert result.validated_parameters["docker_host"] == "unix:///here.sock"
