# SPDX-License-Identifier: GPL-3.0-or-later
"""Projects, and who has which slot. Modules that look after the pool know the tables' and columns' names."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from .limits import HELD_BACK, QUARANTINED, RESETTING, username


class Project(models.Model):
    """Somebody's project; its files lie in <data root>/<owner>/<slug>."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="projects")
    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=200)
    description = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    writer_initialized = models.BooleanField(default=False, help_text="true exactly if the workspace is on disk")
    visit = models.CharField(max_length=64, null=True, editable=False, help_text="SHA-256 of the token it came with")

    class Meta:
        db_table = "project_app_project"
        constraints = [models.UniqueConstraint(fields=["owner", "slug"], name="project_owner_slug")]

    def __str__(self) -> str:
        return self.name


class VisitorAllocation(models.Model):
    """A slot's lease: one row a slot, whether it is lent or not."""

    visitor_number = models.IntegerField(unique=True)
    session_key = models.CharField(max_length=40, blank=True, default="")
    allocation_token = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the token in the session")
    allocated_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    is_active = models.BooleanField(default=False)

    class Meta:
        db_table = "project_app_visitorallocation"
        indexes = [models.Index(fields=["visitor_number"], condition=Q(is_active=False), name="visitor_free")]

    def __str__(self) -> str:
        return f"{username(self.visitor_number)}: {self.state}"

    @property
    def state(self) -> str:
        """free, leased, expired, resetting or quarantined. At the very instant of its end a lease still holds.

        Who frees a slot has cleared it, and takes the session out of its row: where one is left, nobody has.
        """
        if not self.is_active:
            return "expired" if self.session_key else "free"
        if self.session_key in HELD_BACK:
            return {RESETTING: "resetting", QUARANTINED: "quarantined"}[self.session_key]
        return "expired" if self.expires_at < timezone.now() else "leased"


class PoolSize(models.Model):
    """How many slots an operator has asked for last: one row, or none while the setting says it."""

    size = models.PositiveIntegerField()

    class Meta:
        db_table = "project_app_visitorpoolsize"

    def __str__(self) -> str:
        return str(self.size)

    @classmethod
    def asked(cls) -> int:
        return cls.objects.values_list("size", flat=True).first() or settings.VISITOR_POOL_SIZE

    @classmethod
    def ask(cls, size: int) -> None:
        cls.objects.update_or_create(pk=1, defaults={"size": size})
