"""Views that only tasks and cron jobs may see."""

from djangae.tasks.decorators import csrf_exempt_if_task, task_only, task_or_superuser_only
from django.http import HttpResponse


@task_only
def nightly(request):
    return HttpResponse("done")


@task_or_superuser_only
def report(request):
    return HttpResponse("report")


@csrf_exempt_if_task
def hook(request):
    return HttpResponse("hooked")
