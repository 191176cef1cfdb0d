"""The one place that knows every app. Celery's app is made here, so that any process can send."""

from config.celery import app as celery

__all__ = ("celery",)
