"""The versioned JSON interface and its OpenAPI description."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

app_name = "api"
urlpatterns = [
    path("", include("annotation.api_urls")),
    path("", include("rlhf.api_urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
]
