# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a target once and says what role engine has to do there: prints one JSON object, changes nothing.

Run by the target's own Python (>= 3.9, standard library only); what is wanted comes in ENGINE_WANTED as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

SOCKET = "/var/run/docker.sock"
PIDFILE = "/var/run/docker.pid"
DAEMON_JSON = "/etc/docker/daemon.json"
# In /run, so that a reboot, which is a restart too, clears it.
PENDING = "/run/shipshape/engine-restart-pending.json"
SUPPORTED = {("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}
DOCKER_PACKAGES = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]
DEBIAN_PACKAGES = ["docker.io", "docker-cli", "docker-compose", "docker-buildx"]
UBUNTU_PACKAGES = ["docker.io", "docker-compose-v2", "docker-buildx"]
# What dockerd takes over on SIGHUP (docs.docker.com, "Configuration reload behavior").
RELOADED = {
    "debug", "labels", "live-restore", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts",
    "default-runtime", "runtimes", "authorization-plugins", "insecure-registries", "registry-mirrors",
    "shutdown-timeout", "features",
}  # fmt: skip
# What running containers do not survive, live restore or not: it moves the ground that they stand on.
MOVES_GROUND = {
    "data-root", "exec-root", "storage-driver", "storage-opts", "bridge", "bip", "fixed-cidr", "userns-remap",
    "cgroup-parent", "exec-opts", "default-address-pools", "iptables", "ip-forward", "ip-masq", "containerd",
}  # fmt: skip


def os_release(text):
    pairs = re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE)
    found = dict(pairs)
    return found.get("ID", ""), found.get("VERSION_ID", ""), found.get("VERSION_CODENAME", "")


