# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Compose prints when something is wrong, read into findings. Pure; the samples in the tests are recorded output.

The words of other programs change, so nothing is decided here but the code and the remedy: whatever is not recognised
is still reported, in Compose's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError

_LOG_LINE = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg="(?P<text>(?:[^"\\]|\\.)*)"')
_PLAIN_WARNING = re.compile(r"^(?:WARN\[\d+\]|WARNING:)\s*(?P<text>.*)")
_UNSET = re.compile(r'^The "(?P<name>[^"]+)" variable is not set')
_ENGINE_ERROR = re.compile(r"^(?:Error response from daemon|error during connect): (?P<text>.*)")
_FROM_ENGINE = "Error response from daemon: "

# After these words Compose quotes what stands in the file, and that may be a secret: the place is enough.
_QUOTING = re.compile(
    r".*(?:invalid interpolation format for [^\s:]+|"
    r"unexpected character .{1,6} in variable name|unterminated quoted value)"
)

# (what Compose says, our code, what to do). The first that matches counts.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"no space left on device",
        "disk-full",
        "Free space on the engine's data root (docker system df), then run this again",
    ),
    (
        r"is not a docker command|unknown command: docker compose|unknown shorthand flag: 'f'|unknown flag: --project-",
        "compose-plugin-missing",
        "Install the Compose v2 plugin on the target (role shipshape.deploy.engine does)",
    ),
    (
        r"requires buildx",
        "buildx-too-old",
        "Install the buildx that it asks for on the target, or build elsewhere and push the image",
    ),
    (
        r"did not complete successfully: exit|failed to load cache key|^unable to prepare context",
        "build-failed",
        "Read the build's last lines below and mend the Dockerfile",
    ),
    (
        r"toomanyrequests|rate limit",
        "registry-rate-limited",
        "Log in to the registry, wait, or pull through a mirror",
    ),
    (
        r"permission denied while trying to connect to the Docker daemon",
        "engine-permission-denied",
        "Run the task with become: true, or add the user to the docker group",
    ),
    (r"invalid reference format", "image-name-invalid", "Correct the image's name in the Compose file"),
    (
        r"pull access denied|repository does not exist|manifest unknown|not found: manifest|No such image",
        "image-not-found",
        "Check name and tag, push it, or log in to its registry",
    ),
    (
        r"unauthorized|authentication required|denied: requested access",
        "registry-login-required",
        "Log in to the registry on the target",
    ),
    (
        r"no such host|connection refused|i/o timeout|Client\.Timeout|network is unreachable|TLS handshake",
        "registry-unreachable",
        "Check the way to the registry, or put the image on the target (docker load, build)",
    ),
    (
        r"^failed to solve|failed to build",
        "build-failed",
        "Read the build's last lines below and mend the Dockerfile",
    ),
    (r"no configuration file provided", "compose-file-missing", "Check `project_src` and `files`"),
    (
        r"bind source path does not exist",
        "bind-source-missing",
        "Bring it there before the deploy, or let Compose make it (`bind: {create_host_path: true}`)",
    ),
    (
        r"no such file or directory|env file .* not found|[Cc]ouldn't find env file",
        "compose-file-missing",
        "Bring the file there, or mark it `required: false`",
    ),
    (
        r"required variable \S+ is missing a value|environment variable \S+ required by",
        "variable-required",
        "Set it in an env file or the environment",
    ),
    (
        r"in variable name|unterminated quoted value|key cannot contain",
        "env-file-invalid",
        "Mend that line of the env file: NAME=value, quotes closed",
    ),
    (
        r"invalid interpolation format|error while interpolating",
        "interpolation-invalid",
        "Mend the expression; a literal dollar is written $$",
    ),
    (
        r"yaml: |mapping values are not allowed|did not find expected",
        "compose-file-invalid",
        "Mend the YAML at that place",
    ),
    (
        r"Pool overlaps with other one",
        "subnet-in-use",
        "See which network has these addresses (docker network inspect), remove it, or give the project another subnet",
    ),
    (r"no such service", "service-unknown", "Check `services` against `docker compose config --services`"),
    (
        r"depends on undefined service|undefined service|depends on .* which is undefined",
        "dependency-undefined",
        "Define the service, enable the profile that holds it, or make the dependency `required: false`",
    ),
    (r"dependency cycle|cycle found", "dependency-cycle", "Break the circle of depends_on"),
    (
        r"undefined (network|volume|config|secret)|refers to undefined|declared as external, but could not be found",
        "reference-undefined",
        "Define it at the top level; one that is external must exist on the engine",
    ),
    (
        r"project name must not be empty|invalid project name",
        "project-name-invalid",
        "Set project_name, or `name:` in the Compose file; lower-case letters, digits, - and _",
    ),
    (
        (
            r"Additional propert|must be a|is not allowed|invalid compose project|validating |[Uu]nsupported|"
            r"has neither|empty compose file|unmarshal errors|failed to parse|Invalid hostPort|decoding |cannot extend|"
            r"mapping key|invalid "
        ),
        "compose-file-invalid",
        "Mend the key that is named",
    ),
)


