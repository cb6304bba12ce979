# SPDX-License-Identifier: GPL-3.0-or-later
"""The form for a new account."""

from __future__ import annotations

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from .limits import NEW_ACCOUNT, PREFIX


class SignUpForm(forms.Form):
    username = forms.CharField(
        max_length=30,
        help_text="Small letters, digits, - and _. It is also the name of your directory.",
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}),
    )
    password = forms.CharField(
        strip=False,
        help_text="At least 8 characters.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        if not NEW_ACCOUNT.fullmatch(name):
            raise ValidationError("Only small letters, digits, - and _, beginning with a letter or a digit.")
        if name.startswith(PREFIX) or User.objects.filter(username=name).exists():
            raise ValidationError("That name is taken.")
        return name

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password, User(username=self.cleaned_data.get("username", "")))
        return password