def mirrors(texts):
    """The machine's own Debian mirrors: {"main": (uri, keyring), "security": (uri, keyring)}."""
    found = {}
    for text in texts:
        for stanza in re.split(r"\n\s*\n", text):
            uri = re.search(r"^URIs:\s*(\S+)", stanza, re.MULTILINE)
            suites = re.search(r"^Suites:\s*(.+)", stanza, re.MULTILINE)
            if uri and suites and not re.search(r"^Enabled:\s*no", stanza, re.MULTILINE | re.IGNORECASE):
                key = re.search(r"^Signed-By:[ \t]*(/\S+)", stanza, re.MULTILINE)
                _keep(found, uri.group(1), suites.group(1).split(), key.group(1) if key else "")
        for options, uri, suite in re.findall(r"^deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE):
            key = re.search(r"signed-by=(/[^\s,]+)", options)
            _keep(found, uri, [suite], key.group(1) if key else "")
    return found


def _keep(found, uri, suites, key):
    if "bookworm" in suites:
        found.setdefault("main", (uri, key))
    elif "bookworm-security" in suites:
        found.setdefault("security", (uri, key))


def trixie_files(found):
    """The files with which Debian 12 takes Docker's packages, and nothing else, from Debian 13."""
    stanzas, pins = [], []
    for name, suite in (("main", "trixie"), ("security", "trixie-security")):
        if name not in found:
            continue
        uri, key = found[name]
        signed = f"\nSigned-By: {key}" if key else ""
        stanzas.append(f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main{signed}\n")
        pins.append(f"Package: *\nPin: release n={suite}\nPin-Priority: -10\n")
        pins.append(f"Package: {' '.join(DEBIAN_PACKAGES)}\nPin: release n={suite}\nPin-Priority: 900\n")
    head = "# Written by role shipshape.deploy.engine: Docker's packages, and only these, from Debian 13.\n"
    return {
        "/etc/apt/sources.list.d/shipshape-docker.sources": head + "\n".join(stanzas),
        "/etc/apt/preferences.d/shipshape-docker": head + "\n".join(pins),
    }


def docker_files(repository, distribution, codename, architecture):
    base = f"{repository.rstrip('/')}/{distribution}"
    stanza = (
        "# Written by role shipshape.deploy.engine.\n"
        f"Types: deb\nURIs: {base}\nSuites: {codename}\nComponents: stable\n"
        f"Architectures: {architecture}\nSigned-By: /etc/apt/keyrings/docker.asc\n"
    )
    return {"/etc/apt/sources.list.d/docker.sources": stanza}


def merged(present, wanted):
    """`wanted` merged into `present`, dictionaries key by key, and the top-level keys that this changes."""
    result = dict(present)
    for key, value in wanted.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value)[0] if both else value
    return result, sorted(key for key in wanted if key not in present or present[key] != result[key])


def restart_verdict(keys, engine, allowed):
    """For changed daemon.json keys: "none", "reload", "restart", or "withheld" with the reason."""
    if not engine["answers"]:
        return "none", ""
    if not set(keys) - RELOADED:
        return ("reload" if keys else "none"), ""
    if allowed or not engine["running"]:
        return "restart", ""
    ground = sorted(set(keys) & MOVES_GROUND)
    if ground:
        return "withheld", f"running containers do not survive a change of {', '.join(ground)}"
    if engine["live_restore"]:
        return "restart", ""
    return "withheld", "live-restore is off in the running engine"


def resolve_channel(wanted, installed, reachable):
    if wanted != "auto":
        return wanted
    if "docker-ce" in installed:
        return "docker"
    if "docker.io" in installed:
        return "distro"
    return "docker" if reachable() else "distro"


def packages_of(channel, distribution):
    if channel == "docker":
        return DOCKER_PACKAGES
    return [*(UBUNTU_PACKAGES if distribution == "ubuntu" else DEBIAN_PACKAGES), "iptables"]


class _Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def look_at_engine():
    none = {"answers": False, "version": "", "live_restore": False, "running": 0}
    try:
        connection = _Connection("localhost", timeout=10)
        connection.request("GET", "/info")
        info = json.loads(connection.getresponse().read())
        version = str(info["ServerVersion"])
        live_restore, running = bool(info["LiveRestoreEnabled"]), int(info["ContainersRunning"])
    except (OSError, ValueError, KeyError, TypeError):
        return none
    return {"answers": True, "version": version, "live_restore": live_restore, "running": running}


def engine_process():
    """Process id and start time: together they name one run of the engine."""
    try:
        pid = int(Path(PIDFILE).read_text(encoding="utf-8"))
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return {"pid": pid, "started": stat.rpartition(")")[2].split()[19]}


def pending_keys(process):
    """Keys that were written to daemon.json while the engine that still runs could not be restarted."""
    try:
        record = json.loads(Path(PENDING).read_text(encoding="utf-8"))
        return record["keys"] if process and record["process"] == process else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _start(*words):
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None


def _output(process):
    if process is None:
        return None
    out = process.communicate()[0].decode(errors="replace").strip()
    return out if process.returncode == 0 else None


def _read(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None


def _source_texts():
    folder = Path("/etc/apt/sources.list.d")
    ours = "shipshape-docker.sources"
    paths = [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list"))]
    return [text for text in (_read(path) for path in paths if path.name != ours) if text]


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def _which(name):
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/local/sbin", "/sbin"]
    return next((f"{folder}/{name}" for folder in folders if os.access(f"{folder}/{name}", os.X_OK)), "")


_VERSIONS = """
import importlib.metadata as m, importlib.util as u, sys
for wanted in sys.argv[1:]:
    name, _, version = wanted.partition("==")
    base, _, extra = name.partition("[")
    try:
        good = m.version(base) == version or not version
    except m.PackageNotFoundError:
        good = False
    if extra == "binary]":
        good = good and u.find_spec(base + "_binary") is not None
    if not good:
        print(wanted)
"""


def look(wanted):
    docker, dockerd = _which("docker"), _which("dockerd")
    compose = _start(docker, "compose", "version", "--short") if docker else None
    buildx = _start(docker, "buildx", "version") if docker else None
    venv = _start(f"{wanted['venv']}/bin/python", "-c", _VERSIONS, *wanted["python_packages"])
    stdlib = _start("/usr/bin/python3", "-c", "import ensurepip, venv")
    packages = {*DEBIAN_PACKAGES, *UBUNTU_PACKAGES, *DOCKER_PACKAGES, "iptables"}
    dpkg = _start("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *sorted(packages))
    engine = look_at_engine()
    rows = dpkg.communicate()[0].decode().splitlines() if dpkg else []
    installed = {row.split()[0] for row in rows if row.endswith(" installed")}
    tools = {"dockerd": dockerd, "docker": docker, "compose": _output(compose), "buildx": _output(buildx)}
    missing_python = _output(venv)
    return {
        "engine": engine,
        "tools": tools,
        "installed": sorted(installed),
        "manager": _manager(),
        "venv": {
            "missing": wanted["python_packages"] if missing_python is None else missing_python.split(),
            "interpreter_works": missing_python is not None,
            "ensurepip": _output(stdlib) is not None,
        },
        "problems": [] if os.geteuid() == 0 else ["the role engine needs root: set `become: true` for this host"],
    }


def _manager():
    if Path("/run/systemd/system").is_dir():
        return "systemd"
    return "init script" if os.access("/etc/init.d/docker", os.X_OK) else "none"


def plan_packages(wanted, seen):
    """What to install, from where: fills in channel, packages and files, or a problem."""
    distribution, version, codename = os_release(_read("/etc/os-release") or "")
    complete = all(seen["tools"].values()) or (
        seen["engine"]["answers"] and seen["tools"]["compose"] and seen["tools"]["buildx"]
    )
    asked_for = {"docker": "docker-ce", "distro": "docker.io"}.get(wanted["channel"])
    result = {"channel": "as installed", "packages": [], "files": {}, "key": ""}
    if complete and (asked_for is None or asked_for in seen["installed"]):
        return result
    if (distribution, version) not in SUPPORTED:
        names = ", ".join(" ".join(pair) for pair in sorted(SUPPORTED))
        lacking = ", ".join(name for name, found in seen["tools"].items() if not found) or f"package {asked_for}"
        seen["problems"].append(
            f"{distribution or 'this system'} {version} is none of {names}, and lacks {lacking}: "
            "install Docker Engine with the plugins compose and buildx by your own means, then run this again"
        )
        return result
    repository = wanted["repository"].rstrip("/")
    release = f"{repository}/{distribution}/dists/{codename}/Release"
    channel = resolve_channel(wanted["channel"], seen["installed"], lambda: _answers(release))
    packages = packages_of(channel, distribution)
    files, key = {}, ""
    if channel == "docker":
        architecture = _output(_start("dpkg", "--print-architecture")) or "amd64"
        files = docker_files(repository, distribution, codename, architecture)
        key = f"{repository}/{distribution}/gpg"
    elif (distribution, version) == ("debian", "12"):
        found = mirrors(_source_texts())
        if "main" not in found:
            seen["problems"].append(
                "no Debian mirror for bookworm is configured in /etc/apt, "
                "so Docker's packages cannot be taken from Debian 13 over it"
            )
        files = trixie_files(found)
    absent = [package for package in packages if package not in seen["installed"]]
    if not absent:
        lacking = ", ".join(name for name, found in seen["tools"].items() if not found)
        seen["problems"].append(
            f"the packages are installed, but {lacking} cannot be run: "
            f"`apt-get install --reinstall {' '.join(packages)}`"
        )
    return {
        "channel": channel,
        "packages": absent,
        "files": {path: text for path, text in files.items() if _read(path) != text},
        "key": key,
    }


def plan_daemon(wanted, seen):
    """What daemon.json is to hold, and what that means for the running engine."""
    text = _read(DAEMON_JSON)
    try:
        present = json.loads(text) if text and text.strip() else {}
        if not isinstance(present, dict):
            raise ValueError("it holds no object")
    except ValueError as error:
        if wanted["config"]:
            seen["problems"].append(
                f"{DAEMON_JSON} is not valid JSON ({error}): mend or remove it, then run this again"
            )
        present = {}
    config, keys = merged(present, wanted["config"])
    process = engine_process()
    due = sorted({*keys, *pending_keys(process)})
    verdict, reason = restart_verdict(due, seen["engine"], wanted["restart_allowed"])
    return {
        "content": json.dumps(config, indent=4) + "\n",
        "differs": bool(keys),
        "due": due,
        "verdict": verdict,
        "reason": reason,
        "record": json.dumps({"process": process, "keys": due}) + "\n",
    }


def main():
    wanted = json.loads(os.environ["ENGINE_WANTED"])
    seen = look(wanted)
    seen["install"] = plan_packages(wanted, seen)
    seen["daemon"] = plan_daemon(wanted, seen)
    todo = []
    if seen["install"]["packages"] or seen["install"]["files"]:
        todo.append(f"install {' '.join(seen['install']['packages'])} (channel {seen['install']['channel']})")
    if not seen["engine"]["answers"]:
        todo.append("start the engine")
    if seen["daemon"]["differs"]:
        todo.append(f"set {', '.join(seen['daemon']['due'])} in {DAEMON_JSON}")
    if seen["daemon"]["verdict"] in ("reload", "restart"):
        todo.append(f"{seen['daemon']['verdict']} the engine")
    if seen["venv"]["missing"]:
        todo.append(f"put {' '.join(seen['venv']['missing'])} into {wanted['venv']}")
    seen["todo"] = todo
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
