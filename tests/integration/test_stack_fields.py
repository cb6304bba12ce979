# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift of kind `desired` on a real engine: every field of a service added, changed and removed, and named as it is
called in the Compose file. `docker_container` overlooks 27 of 77 such removals with its defaults (PEERS).

What the container is afterwards is read off the engine: a field that is only reported would be no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.support.engine import BUSYBOX, Project, unique
from tests.support.stacks import Drift, Stack, check, leaks, told

STAY = "trap 'exit 143' TERM HUP; sleep 3600 & wait"


@dataclass(frozen=True)
class Field:
    """One field: two values, and where the inspect document shows which one it is ('' where it does not). `beside` is
    what the resolved model gets besides. A switch has one value only: Compose takes `false` for absent."""

    first: Any
    second: Any
    where: str
    beside: frozenset[str] = frozenset()

    @property
    def switch(self) -> bool:
        return self.first == self.second


def switch(where: str) -> Field:
    return Field(True, True, where)


# By service: what can stand together in one. Dots lead to what is nested.
SERVICES: dict[str, dict[str, Field]] = {
    "process": {
        "command": Field(["sh", "-c", f"{STAY} # 1"], ["sh", "-c", f"{STAY} # 2"], "Config.Cmd"),
        "entrypoint": Field(["env", "A=1"], ["env", "A=2"], "Config.Entrypoint"),
        "environment.COLOUR": Field("blue", "red", "Config.Env"),
        "environment.DB_PASSWORD": Field("{secret}-1", "{secret}-2", "Config.Env"),
        "environment.EMPTY": Field("", "x", "Config.Env"),
        "user": Field("nobody", "0:0", "Config.User"),
        "working_dir": Field("/tmp", "/srv", "Config.WorkingDir"),
        "stop_signal": Field("SIGTERM", "SIGHUP", "Config.StopSignal"),
        "stop_grace_period": Field("3s", "4s", "Config.StopTimeout"),
        "init": Field(True, False, "HostConfig.Init"),
        "tty": switch("Config.Tty"),
        "stdin_open": switch("Config.OpenStdin"),
        "hostname": Field("one", "two", "Config.Hostname"),
        "domainname": Field("one.test", "two.test", "Config.Domainname"),
        "labels.org.example.colour": Field("blue", "red", "Config.Labels"),
        "annotations.org.example.colour": Field("blue", "red", "HostConfig.Annotations"),
    },
    "limits": {
        "mem_limit": Field("64m", "96m", "HostConfig.Memory"),
        "mem_reservation": Field("32m", "48m", "HostConfig.MemoryReservation"),
        "memswap_limit": Field("128m", "192m", "HostConfig.MemorySwap"),
        "cpus": Field("0.5", "0.75", "HostConfig.NanoCpus"),
        "cpu_shares": Field(512, 256, "HostConfig.CpuShares"),
        "cpuset": Field("0", "0-1", "HostConfig.CpusetCpus"),
        "pids_limit": Field(50, 60, "HostConfig.PidsLimit"),
        "oom_score_adj": Field(500, 600, "HostConfig.OomScoreAdj"),
        "shm_size": Field("32m", "48m", "HostConfig.ShmSize"),
        "ulimits.nproc": Field(4000, 5000, "HostConfig.Ulimits"),
        "ulimits.nofile.soft": Field(1024, 2048, "HostConfig.Ulimits"),
        "ulimits.nofile.hard": Field(4096, 8192, "HostConfig.Ulimits"),
    },
    "quota": {
        "cpu_period": Field(50000, 60000, "HostConfig.CpuPeriod"),
        "cpu_quota": Field(20000, 30000, "HostConfig.CpuQuota"),
        "deploy.resources.limits.memory": Field("64M", "96M", "HostConfig.Memory"),
        "deploy.restart_policy.condition": Field("any", "on-failure", "HostConfig.RestartPolicy"),
    },
    "security": {
        "cap_add": Field(["NET_ADMIN"], ["SYS_TIME"], "HostConfig.CapAdd"),
        "cap_drop": Field(["MKNOD"], ["CHOWN"], "HostConfig.CapDrop"),
        "security_opt": Field(["no-new-privileges:true"], ["label:disable"], "HostConfig.SecurityOpt"),
        "group_add": Field(["10"], ["20"], "HostConfig.GroupAdd"),
        "read_only": switch("HostConfig.ReadonlyRootfs"),
        "tmpfs": Field(["/t"], ["/t:size=1m"], "HostConfig.Tmpfs"),
        "devices": Field(["/dev/null:/dev/x"], ["/dev/zero:/dev/x"], "HostConfig.Devices"),
        "device_cgroup_rules": Field(["c 1:3 r"], ["c 1:5 r"], "HostConfig.DeviceCgroupRules"),
        "sysctls.net.core.somaxconn": Field(1024, 2048, "HostConfig.Sysctls"),
        "userns_mode": Field("host", "host", "HostConfig.UsernsMode"),
    },
    "privileged": {"privileged": switch("HostConfig.Privileged")},
    "names": {
        "dns": Field(["192.0.2.1"], ["192.0.2.2"], "HostConfig.Dns"),
        "dns_opt": Field(["ndots:2"], ["ndots:3"], "HostConfig.DnsOptions"),
        "dns_search": Field(["one.test"], ["two.test"], "HostConfig.DnsSearch"),
        "extra_hosts": Field(["peer:192.0.2.1"], ["peer:192.0.2.2"], "HostConfig.ExtraHosts"),
        "mac_address": Field("02:42:ac:11:65:43", "02:42:ac:11:65:44", "NetworkSettings.Networks"),
        "expose": Field(["8000"], ["8001"], "Config.ExposedPorts"),
        "ports": Field(["80"], ["81/udp"], "HostConfig.PortBindings"),
        "links": Field(["still:one"], ["still:two"], "NetworkSettings.Networks"),
        "networks.default.aliases": Field(["one"], ["two"], "NetworkSettings.Networks"),
        "networks.front": Field({}, {"aliases": ["www"]}, "NetworkSettings.Networks"),
    },
    "checks": {
        "healthcheck.test": Field(["CMD", "test", "-e", "/bin"], ["CMD-SHELL", "test -e /"], "Config.Healthcheck.Test"),
        "healthcheck.interval": Field("0.2s", "0.3s", "Config.Healthcheck.Interval"),
        "healthcheck.timeout": Field("4s", "5s", "Config.Healthcheck.Timeout"),
        "healthcheck.retries": Field(3, 4, "Config.Healthcheck.Retries"),
        "healthcheck.start_period": Field("6s", "7s", "Config.Healthcheck.StartPeriod"),
        "logging.driver": Field("json-file", "local", "HostConfig.LogConfig"),
        "logging.options.max-size": Field("1m", "2m", "HostConfig.LogConfig"),
        "restart": Field("always", "on-failure:3", "HostConfig.RestartPolicy"),
    },
    "files": {
        "volumes": Field(["data:/data"], ["./:/here:ro"], "Mounts"),
        "configs": Field(["app"], [{"source": "app", "target": "/etc/app"}], "", frozenset({"configs_content.app"})),
        "secrets": Field(["key"], [{"source": "key", "target": "other"}], "", frozenset({"secrets_content.key"})),
    },
    # Compose 2.26 does not pass on `:ro`, so that there is nothing but to have it or not.
    "lender": {"volumes_from": Field(["still"], ["still"], "Mounts")},
    "spaces": {
        "ipc": Field("host", "shareable", "HostConfig.IpcMode"),
        "uts": Field("host", "host", "HostConfig.UTSMode"),
        "pid": Field("host", "host", "HostConfig.PidMode"),
        "cgroup": Field("host", "private", ""),
        "cgroup_parent": Field("/shipshape-one", "/shipshape-two", "HostConfig.CgroupParent"),
        "runtime": Field("io.containerd.runc.v2", "io.containerd.runc.v2", "HostConfig.Runtime"),
        "network_mode": Field("none", "host", "HostConfig.NetworkMode", frozenset({"networks.default"})),
    },
    "fixed": {"container_name": Field("{name}-one", "{name}-two", "Name")},
}
TOP = {
    "volumes": {"data": {}},
    "networks": {"default": {}, "front": {}},
    "configs": {"app": {"file": "./app.conf"}},
    "secrets": {"key": {"file": "./key"}},
}


