# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus covers every form of every Compose key, or says why not."""

from __future__ import annotations

from collections import Counter

from tests.corpus import forms
from tests.corpus.cases import CASES


def test_every_form_is_covered_or_left_out_with_a_reason() -> None:
    covered, reasons = forms.covered(), forms.left_out()
    missing = [form for form in forms.known() if form not in covered and not forms.reason(form, reasons)]
    assert not missing, f"no case of the corpus has {missing}, and left_out.yaml does not say why"


def test_no_reason_is_given_for_what_is_covered() -> None:
    covered, reasons = forms.covered(), forms.left_out()
    missing = [form for form in forms.known() if form not in covered]
    idle = [name for name in reasons if not any(forms.reason(form, {name: "x"}) for form in missing)]
    assert not idle, f"left_out.yaml explains {idle}, but the corpus has them"


def test_the_readme_shows_the_tables() -> None:
    text = forms.README.read_text(encoding="utf-8")
    shown = text.split(forms.BEGIN)[1].split(forms.END)[0]
    assert shown == forms.table(), "run `python -m tests.corpus.forms`"


def test_a_key_that_no_case_has_is_missed() -> None:
    assert "services.*.gpus" not in {form.split(": ")[0] for form in forms.covered()}
    assert forms.reason("services.*.gpus[].driver", {"services.*.gpus": "why"}) == "why"
    assert forms.reason("services.*.gpus_other", {"services.*.gpus": "why"}) is None
    assert forms.reason('services.*.pull_policy: "never"', {'services.*.pull_policy: "always"': "why"}) is None


def test_at_least_forty_cases_with_names_of_their_own() -> None:
    assert len(CASES) >= 40
    assert [number for number, count in Counter(case.name[:2] for case in CASES).items() if count > 1] == []
