from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: list[tuple[str, str]] = []

    operations = [
        migrations.CreateModel(
            name="DeferredTask",
            fields=[
                ("id", models.CharField(editable=False, max_length=40, primary_key=True, serialize=False)),
                ("envelope", models.BinaryField()),
                ("payload", models.BinaryField(null=True)),
                ("routing", models.TextField(help_text="Queue, name, ETA and the rest, as JSON.")),
                (
                    "state",
                    models.CharField(
                        choices=[("pending", "pending"), ("sent", "sent"), ("dead", "dead")], max_length=10
                    ),
                ),
                ("idempotent", models.BooleanField(default=False)),
                ("verified", models.BooleanField(default=True)),
                ("created", models.FloatField()),
                ("due", models.FloatField()),
                ("attempts", models.IntegerField(default=0)),
                ("doubtful_since", models.FloatField(null=True)),
                ("lease", models.CharField(blank=True, default="", max_length=32)),
                ("last_error", models.TextField(blank=True, default="")),
                ("reason", models.CharField(blank=True, default="", max_length=50)),
                ("first_attempt", models.FloatField(null=True)),
                ("last_attempt", models.FloatField(null=True)),
                ("label", models.TextField(blank=True, default="")),
            ],
            options={
                "verbose_name": "deferred task",
                "indexes": [
                    models.Index(fields=["state", "due"], name="defer_state_due"),
                    models.Index(fields=["created"], name="defer_created"),
                    models.Index(fields=["due"], name="defer_due"),
                ],
            },
        ),
    ]
