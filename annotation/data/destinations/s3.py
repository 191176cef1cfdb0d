"""Send files to a bucket of S3, or of a store that speaks its protocol (`AWS_ENDPOINT_URL`).

Credentials are the server's own, as boto3 finds them; the operator's list says which project may
write where.
"""

from collections.abc import Callable, Sequence
from typing import Any

from annotation.data.destinations.target import Outgoing, SendError, Target
from annotation.data.snapshot_files import SUMS


def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise SendError(
            "Sending to S3 needs boto3: install the extra `push` on the web server."
        ) from error
    # Stores other than Amazon's do not all know the newer default checksums.
    config = Config(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 5, "mode": "standard"},
        connect_timeout=10,
    )
    return boto3.client("s3", config=config)


def look(target: Target, files: Sequence[Outgoing]) -> str:
    """What there is now, as one sentence."""
    client = _client()
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.head_bucket(Bucket=target.place)
        there = [file for file in files if _stored_sha256(client, target, file) is not None]
    except (BotoCoreError, ClientError, OSError) as error:
        raise _sentence(error, target) from error
    if not there:
        return "None of these objects exists yet."
    return f"{len(there)} of {len(files)} objects exist; those with other content are replaced."


def send(target: Target, files: Sequence[Outgoing], *, on_progress: Callable[[int], None]) -> str:
    """Upload the files, SHA256SUMS last: where it is, all of them are. Those that are there already
    are left as they are, so that sending again continues. Returns the address."""
    client = _client()
    from boto3.exceptions import Boto3Error
    from boto3.s3.transfer import TransferConfig
    from botocore.exceptions import BotoCoreError, ClientError

    transfer = TransferConfig(max_concurrency=4)
    try:
        client.head_bucket(Bucket=target.place)
        for file in sorted(files, key=lambda file: file.name == SUMS):
            if _stored_sha256(client, target, file) == file.sha256:
                on_progress(file.bytes)
                continue
            client.upload_file(
                file.path,
                target.place,
                target.prefix + file.name,
                ExtraArgs={"Metadata": {"sha256": file.sha256}},
                Callback=on_progress,
                Config=transfer,
            )
    except (Boto3Error, BotoCoreError, ClientError, OSError) as error:
        raise _sentence(error, target) from error
    return f"s3://{target.place}/{target.prefix}"


def _stored_sha256(client: Any, target: Target, file: Outgoing) -> str | None:
    """The hash of the object in the file's place; "" if it has none, None if there is no object."""
    from botocore.exceptions import ClientError

    try:
        stored = client.head_object(Bucket=target.place, Key=target.prefix + file.name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return None
        raise
    if stored["ContentLength"] != file.bytes:
        return ""
    return str(stored["Metadata"].get("sha256", ""))


def _sentence(error: Exception, target: Target) -> SendError:
    # What boto3 wraps around the store's answer names files of this server.
    error = error.__context__ if isinstance(error.__context__, Exception) else error
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    reasons = {
        "404": f"There is no bucket {target.place}.",
        "NoSuchBucket": f"There is no bucket {target.place}.",
        "403": f"The server's credentials may not write to {target.place}.",
        "AccessDenied": f"The server's credentials may not write to {target.place}.",
    }
    return SendError(reasons.get(code) or f"S3: {' '.join(str(error).split())}"[:300])
