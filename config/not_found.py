"""What an address that nobody has answers: a page to people, JSON to programs."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.defaults import page_not_found


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404: below the API's root in the form of its other refusals, with where its addresses are."""
    schema = reverse("api:schema")
    if not request.path_info.startswith(schema.removesuffix("schema/")):
        return page_not_found(request, exception)
    told = f"There is nothing at this address; {request.build_absolute_uri(schema)} lists them all."
    return JsonResponse({"detail": told}, status=404)
