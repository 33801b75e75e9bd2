from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("defer_iteration", "0003_names")]

    operations = [migrations.AddField("shard", "rest", models.BinaryField(null=True))]
