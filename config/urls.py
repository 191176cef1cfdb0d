"""Every address: pages under "", versioned JSON under /api/v1/."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("annotation.urls")),
    path("", include("rlhf.urls")),
    path("api/v1/", include("config.api_urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
]