def put(keys: dict[str, Any], path: str, value: Any) -> None:
    """Sets what `path` leads to. What belongs to a mapping of free names ends there, dots and all."""
    head, _, rest = path.partition(".")
    if not rest:
        keys[head] = value
    elif head in ("environment", "labels", "annotations", "sysctls") or "." not in rest:
        keys.setdefault(head, {})[rest] = value
    else:
        put(keys.setdefault(head, {}), rest, value)


def shown(document: Mapping[str, Any], where: str) -> Any:
    found: Any = document
    for key in where.split("."):
        found = (found or {}).get(key)
    if where == "Config.Hostname" and found == document["Id"][:12]:
        return None  # the engine's own choice
    if where == "Config.Labels":
        return {key: value for key, value in found.items() if not key.startswith(("com.docker.", "io.shipshape."))}
    if where == "NetworkSettings.Networks":
        keep = ("Aliases", "Links", "IPAMConfig")
        mac = document["Config"].get("MacAddress")
        return mac, {name: [sorted(at.get(key) or []) for key in keep] for name, at in found.items()}
    return found


@pytest.fixture
def stack(project: Project) -> Stack:
    """With an image of its own that stays by itself, so that a service can do without any field."""
    docker, seed = project.engine.docker, f"{project.name}-seed"
    command = f'CMD ["sh", "-c", "{STAY}"]'
    docker("create", "--name", seed, BUSYBOX)
    docker("commit", "--change", command, seed, f"{project.name}-stay:1")
    docker("rm", seed)
    (project.folder / "app.conf").write_text("colour=blue\n", encoding="utf-8")
    (project.folder / "key").write_text(unique("key"), encoding="utf-8")
    return Stack(project)


