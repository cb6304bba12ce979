# SPDX-License-Identifier: GPL-3.0-or-later
"""The form that puts a task into the queue."""

from __future__ import annotations

from typing import Any

from django import forms

from .limits import COUNTDOWN_SECONDS, PAYLOAD_CHARACTERS
from .models import Task


def is_countdown(text: str) -> bool:
    return text in {str(seconds) for seconds in range(1, COUNTDOWN_SECONDS + 1)}


class TaskForm(forms.Form):
    kind = forms.ChoiceField(choices=Task.Kind.choices, initial=Task.Kind.CHART)
    payload = forms.CharField(
        label="Text, or seconds for a countdown",
        max_length=PAYLOAD_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 4, "placeholder": "Paste some text …"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        payload = cleaned.get("payload", "")
        if cleaned.get("kind") == Task.Kind.COUNTDOWN and not is_countdown(payload):
            self.add_error("payload", f"A countdown takes a number of seconds from 1 to {COUNTDOWN_SECONDS}.")
        return cleaned
