"""What a museum keeps."""

from django.db import models


class Artist(models.Model):
    name = models.CharField(max_length=100)


class Piece(models.Model):
    title = models.CharField(max_length=100, default="")
    artist = models.ForeignKey(Artist, on_delete=models.CASCADE, null=True)
    checked = models.BooleanField(default=False)
    closed = models.BooleanField(default=False)
    checks = models.IntegerField(default=0)
    shard = models.IntegerField(null=True)

    def rename(self, title):
        self.title = title
        self.save()


class Note(models.Model):
    text = models.TextField()