class Fields:
    """The project with every field at its first value, at its second, or without any."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.secret = stack, unique("pw")

    def deploy(self, stage: str) -> dict[str, Any]:
        services: dict[str, dict[str, Any]] = {"still": {"volumes": ["data:/data"]}}
        for name, fields in SERVICES.items():
            keys = services.setdefault(name, {})
            for path, field in fields.items():
                if stage:
                    put(keys, path, self._filled(getattr(field, stage)))
            if "network_mode" not in keys and "networks" not in keys:
                keys["networks"] = {"default": {}}
            if name == "names" and stage:
                keys["networks"].setdefault("default", {})
        for keys in services.values():
            keys["image"] = f"{self.stack.name}-stay:1"
        self.stack.write(services, **TOP)
        return self.stack.predicted()[1]

    def _filled(self, value: Any) -> Any:
        return value.format(name=self.stack.name, secret=self.secret) if isinstance(value, str) else value

    def seen(self) -> dict[tuple[str, str], Any]:
        """What the engine says, per field."""
        by_service = {
            document["Config"]["Labels"]["com.docker.compose.service"]: document
            for document in self.stack.containers().values()
        }
        return {
            (name, path): shown(by_service[name], field.where)
            for name, fields in SERVICES.items()
            for path, field in fields.items()
            if field.where
        }

    def expected(self, switches: bool) -> Drift:
        """The drift of a stage in which every field moved; switches, and what stands beside, only come and go."""
        paths = {
            (name, path)
            for name, fields in SERVICES.items()
            for key, field in fields.items()
            if switches or not field.switch
            for path in (key, *(field.beside if switches else ()))
        }
        return {(name, "desired", path, "recreate") for name, path in paths}


def test_every_field_added_changed_and_removed(stack: Stack) -> None:
    fields = Fields(stack)
    fields.deploy("")
    bare, still = fields.seen(), stack.identities("still")

    added = fields.deploy("first")
    first = fields.seen()
    # Three further runs see nothing in all that was set: neither defaults that the engine fills in, nor its spellings.
    stack.unchanged()
    stack.unchanged()
    stack.unchanged(check=True)
    stack.up_finds_nothing_to_do()
    changed = fields.deploy("second")
    second = fields.seen()
    removed = fields.deploy("")

    # A network is named by what is said of it, if anything is.
    bare_front, front = (("names", "desired", f"networks.{key}", "recreate") for key in ("front", "front.aliases"))
    assert told(added) == fields.expected(True)
    assert told(changed) == fields.expected(False) - {bare_front} | {front}
    assert told(removed) == fields.expected(True) - {bare_front} | {front}
    assert fields.seen() == bare
    same = [at for at in bare if first[at] == bare[at]]
    same += [
        at for at in bare if second[at] == bare[at] or (second[at] == first[at] and not SERVICES[at[0]][at[1]].switch)
    ]
    assert not same, f"reported, and yet the container is what it was: {same}"
    assert stack.identities("still") == still
    stack.up_finds_nothing_to_do()
    assert not leaks([fields.secret], *stack.printed)
    for result in (added, changed, removed):
        masked = [at for at in result["drift"] if at["field"] == "environment.DB_PASSWORD"]
        assert {at["wanted"] for at in masked} | {at["found"] for at in masked} <= {None, "***"}


def test_values_are_shown_where_they_hide_nothing(stack: Stack) -> None:
    image = f"{stack.name}-stay:1"
    stack.write({"web": {"image": image, "mem_limit": "64m", "healthcheck": check("test -e /tmp")}})
    stack.deploy()
    stack.write({"web": {"image": image, "mem_limit": "96m", "environment": {"A": "1"}}})
    _, result = stack.predicted()
    told_of = {at["field"]: (at["found"], at["wanted"]) for at in result["drift"]}
    assert told_of["mem_limit"] == ("67108864", "100663296")
    assert told_of["healthcheck.test"] == (["CMD-SHELL", "test -e /tmp"], None)
    assert told_of["environment.A"] == (None, "***")
    before, after = result["diff"]["before"], result["diff"]["after"]
    assert all(f"{stack.name}-web-1 mem_limit: " in side for side in (before, after))
    assert ("healthcheck.test" in before, "healthcheck.test" in after) == (True, False)


# -- what is no change ------------------------------------------------------------------------------------------------

SHORT = """
services:
  web:
    image: {image}
    entrypoint: env A=1
    command: sh -c "sleep 3600"
    environment: [COLOUR=blue, "PRICE=5$$", "SIZE=10", "DEBUG=true"]
    labels: ["org.example.a=1", org.example.b=two]
    extra_hosts: ["peer:192.0.2.1"]
    sysctls: ["net.core.somaxconn=1024"]
    ports: ["127.0.0.1::8080", "9000/udp"]
    volumes: ["data:/data", "./app.conf:/etc/app.conf:ro"]
    networks: [default, front]
    depends_on: [db]
    dns: 192.0.2.1
    tmpfs: /t
    mem_limit: 64m
    cpus: 0.5
    stop_grace_period: 90s
    stop_signal: SIGKILL
    healthcheck: {{test: test -e /tmp, interval: 1s}}
    configs: [app]
    env_file: one.env
  db: {{image: "{image}"}}
