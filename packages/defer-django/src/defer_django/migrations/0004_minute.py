from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: list[tuple[str, str]] = [
        ("defer_django", "0003_queue"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="deferredtask",
            options={"verbose_name": "deferred task", "verbose_name_plural": "deferred tasks"},
        ),
        migrations.CreateModel(
            name="Minute",
            fields=[
                ("id", models.CharField(editable=False, max_length=120, primary_key=True, serialize=False)),
                ("minute", models.FloatField(db_index=True)),
                ("queue", models.CharField(max_length=100)),
                ("done", models.BigIntegerField(default=0)),
                ("failed", models.BigIntegerField(default=0)),
            ],
            options={
                "default_permissions": (),
            },
        ),
    ]
