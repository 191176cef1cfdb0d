"""The web server's entry point."""

import os

from django.core.wsgi import get_wsgi_application

from config.checks import safe_configuration

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()

# A server must not start what the commands of manage.py refuse.
if problems := safe_configuration():
    raise SystemExit("\n".join(str(problem.msg) for problem in problems))
