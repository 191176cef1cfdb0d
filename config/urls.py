"""Every address: pages under "", versioned JSON under /api/v1/."""

from django.contrib import admin
from django.urls import include, path

from config import refusals
from config.api_reference import api_reference

urlpatterns = [
    # Before the pages, so that a program's question is not held against each of their addresses.
    path("api/v1/docs/", api_reference, name="api_reference"),
    path("api/v1/", include("config.api_urls")),
    path("", include("annotation.urls")),
    path("", include("rlhf.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
]

# Not a pattern that takes whatever is left: Django could then no longer add a slash that is missing.
handler400 = refusals.bad_request
handler404 = refusals.not_found
handler500 = refusals.server_error
