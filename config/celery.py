"""Celery: two queues, `default` for what takes a moment and `gpu` for training, one job at a time.

A message only wakes a worker; the Job rows are the queue (docs/decisions/0003).
"""

import os
import warnings

from celery import Celery
from celery.platforms import SecurityWarning
from django.conf import settings

from config import transport

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# It warns of root because of pickled messages; ours are JSON and nothing else is accepted.
warnings.filterwarnings("ignore", category=SecurityWarning)


def shared_broker_options() -> dict[str, str]:
    """Keys of this installation only, where several share one Redis. RabbitMQ has virtual hosts."""
    is_redis = settings.CELERY_BROKER_URL.startswith(("redis", "sentinel", "unix"))
    if settings.INSTALLATION and is_redis:
        return {"global_keyprefix": f"{settings.INSTALLATION}:"}
    return {}


app = Celery("ground_control")
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL or f"{transport.NAME}://localhost//",
    broker_transport_options=(
        shared_broker_options()
        if settings.CELERY_BROKER_URL
        else transport.options(settings.QUEUE_DIR)
    ),
    # Nobody who reaches the broker may stop a worker or read its settings.
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    # No limit: by default a worker gives up, and ends, when its broker is away for a night.
    broker_connection_max_retries=None,
    accept_content=["json"],
    task_serializer="json",
    task_default_queue="default",
    task_ignore_result=True,
    # Early acknowledgment: the lease hands a job out again, not the broker.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    # A thread, so that the process keeps answering its broker while a job runs for hours.
    worker_pool="threads",
    worker_concurrency=1,
    worker_hijack_root_logger=False,
    enable_utc=True,
    timezone="UTC",
)
app.autodiscover_tasks(["rlhf.workers"])
