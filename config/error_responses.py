"""Responses where no view could answer: a page to people, the API's JSON to programs."""

import sys
from typing import Any

from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.views import defaults


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404: an unknown address; programs get the address of the API's schema."""
    if not _is_for_api(request):
        return defaults.page_not_found(request, exception)
    schema = request.build_absolute_uri(reverse("api:schema"))
    detail = f"There is nothing at this address; {schema} lists all addresses."
    return JsonResponse({"detail": detail}, status=404)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400: what Django itself refuses, such as the name of another host."""
    if not _is_for_api(request):
        return defaults.bad_request(request, exception)
    return JsonResponse({"detail": "The server can't read this request."}, status=400)


def server_error(request: HttpRequest) -> HttpResponse:
    """500: a server error, described in the log only; 503 if the database can't be reached."""
    if _is_database_away(sys.exc_info()[1]):
        return _database_away(request)
    if not _is_for_api(request):
        return defaults.server_error(request)
    detail = (
        "Something went wrong on the server. Send the request again, with the same key if it has "
        "one. If it fails again, tell the operator what you sent and when: the server's log has the "
        "reason."
    )
    return JsonResponse({"detail": detail}, status=500)


def _database_away(request: HttpRequest) -> HttpResponse:
    response: HttpResponse
    if _is_for_api(request):
        detail = (
            "The database can't be reached just now. Send it again in a moment, with the same "
            "key where it has one."
        )
        response = JsonResponse({"detail": detail}, status=503)
    else:
        response = HttpResponse(render_to_string("503.html"), status=503)
    response["Retry-After"] = "5"
    return response


def _is_database_away(error: BaseException | None) -> bool:
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    return connection.connection is None or not connection.is_usable()


def _is_for_api(request: HttpRequest) -> bool:
    return request.path_info.startswith(reverse("api:schema").removesuffix("schema/"))


def add_to_schema(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the error responses to every operation of the OpenAPI schema; they are alike for all."""
    refusal = _json_response({"$ref": "#/components/schemas/Refusal"})
    refusal["description"] = (
        "Any other error, in a sentence: 401 without a valid token, 403 without a CSRF token with "
        "a session cookie, 404 for what does not exist or is not yours, 413 and 415 for a body that "
        "is too large or not JSON, 429 for too many requests (wait `Retry-After` seconds), 500 for "
        "a server error, 503 while the database can't be reached (try again in a moment)."
    )
    invalid = _json_response({"type": "object", "additionalProperties": {}})
    invalid["description"] = (
        "Invalid input, by the name of its field: sentences, or for parts of it the same again. "
        "`detail` if it is not JSON, `non_field_errors` if it is not an object."
    )
    for methods in result["paths"].values():
        for operation in methods.values():
            parameters = operation.get("parameters", [])
            query = {p["name"] for p in parameters if p["in"] == "query"}
            if "requestBody" in operation or query - {"limit", "offset"}:
                operation["responses"].setdefault("400", invalid)
            operation["responses"]["default"] = refusal
    return result


def _json_response(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
