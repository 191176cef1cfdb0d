"""Bodies of API requests: JSON that is neither too large nor too deep to be read safely."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from django.conf import settings
from rest_framework import exceptions
from rest_framework import parsers as rest_parsers


class TooLarge(exceptions.APIException):
    status_code = 413
    default_code = "too_large"


class JSONParser(rest_parsers.JSONParser):
    """DRF's parser with a limit on size, and with deep nesting as a refusal instead of a failure."""

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise TooLarge(f"The body is larger than {limit // 2**20} MiB; send it in parts.")
        try:
            return super().parse(BytesIO(body), media_type, parser_context)
        except RecursionError as error:
            raise exceptions.ParseError("The JSON is nested too deeply.") from error
