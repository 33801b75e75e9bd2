from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: list[tuple[str, str]] = []

    operations = [
        migrations.CreateModel(
            name="Iteration",
            fields=[
                ("id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("job", models.BinaryField()),
                ("options", models.TextField()),
                ("label", models.CharField(blank=True, max_length=500)),
                ("state", models.CharField(db_index=True, max_length=16)),
                ("resumes", models.CharField(blank=True, max_length=16)),
                ("reason", models.TextField(blank=True)),
                ("generation", models.IntegerField(default=0)),
                ("due", models.FloatField(default=0.0)),
                ("wakes", models.IntegerField(default=0)),
                ("total", models.BigIntegerField(null=True)),
                ("counters", models.TextField(default="{}")),
                ("created", models.FloatField(default=0.0)),
                ("finished", models.FloatField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="QuarantinedRow",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("iteration", models.CharField(db_index=True, max_length=32)),
                ("index", models.IntegerField()),
                ("key", models.BinaryField()),
                ("error", models.TextField(blank=True)),
                ("attempts", models.IntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Shard",
            fields=[
                ("id", models.CharField(max_length=48, primary_key=True, serialize=False)),
                ("iteration", models.CharField(db_index=True, max_length=32)),
                ("index", models.IntegerField()),
                ("range", models.BinaryField()),
                ("generation", models.IntegerField(default=0)),
                ("fence", models.IntegerField(default=0)),
                ("position", models.BinaryField(null=True)),
                ("rows", models.BigIntegerField(default=0)),
                ("counters", models.TextField(default="{}")),
                ("failing", models.BinaryField(null=True)),
                ("attempts", models.IntegerField(default=0)),
                ("error", models.TextField(blank=True)),
                ("due", models.FloatField(default=0.0)),
                ("wakes", models.IntegerField(default=0)),
                ("done", models.BooleanField(default=False)),
            ],
            options={
                "indexes": [models.Index(fields=["done", "iteration", "due"], name="defer_shard_due")],
            },
        ),
    ]
