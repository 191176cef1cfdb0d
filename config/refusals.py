"""What is answered where no view could: a page to people, the API's own JSON to programs."""

import sys
from typing import Any

from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.views import defaults


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404: an address that nobody has; programs are told where those that there are stand."""
    if not _is_for_api(request):
        return defaults.page_not_found(request, exception)
    schema = request.build_absolute_uri(reverse("api:schema"))
    told = f"There is nothing at this address; {schema} lists them all."
    return JsonResponse({"detail": told}, status=404)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400: what Django itself refuses, such as the name of another host."""
    if not _is_for_api(request):
        return defaults.bad_request(request, exception)
    return JsonResponse({"detail": "The server can't read this request."}, status=400)


def server_error(request: HttpRequest) -> HttpResponse:
    """500: a fault of ours. What it was is for the log alone; but 503 where the database is away."""
    if _is_database_away(sys.exc_info()[1]):
        if _is_for_api(request):
            told = (
                "The database can't be reached just now. Send it once more in a moment, with the same "
                "key where it has one."
            )
            answer: HttpResponse = JsonResponse({"detail": told}, status=503)
        else:
            answer = HttpResponse(render_to_string("503.html"), status=503)
        answer["Retry-After"] = "5"
        return answer
    if not _is_for_api(request):
        return defaults.server_error(request)
    told = (
        "Something broke on our side. Send it once more, with the same key where it has one; if it "
        "happens again, tell the operator what you sent and when: the server's log has the reason."
    )
    return JsonResponse({"detail": told}, status=500)


def _is_database_away(error: BaseException | None) -> bool:
    if not isinstance(error, OperationalError | InterfaceError):
        return False  # also where nothing is known of the error
    return connection.connection is None or not connection.is_usable()


def _is_for_api(request: HttpRequest) -> bool:
    return request.path_info.startswith(reverse("api:schema").removesuffix("schema/"))


def in_schema(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Adds to each operation of the OpenAPI description how it refuses, which is the same for all."""
    refusal = _answer({"$ref": "#/components/schemas/Refusal"})
    refusal["description"] = (
        "Any other refusal, in a sentence: 401 without a valid token, 403 without a CSRF token where "
        "a cookie signs in, 404 for what there is not or is not yours, 413 and 415 for a body that "
        "is too large or no JSON, 429 too often (wait `Retry-After` seconds), 500 a fault of "
        "ours, 503 while the database is away (once more in a moment)."
    )
    misfit = _answer({"type": "object", "additionalProperties": {}})
    misfit["description"] = (
        "What does not fit, by the name of its field: sentences, or for parts of it the same again. "
        "`detail` where it is no JSON, `non_field_errors` where it is no object."
    )
    for methods in result["paths"].values():
        for operation in methods.values():
            asked = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
            if "requestBody" in operation or asked - {"limit", "offset"}:
                operation["responses"].setdefault("400", misfit)
            operation["responses"]["default"] = refusal
    return result


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
