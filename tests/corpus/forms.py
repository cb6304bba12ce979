# SPDX-License-Identifier: GPL-3.0-or-later
"""Which form of which Compose key is in which case of the corpus; `python -m tests.corpus.forms` updates README.md.

`forms.txt` lists what the format knows, `left_out.yaml` what the corpus cannot have, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.corpus.cases import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- forms: begin -->\n", "<!-- forms: end -->\n"


def known() -> list[str]:
    lines = (ROOT / "forms.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def left_out() -> dict[str, str]:
    """Form, or key whose every form is meant -> reason."""
    reasons: dict[str, str] = yaml.safe_load((ROOT / "left_out.yaml").read_text(encoding="utf-8"))
    return reasons


def reason(form: str, reasons: dict[str, str]) -> str | None:
    """The reason given for `form` itself, for its key, or for a key above it."""
    key = form.partition(": ")[0]
    parts = key.split(".")
    above = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    candidates = [form, key, *(name for path in above for name in (path, path.removesuffix("[]")))]
    return next((reasons[name] for name in candidates if name in reasons), None)


def covered() -> dict[str, list[str]]:
    """Form -> the cases that have it."""
    forms = known()
    keys = {form.split(": ")[0] for form in forms}
    keys |= {key[: end if key[end] == "." else end + 2] for key in set(keys) for end in _ends(key)}
    found: dict[str, list[str]] = {}
    for path in sorted(ROOT.glob("[0-9]*/**/*.y*ml")):
        case = path.relative_to(ROOT).parts[0]
        if path.name == "case.yaml":
            continue
        for document in yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader):
            for form in _forms(document, "", keys):
                if case not in found.setdefault(form, []):
                    found[form].append(case)
    return {form: found[form] for form in forms if form in found}


def table() -> str:
    """The README's part: every form with its cases, then what is left out and why."""
    cases, reasons = covered(), left_out()
    lines = ["| key | in |", "|---|---|"]
    lines += [f"| `{form}` | {', '.join(cases[form])} |" for form in known() if form in cases]
    lines += ["", "| left out | why |", "|---|---|"]
    lines += [f"| `{form}` | {why} |" for form, why in reasons.items()]
    return "\n".join(lines) + "\n"


def write() -> None:
    head, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(head + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")


def _ends(key: str) -> list[int]:
    """Where a parent of `key` ends: `a.b[].c` has the parents `a`, `a.b` and `a.b[]`."""
    return [at for at, sign in enumerate(key) if sign in ".["]


def _forms(value: Any, path: str, keys: set[str]) -> Iterator[str]:
    if path:
        yield path
        yield f"{path}: {_shape(value)}"
        yield f'{path}: "{value}"'
    if isinstance(value, dict):
        for key, item in value.items():
            below = [name for name in (f"{path}.{key}".lstrip("."), f"{path}.*") if name in keys]
            if below:
                yield from _forms(item, below[0], keys)
    elif isinstance(value, list) and f"{path}[]" in keys:
        for item in value:
            yield from _forms(item, f"{path}[]", keys)


def _shape(value: Any) -> str:
    if value is None:
        return "null"
    return "map" if isinstance(value, dict) else "list" if isinstance(value, list) else "scalar"


class _Loader(yaml.SafeLoader):
    """Knows Compose's own tags, !reset and !override."""

    def plain(self, _suffix: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return self.construct_scalar(node)  # type: ignore[arg-type]


_Loader.add_multi_constructor("!", _Loader.plain)

if __name__ == "__main__":
    write()