volumes: {{data: }}
networks: {{front: , default: }}
configs: {{app: {{file: app.conf}}}}
"""
LONG = """
# The same in other words, in another order, with variables, anchors and an extension.
x-image: &image
  image: ${{IMAGE:-{image}}}
x-unused: {{anything: goes}}
configs:
  app:
    file: ./app.conf
networks:
  default: {{}}
  front: {{}}
services:
  db:
    <<: *image
    x-note: nobody reads this
  web:
    <<: *image
    env_file:
      - path: two.env
        required: true
    configs:
      - source: app
    healthcheck:
      interval: 1000ms
      test: ["CMD-SHELL", "test -e /tmp"]
    stop_signal: SIGKILL
    stop_grace_period: 1m30s
    cpus: "0.50"
    mem_limit: 67108864
    tmpfs: [/t]
    dns: [192.0.2.1]
    depends_on:
      db:
        condition: service_started
    networks:
      front:
      default:
    volumes:
      - {{type: volume, source: data, target: /data, volume: {{}}}}
      - {{type: bind, source: ./app.conf, target: /etc/app.conf, read_only: true, bind: {{create_host_path: true}}}}
    ports:
      - {{target: 8080, host_ip: 127.0.0.1}}
      - {{target: 9000, protocol: udp}}
    sysctls: {{net.core.somaxconn: "1024"}}
    extra_hosts: {{peer: 192.0.2.1}}
    labels:
      org.example.b: two
      org.example.a: "1"
    environment:
      PRICE: 5$$
      COLOUR: ${{COLOUR:-blue}}
    command: ["sh", "-c", "sleep 3600"]
    entrypoint: ["env", "A=1"]
volumes:
  data:
"""


def test_the_same_in_other_words_is_no_drift(stack: Stack) -> None:
    """And plain Compose thinks so too: otherwise these words would not be the same."""
    image = f"{stack.name}-stay:1"
    (stack.project.folder / "one.env").write_text("FROM_FILE=1\n", encoding="utf-8")
    (stack.project.folder / "two.env").write_text("# moved\nSIZE=10\nFROM_FILE='1'\nDEBUG=true\n", encoding="utf-8")
    assert yaml.safe_load(SHORT.format(image=image)) != yaml.safe_load(LONG.format(image=image))
    stack.project.write(SHORT.format(image=image))
    stack.deploy()
    before = stack.identities()
    for text in (LONG, SHORT, LONG):
        stack.project.write(text.format(image=image))
        stack.unchanged()
        stack.unchanged(check=True)
    stack.up_finds_nothing_to_do()
    assert stack.identities() == before


def test_what_compose_and_the_engine_do_by_hand_is_no_drift(stack: Stack) -> None:
    """Restarted, stopped and started, made anew by plain Compose: still what the file says."""
    web = {"image": f"{stack.name}-stay:1", "restart": "unless-stopped", "environment": {"A": "1"}}
    stack.write({"web": web, "db": {**web, "deploy": {"replicas": 2}}})
    stack.deploy()
    for words in (["restart"], ["stop"], ["start"], ["up", "-d", "--force-recreate"], ["restart", "web"]):
        stack.project.compose(*words)
        if words != ["stop"]:
            stack.unchanged()
    stack.write({"web": {**web, "environment": {}}, "db": {**web, "deploy": {"replicas": 2}}})
    _, result = stack.predicted()
    assert {(at["service"], at["kind"], at["action"]) for at in result["drift"]} == {("web", "desired", "recreate")}
