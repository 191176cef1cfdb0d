"""Every address: pages under "", versioned JSON under /api/v1/."""

from django.contrib import admin
from django.urls import include, path

from config import error_responses
from config.api_reference import api_reference

urlpatterns = [
    # Before the pages, so that an API request is not matched against each of their patterns.
    path("api/v1/docs/", api_reference, name="api_reference"),
    path("api/v1/", include("config.api_urls")),
    path("", include("annotation.urls")),
    path("", include("rlhf.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("accounts/2fa/", include("allauth.mfa.urls")),
    path("accounts/connections/", include("allauth.socialaccount.urls")),
    path("accounts/", include("allauth.socialaccount.providers.openid_connect.urls")),
    path("admin/", admin.site.urls),
]

# Handlers, not a catch-all pattern: with one, Django could no longer add a missing slash.
handler400 = error_responses.bad_request
handler404 = error_responses.not_found
handler500 = error_responses.server_error
