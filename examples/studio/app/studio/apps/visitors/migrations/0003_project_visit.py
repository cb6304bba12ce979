# SPDX-License-Identifier: GPL-3.0-or-later
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("visitors", "0002_poolsize"),
    ]

    operations = [
        migrations.AddField(
            model_name="project",
            name="visit",
            field=models.CharField(
                editable=False, help_text="SHA-256 of the token it came with", max_length=64, null=True
            ),
        ),
    ]