def lines(err: str) -> tuple[list[str], list[str]]:
    """(warnings, everything else) of Compose's standard error, progress and log decoration removed."""
    warned: list[str] = []
    rest: list[str] = []
    for line in (text.strip() for text in err.splitlines()):
        logged = _LOG_LINE.match(line) or _PLAIN_WARNING.match(line)
        if logged:
            text = _unquoted(logged["text"])
            if logged.groupdict().get("level", "warning") in ("warning", "info", "debug"):
                warned.append(text)
            else:
                rest.append(text)
        elif line:
            rest.append(line)
    return warned, rest


def _unquoted(text: str) -> str:
    """A logged text without its escapes, on one line."""
    try:
        said = str(json.loads(f'"{text}"'))
    except ValueError:
        said = text.replace('\\"', '"')
    return " ".join(said.split())


def warnings(err: str, subject: str) -> list[Finding]:
    """Compose's warnings as findings; not the one on the `version` key, which is obsolete and harmless in old files."""
    found = []
    for text in dict.fromkeys(lines(err)[0]):
        unset = _UNSET.match(text)
        if unset:
            message = f"the variable {unset['name']} is not set, and an empty text stands in its place"
            remedy = f"Set {unset['name']} in an env file, or write ${{{unset['name']}:-}} where empty is meant"
            found.append(Finding(WARNING, subject, "variable-unset", message, remedy))
        elif "`version` is obsolete" not in text:
            found.append(Finding(WARNING, subject, "compose-warning", text))
    return found


def explained(subject: str, arguments: Sequence[str], out: str, err: str) -> ShipshapeError:
    """The error for a failed `docker compose`: its decisive line, with a stable code and a remedy."""
    _dummy, rest = lines(err or out)
    said = decisive(rest) or "it failed without a word"
    code, remedy = classified(said)
    verb = next((word for word in arguments if word in ("config", "pull", "build", "create", "run")), "")
    doing = {"pull": "pulling: ", "build": "building: ", "create": "creating: "}.get(verb, "")
    # A build's own output is the log of a failure that Compose only names; where it prints that depends on its version.
    told = [*lines(out)[1], *rest] if err else rest
    wordy = len(told) > 1 or verb == "run"
    logs = {f"docker compose {verb}": told[-20:]} if verb in ("build", "pull", "create", "run") and wordy else None
    return ShipshapeError(Finding(CRITICAL, subject, code, f"{doing}{said}", remedy), logs=logs)


_BEGINNINGS = ("validating ", "failed to ", "yaml: ", "decoding failed")


def classified(said: str) -> tuple[str, str]:
    """(code, remedy) for what Compose or the engine said."""
    for pattern, code, remedy in _KNOWN:
        if re.search(pattern, said):
            return code, remedy
    return "compose-failed", "Run the same command by hand on the target to see all of its output"


def decisive(rest: Sequence[str]) -> str:
    """The line that says why: the engine's own answer where there is one, else the last, with its continuation."""
    for line in reversed(rest):
        found = _ENGINE_ERROR.match(line)
        if found:
            return found["text"]
        if _FROM_ENGINE in line:
            return line.replace(_FROM_ENGINE, "")
    if not rest:
        return ""
    for line in rest:
        quoting = _QUOTING.search(line)
        if quoting:
            return quoting[0]
    # Compose's schema errors stand on several lines: "validating FILE: services.web ...".
    start = next((at for at, line in enumerate(rest) if line.startswith(_BEGINNINGS)), len(rest) - 1)
    return " ".join(rest[start : start + 3])
