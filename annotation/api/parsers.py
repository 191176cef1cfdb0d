"""Bodies of API requests: JSON that is neither too large nor too deep to be read safely."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework import exceptions, status
from rest_framework import parsers as rest_parsers
from rest_framework.response import Response
from rest_framework.views import exception_handler


class JSONParser(rest_parsers.JSONParser):
    """DRF's parser, with deep nesting as a refusal instead of a failure."""

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError as error:
            raise exceptions.ParseError("The JSON is nested too deeply.") from error


def errors_as_json(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's answers to errors, always as an object; one for a body over Django's limit as well."""
    if isinstance(error, RequestDataTooBig):
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20
        message = f"The body is larger than {limit} MiB; send it in parts."
        return Response({"detail": message}, status=status.HTTP_413_REQUEST_ENTITY_TOO_LARGE)
    response = exception_handler(error, dict(context))
    if response is not None and isinstance(
        response.data, list
    ):  # Of a body that is no object at all.
        response.data = {"non_field_errors": response.data}
    return response
