from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("defer_iteration", "0002_errors")]

    operations = [
        migrations.AddField(
            "iteration", "name", models.CharField(blank=True, db_default="", db_index=True, max_length=200)
        ),
        migrations.AddField("iteration", "rows", models.BigIntegerField(null=True)),
    ]
