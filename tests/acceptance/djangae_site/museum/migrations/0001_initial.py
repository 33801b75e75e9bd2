import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Artist",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
            ],
        ),
        migrations.CreateModel(
            name="Note",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField()),
            ],
        ),
        migrations.CreateModel(
            name="Piece",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(default="", max_length=100)),
                ("checked", models.BooleanField(default=False)),
                ("closed", models.BooleanField(default=False)),
                ("checks", models.IntegerField(default=0)),
                ("shard", models.IntegerField(null=True)),
                (
                    "artist",
                    models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, to="museum.artist"),
                ),
            ],
        ),
    ]
