"""The admin site without a door of its own: people sign in and change passwords where all do.

Its own pages would check passwords without the limit on tries, and without a second factor.
"""

from typing import Any

from allauth.account.decorators import secure_admin_login
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect


class OneDoorAdminSite(AdminSite):
    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Leads to the sign-in page; 403 for somebody signed in who is no staff."""
        answer: HttpResponse = secure_admin_login(super().login)(request, extra_context)
        return answer

    def password_change(  # type: ignore[override]  # the page of everybody else
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponse:
        return redirect("account_change_password")
