from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("defer_iteration", "0001_initial")]

    # the defaults are the database's: a release before this one still writes rows during a rolling deploy
    operations = [
        migrations.AddField("iteration", "error", models.TextField(blank=True, db_default="")),
        migrations.AddField("iteration", "errors", models.IntegerField(db_default=0)),
        migrations.AddField("iteration", "failed_at", models.FloatField(null=True)),
        migrations.AddField("shard", "errors", models.IntegerField(db_default=0)),
        migrations.AddField("shard", "failed_at", models.FloatField(null=True)),
    ]
