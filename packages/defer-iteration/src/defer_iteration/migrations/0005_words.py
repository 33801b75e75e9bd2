from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("defer_iteration", "0004_trials")]

    operations = [
        migrations.AlterModelOptions("iteration", {"verbose_name": "iteration", "verbose_name_plural": "iterations"}),
    ]
