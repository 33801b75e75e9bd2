from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: list[tuple[str, str]] = [("defer_django", "0001_initial")]

    operations = [
        migrations.AlterField(
            model_name="deferredtask",
            name="state",
            field=models.CharField(
                choices=[("pending", "pending"), ("sent", "sent"), ("failing", "failing"), ("dead", "dead")],
                max_length=10,
            ),
        ),
        migrations.AddIndex(
            model_name="deferredtask",
            index=models.Index(fields=["last_attempt", "state"], name="defer_last_attempt"),
        ),
        migrations.AddIndex(
            model_name="deferredtask",
            index=models.Index(fields=["verified", "state"], name="defer_verified"),
        ),
    ]
