"""The API reference as a page of the product, generated from the OpenAPI schema.

Swagger UI needs inline styles, which the content security policy does not allow.
"""

from functools import cache
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.generators import SchemaGenerator

from annotation.api.pagination import MAX_ROWS
from annotation.lib.languages import english_only

METHODS = ("get", "post", "put", "patch", "delete")


@english_only
@login_required
def api_reference(request: HttpRequest) -> HttpResponse:
    """Every endpoint with its parameters, body, responses and a curl command."""
    root = request.build_absolute_uri("/").rstrip("/")
    context = {"groups": _groups(), "root": root, "max_rows": f"{MAX_ROWS:,}"}
    return render(request, "api_reference/page.html", context)


@cache
def _groups() -> list[dict[str, Any]]:
    """Endpoints grouped by noun, in the order of their addresses."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    parts = schema.get("components", {}).get("schemas", {})
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in schema["paths"].items():
        for method in METHODS:
            if method not in methods:
                continue
            operation = methods[method]
            noun = operation["operationId"].split("_")[0]
            groups.setdefault(noun, []).append(_endpoint(path, method, operation, parts))
    return [{"name": name, "endpoints": endpoints} for name, endpoints in groups.items()]


def _endpoint(
    path: str, method: str, operation: dict[str, Any], parts: dict[str, Any]
) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    responses = []
    for code, response in operation.get("responses", {}).items():
        if code in ("400", "default"):  # The same for every endpoint: the page describes it once.
            continue
        kinds = response.get("content", {})
        kind = next(iter(kinds), "")
        responses.append(
            {
                "code": code,
                "kind": kind,
                "fields": _fields(kinds.get(kind, {}).get("schema", {}), parts),
            }
        )
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": _description(operation).split("\n\n")[0],
        "rest": "\n\n".join(_description(operation).split("\n\n")[1:]),
        "parameters": [
            {
                "name": parameter["name"],
                "where": parameter["in"],
                "type": _type(parameter.get("schema", {}), parts),
                "help": _description(parameter),
            }
            for parameter in operation.get("parameters", [])
        ],
        "body": _fields(body.get("schema", {}), parts),
        "responses": responses,
    }


def _description(item: dict[str, Any]) -> str:
    """The item's description without the backticks of its docstring."""
    text: str = item.get("description", "")
    return text.replace("`", "")


def _resolve(schema: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    for wrapped in (schema.get("allOf") or schema.get("oneOf") or [])[:1]:
        return _resolve(wrapped, parts)
    if "$ref" in schema:
        part: dict[str, Any] = parts[schema["$ref"].rsplit("/", 1)[-1]]
        return part
    return schema


def _fields(
    schema: dict[str, Any], parts: dict[str, Any], prefix: str = "", depth: int = 0
) -> list[dict[str, Any]]:
    """Fields of an object; those of nested objects have dotted names."""
    schema = _resolve(schema, parts)
    if schema.get("type") == "array":
        return _fields(schema.get("items", {}), parts, f"{prefix}[].", depth)
    rows = []
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        inner = _resolve(field, parts)
        rows.append(
            {
                "name": f"{prefix}{name}",
                "type": _type(field, parts),
                "required": name in required,
                "help": _description(field),
            }
        )
        if depth < 3:
            if inner.get("type") == "array":
                rows += _fields(inner.get("items", {}), parts, f"{prefix}{name}[].", depth + 1)
            elif "properties" in inner:
                rows += _fields(inner, parts, f"{prefix}{name}.", depth + 1)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) and depth < 3:
        rows += _fields(extra, parts, f"{prefix}<key>.", depth + 1)
    return rows


def _type(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    inner = _resolve(schema, parts)
    if "enum" in inner:
        return " | ".join(str(value) for value in inner["enum"] if value is not None)
    if inner.get("type") == "array":
        return f"list of {_type(inner.get('items', {}), parts)}"
    kind = str(inner.get("format") or inner.get("type") or "object")
    return f"{kind} or null" if inner.get("nullable") or schema.get("nullable") else kind
