# SPDX-License-Identifier: GPL-3.0-or-later
"""The base image from Debian packages, for when no registry answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import LABEL, TRUST, BuildError, docker, run, say, write_certificates

CODENAME = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# python3-venv: the web image makes its environment with it. wget: the proxy's healthcheck, as in Caddy's own image.
PACKAGES = ("ca-certificates", "python3", "python3-venv", "wget")
OPTIONS = (
    "--variant=minbase",
    "--format=tar",
    f"--include={','.join(PACKAGES)}",
    '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    # A killed build throws the whole tree away, so there is nothing that fsync could save.
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
CHANGES = (
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    'CMD ["bash"]',
)


def make_base(tag: str, recipe: str, certificates: Sequence[str], work: Path, lock: int) -> None:
    need_mmdebstrap()
    tar, sources, trusted = work / "base.tar", work / "sources.list", work / "certificates"
    mirrors = host_sources()
    sources.write_text(mirrors)
    write_certificates(trusted, certificates)
    hooks = (
        f"--customize-hook=copy-in {trusted}/. /usr/local/share/ca-certificates",
        '--customize-hook=chroot "$1" update-ca-certificates',
    )
    # With a mount namespace of its own, a kill at any moment leaves no mount behind on the machine.
    alone = ("unshare", "--mount", "--propagation", "private") if os.geteuid() == 0 else ()
    options = [*OPTIONS, *host_apt_options(), *(hooks if certificates else ())]
    argv = [*alone, "mmdebstrap", *options, CODENAME, str(tar), *([str(sources)] if mirrors else [])]
    environment = {**os.environ, **host_proxies(), "TMPDIR": str(work)}
    run(argv, "making the base from Debian packages", env=environment, pass_fds=(lock,))
    changes = [*CHANGES, *([TRUST] if certificates else []), f"LABEL {LABEL}={recipe}"]
    docker(
        "import", *(word for change in changes for word in ("--change", change)), str(tar), tag, doing="docker import"
    )


def need_mmdebstrap() -> None:
    if shutil.which("mmdebstrap") and KEYRING.exists():
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(
            "mmdebstrap is missing: `apt-get install mmdebstrap debian-archive-keyring`, then run this again"
        )
    say("installing mmdebstrap")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-qy", "--no-install-recommends", "mmdebstrap", KEYRING.stem]
    try:
        run(install, "installing mmdebstrap", env=quiet)
    except BuildError:  # the package lists of a fresh machine may be empty or old
        run(["apt-get", "update", "-q"], "apt-get update", env=quiet)
        run(install, "installing mmdebstrap", env=quiet)


def host_sources() -> str:
    """This machine's own mirrors. Empty when it has none of Debian: mmdebstrap then takes its default."""
    folder = Path("/etc/apt/sources.list.d")
    files = [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))]
    release = Path("/etc/os-release")
    codename = re.search(r'(?m)^VERSION_CODENAME="?(\w+)', release.read_text() if release.is_file() else "")
    text = "\n\n".join(path.read_text() for path in files if path.is_file())
    return debian_sources(text, codename.group(1) if codename else CODENAME)


def debian_sources(text: str, codename: str) -> str:
    """The Debian mirrors that apt's sources name for release `codename`, as one-line sources of our release."""
    lines: list[str] = []
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^\s*#.*\n?", "", text)):
        for uris, suites, components, signed in entries(stanza):
            debian = "debian-archive-keyring" in signed or (not signed and "/debian" in uris)
            for suite in suites.split():
                name, _, pocket = suite.partition("-")
                if debian and name == codename and pocket in ("", "updates", "security"):
                    renamed = CODENAME + (f"-{pocket}" if pocket else "")
                    lines += [f"deb {uri} {renamed} {components}" for uri in uris.split()]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def entries(stanza: str) -> Iterator[tuple[str, str, str, str]]:
    """(URIs, suites, components, signed-by) of a deb822 stanza, or of each one-line entry in it."""
    fields = {key.lower(): value for key, value in re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*)$", stanza)}
    if "uris" in fields:
        if "deb" in fields.get("types", "deb").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            yield fields["uris"], fields.get("suites", ""), fields.get("components", ""), fields.get("signed-by", "")
        return
    for options, uri, suite, components in re.findall(r"(?m)^deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s+(.*)$", stanza):
        signed = re.search(r"signed-by=(\S+)", options)
        yield uri, suite, components.strip(), signed.group(1) if signed else ""


def apt_setting(name: str) -> str:
    words = ["apt-config", "shell", "value", name]
    found = re.search(r"value='(.*)'", subprocess.run(words, capture_output=True, text=True).stdout)
    return found.group(1) if found else ""


def host_apt_options() -> list[str]:
    """Settings without which this machine's mirrors may not answer: snapshots, or a clock of its own."""
    names = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
    return [f'--aptopt={name} "{value}"' for name in names if (value := apt_setting(name))]


def host_proxies() -> dict[str, str]:
    """apt's own proxy, by the environment: it is needed while building, and may hold a password."""
    found = {name: apt_setting(f"Acquire::{name.split('_')[0]}::Proxy") for name in ("http_proxy", "https_proxy")}
    return {name: value for name, value in found.items() if value and not os.environ.get(name)}
