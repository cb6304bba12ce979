# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.manifest import DIRECTORY, FILE
from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree_source import pack_archive, read
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(0o644)


def test_equal_contents_travel_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c/d"):
        write(tmp_path / name, "same")
    write(tmp_path / "e", "other")
    source = read(str(tmp_path), [], {}, str)
    files = [entry for entry in source.entries if entry.kind == FILE]
    stream = io.BytesIO()
    pack_archive(source, files, stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        assert len(archive.getnames()) == len({entry.content for entry in files}) == 2


def test_a_source_that_changes_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", "1")
    source = read(str(tmp_path), [], {}, str)
    write(tmp_path / "a", "22")
    with pytest.raises(ShipshapeError, match="changed on the controller"):
        pack_archive(source, source.entries, io.BytesIO())
    (tmp_path / "a").unlink()
    with pytest.raises(ShipshapeError, match="changed on the controller"):
        pack_archive(source, source.entries, io.BytesIO())


def test_what_is_private(tmp_path: Path) -> None:
    for name in ("plain", ".env", "closed", "vaulted"):
        write(tmp_path / name, name)
    write(tmp_path / "vaulted", "$ANSIBLE_VAULT;1.1;AES256\n00\n")
    (tmp_path / "closed").chmod(0o600)
    (tmp_path.parent / "decrypted").write_text("clear", encoding="utf-8")
    asked = []

    def decrypt(path: str) -> str:
        asked.append(path)
        return str(tmp_path.parent / "decrypted")

    source = read(str(tmp_path), [], {"rendered": {"A": 1}}, decrypt)
    assert {entry.path: entry.private for entry in source.entries} == {
        ".env": True,
        "closed": True,
        "plain": False,
        "rendered": True,
        "vaulted": True,
    }
    assert asked == [str(tmp_path / "vaulted")]
    assert {entry.path: entry.size for entry in source.entries}["vaulted"] == len("clear")


def test_env_files_take_their_place(tmp_path: Path) -> None:
    write(tmp_path / "in-src", "x")
    write(tmp_path / "folder" / "x", "x")
    source = read(str(tmp_path), [], {"in-src": {"A": 1}, "new/deep/.env": {}}, str)
    kinds = {entry.path: (entry.kind, entry.mode) for entry in source.entries}
    assert kinds["in-src"] == (FILE, 0o600)
    assert kinds["new"] == kinds["new/deep"] == (DIRECTORY, 0o755)
    assert set(source.rendered) == {"in-src", "new/deep/.env"}
    assert "in-src" not in source.locations
    assert [finding.code for finding in source.findings] == ["env-file-replaces-source"]
    for name in ("folder", "in-src/below", "/abs", "../up", "a/../b", ".shipshape/x", ""):
        with pytest.raises(ShipshapeError) as caught:
            read(str(tmp_path), [], {name: {}}, str)
        assert [finding.code for finding in caught.value.findings] == ["env-file-name"], name
