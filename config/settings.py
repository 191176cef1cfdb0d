"""Everything that differs between a laptop and a lab is an environment variable, read here once.

With nothing set the product runs on SQLite, a folder as broker and local files (`var/`).
docs/production.md lists the variables.
"""

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from csp.constants import NONCE, NONE, SELF

env = environ.Env()

BASE_DIR = Path(__file__).resolve().parent.parent
env_file = BASE_DIR / ".env"
if env_file.exists():
    environ.Env.read_env(env_file)

# --- Where things are kept -------------------------------------------------------------------
# What this process makes is its user's alone: the database, password hashes and texts of people. With
# UMASK=027 a group reads it, such as web servers and workers that run as different users.
os.umask(int(env.str("UMASK", "077"), 8))
DATA_DIR = Path(env.str("GROUND_CONTROL_DATA", str(BASE_DIR / "var"))).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)
if DATA_DIR.stat().st_uid == os.getuid() and DATA_DIR.stat().st_mode & 0o007:
    DATA_DIR.chmod(DATA_DIR.stat().st_mode & 0o770)  # made before, for everybody to read
RUNS_DIR = DATA_DIR / "runs"
SNAPSHOTS_DIR = DATA_DIR / "snapshots"
CACHE_DIR = DATA_DIR / "cache"
QUEUE_DIR = DATA_DIR / "queue"


def own_key(name: str, variable: str, first: str = "") -> str:
    """A key from the environment, else one made on first use and kept private next to the data.

    `first` is what a new file gets; a random key unless given.
    """
    given: str = env.str(variable, "")
    if given:
        return given
    path = DATA_DIR / name
    if not path.exists():
        # O_EXCL through a temporary name: two processes that start together agree on one key.
        own = path.with_name(f".{name}.{os.getpid()}")
        own.write_text(first or secrets.token_urlsafe(50))
        own.chmod(0o600)
        try:
            os.link(own, path)
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return path.read_text().strip()


is_new = not (DATA_DIR / "secret_key").exists() and not env.str("SECRET_KEY", "")
SECRET_KEY = own_key("secret_key", "SECRET_KEY")
# Former keys, so that a new SECRET_KEY ends no session before its time.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
# Pseudonyms in exports have a key of their own: sessions can get a new key without renaming people in
# datasets. An installation from before has its pseudonyms by SECRET_KEY, and keeps them.
PSEUDONYM_KEY = own_key("pseudonym_key", "PSEUDONYM_KEY", "" if is_new else SECRET_KEY)
# Encrypts the secrets of authenticator apps: a copy of the database alone gives no second factor.
MFA_KEY = own_key("mfa_key", "MFA_KEY")
DEBUG = env.bool("DEBUG", False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
HTTPS = env.bool("HTTPS", False)
# Proxies whose X-Forwarded-For and X-Forwarded-Proto count (config/client_address.py). HTTPS ends at
# a proxy: unless said otherwise, at one on this machine.
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=["127.0.0.1", "::1", "unix"] if HTTPS else [])
# Starts a configuration that config/checks.py refuses.
UNSAFE = env.bool("UNSAFE", False)
SITE_NAME = env.str("SITE_NAME", "Ground Control")
VERSION = "0.1.0"
# Begins the keys and queues of this installation, where several share one Redis or RabbitMQ.
INSTALLATION = env.str("INSTALLATION", "")

# --- Applications ----------------------------------------------------------------------------
INSTALLED_APPS = [
    "config.apps.OneDoorAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "template_partials",
    "csp",
    "annotation",
    "rlhf",
]

MIDDLEWARE = [
    "config.client_address.client_address",
    "config.security_log.request_ids",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.middleware.reject_null_bytes",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "config.sessions.end_idle_sessions",
    "config.body_limits.body_limits",
    "config.middleware.OwnLanguage",
    "config.middleware.own_time_zone",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "config.second_factor.require_second_factor",
    "config.middleware.ProviderAway",
    "config.middleware.signed_out",
    "config.middleware.private_pages",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHED_LOADERS = (
    "django.template.loaders.cached.Loader",
    ["config.templates.Loader", "django.template.loaders.app_directories.Loader"],
)
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "loaders": [("template_partials.loader.Loader", [CACHED_LOADERS])],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "config.context.site",
            ],
        },
    }
]

# --- Database --------------------------------------------------------------------------------
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # IMMEDIATE takes the write lock when a transaction begins, so two writers queue instead of
    # one failing with "database is locked" when it upgrades its read lock. Ours queue fairly.
    DATABASES["default"]["ENGINE"] = "config.sqlite"
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
        "PRAGMA cache_size=-16000; PRAGMA mmap_size=268435456;",
    }
    # A file, not memory: tests with threads and subprocesses then meet the locks that people meet.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    # PostgreSQL then plans a question once per connection and not each time. Off by default: behind
    # a pooler the next transaction may meet another connection, which does not know it.
    if env.bool("DATABASE_PREPARE", False):
        DATABASES["default"].setdefault("OPTIONS", {}).update(
            server_side_binding=True, prepare_threshold=3
        )
# A new connection reads the whole schema: on SQLite that costs more than a question does.
DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", 60)

CACHES: dict[str, dict[str, Any]] = {
    "default": (
        env.cache("CACHE_URL")
        if env.str("CACHE_URL", "")
        else {
            # A folder, because throttles and locks must be shared by every process on the machine.
            "BACKEND": "config.file_cache.FileCache",
            "LOCATION": str(CACHE_DIR / "json"),
        }
    )
}

if CACHES["default"]["BACKEND"] == "django.core.cache.backends.redis.RedisCache":
    CACHES["default"]["BACKEND"] = "config.cache.RedisCache"  # one that may be away
    CACHES["default"].setdefault("OPTIONS", {})["serializer"] = "config.cache_json.JsonSerializer"
CACHES["default"].setdefault("KEY_PREFIX", INSTALLATION)

# --- People ----------------------------------------------------------------------------------
AUTH_USER_MODEL = "annotation.User"
AUTHENTICATION_BACKENDS = ["config.sign_in.OneHashBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "annotation.tokens.RevokeOnNewPassword"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = env.str("ACCOUNT_EMAIL_VERIFICATION", "none")
ACCOUNT_ADAPTER = "config.accounts.AccountAdapter"
# What a stolen session must not do alone asks for the password (or another factor) once more.
ACCOUNT_REAUTHENTICATION_TIMEOUT = 15 * 60
ACCOUNT_REAUTHENTICATION_REQUIRED = True  # for addresses and connections, which let in later
ACCOUNT_FORMS = {"reset_password": "config.sign_in.ForgottenPasswordForm"}
SIGNUP_OPEN = env.bool("SIGNUP_OPEN", False)

# Who must have a second factor: "nobody", "admins" (staff, and admins of a project) or "everybody".
REQUIRE_MFA = env.str("REQUIRE_MFA", "nobody")
MFA_ADAPTER = "config.second_factor.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_TOTP_TOLERANCE = 1  # clocks of phones differ by a step of 30 seconds
# An address that nobody verified identifies nobody here: it is no reason against a second factor.
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_FORMS = {"login_webauthn": "config.second_factor.PasskeyForm"}

# Single sign-on by one provider of OpenID Connect. Its address is the issuer's.
OIDC_SERVER_URL = env.str("OIDC_SERVER_URL", "").rstrip("/")
# Whether it opens an account for everybody whom it knows, and whether it asks for a second factor.
OIDC_SIGNUP = env.bool("OIDC_SIGNUP", False)
OIDC_SECOND_FACTOR = env.bool("OIDC_SECOND_FACTOR", False)
SOCIALACCOUNT_ADAPTER = "config.accounts.SingleSignOnAdapter"
SOCIALACCOUNT_PROVIDERS: dict[str, Any] = {}
if OIDC_SERVER_URL:
    SOCIALACCOUNT_PROVIDERS["openid_connect"] = {
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [
            {
                "provider_id": "sso",
                "name": env.str("OIDC_NAME", "single sign-on"),
                "client_id": env.str("OIDC_CLIENT_ID", ""),
                "secret": env.str("OIDC_CLIENT_SECRET", ""),
                "settings": {"server_url": OIDC_SERVER_URL},
            }
        ],
    }
EMAIL_CONFIG = env.email("EMAIL_URL", default="consolemail://")
vars().update(EMAIL_CONFIG)
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = env.str("EMAIL_FROM", "ground-control@localhost")

# --- REST API --------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "annotation.tokens.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.IsAuthenticated",
        "annotation.scopes.HasScope",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PARSER_CLASSES": ["annotation.api.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "annotation.api.parsers.errors_as_json",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "annotation.api.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 50,
    "NUM_PROXIES": 0,  # REMOTE_ADDR is the client's already.
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
    "DEFAULT_THROTTLE_RATES": {
        "user": env.str("API_RATE", "1200/min"),
        "export": env.str("API_EXPORT_RATE", "60/min"),
    },
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Ground Control",
    "DESCRIPTION": "Preference data, snapshots and rounds. Create a token under Account → Tokens.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "config.error_responses.add_to_schema",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
TOKEN_MAX_DAYS = env.int("TOKEN_MAX_DAYS", 365)
REST_KNOX = {"TOKEN_TTL": None, "TOKEN_PREFIX": "gc_"}
KNOX_TOKEN_MODEL = "annotation.ApiToken"  # noqa: S105 - the name of a model
# knox's migrations make the table of its own token model even where another takes its place.
MIGRATION_MODULES = {"knox": None}


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


# --- Browser security ------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "font-src": [SELF],
        # Chromium asks this of redirects too: the button for single sign-on leads to the provider.
        "form-action": [SELF, *([_origin(OIDC_SERVER_URL)] if OIDC_SERVER_URL else [])],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 86_400 * env.int("SESSION_DAYS", 14)
SESSION_IDLE_MINUTES = env.int("SESSION_IDLE_MINUTES", 720)
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
if HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = 20 * 2**20
FILE_UPLOAD_MAX_MEMORY_SIZE = 5 * 2**20

# --- Import of files: how large and how odd they may be -----------------------------------------
IMPORT_MAX_MIB = env.int("IMPORT_MAX_MIB", 2048)
IMPORT_MAX_UNPACKED_MIB = env.int("IMPORT_MAX_UNPACKED_MIB", 8192)
IMPORT_MAX_RATIO = env.int("IMPORT_MAX_RATIO", 100)
IMPORT_MAX_ROW_MIB = env.float("IMPORT_MAX_ROW_MIB", 16.0)
IMPORT_MAX_ROWS = env.int("IMPORT_MAX_ROWS", 5_000_000)
IMPORT_MAX_FILES = env.int("IMPORT_MAX_FILES", 1_000)
# What `manage.py import_file`, a process of its own, may use (0: no limit).
IMPORT_MAX_MINUTES = env.float("IMPORT_MAX_MINUTES", 0.0)
IMPORT_MAX_MEMORY_GIB = env.float("IMPORT_MAX_MEMORY_GIB", 0.0)

# --- Sending of frozen versions ------------------------------------------------------------------
# Hub repositories and buckets that may be written: hf://datasets/acme/, s3://acme-data/{project}/.
PUSH_ALLOWED = env.list("PUSH_ALLOWED", default=[])

# --- Static files ----------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = env.bool("WHITENOISE_USE_FINDERS", True)
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# --- Language and time -----------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = env.str("TIME_ZONE", "UTC")
USE_I18N = USE_TZ = True

# --- Background jobs (the database is the queue; the broker only wakes workers) ---------------
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", "")
JOB_LEASE_SECONDS = env.int("JOB_LEASE_SECONDS", 30)
JOB_MAX_ATTEMPTS = env.int("JOB_MAX_ATTEMPTS", 3)
JOB_STOP_GRACE_SECONDS = env.int("JOB_STOP_GRACE_SECONDS", 20)
SWEEP_SECONDS = env.float("SWEEP_SECONDS", 2.0)
TRAINING_PYTHON = env.str("TRAINING_PYTHON", "")
TRAINING_THREADS = env.int("TRAINING_THREADS", 0)
# What the processes of a stage may use, all together (0: no limit), and as which user they run.
STAGE_MAX_HOURS = env.float("STAGE_MAX_HOURS", 0.0)
STAGE_MAX_PROCESSOR_HOURS = env.float("STAGE_MAX_PROCESSOR_HOURS", 0.0)
STAGE_MAX_MEMORY_GIB = env.float("STAGE_MAX_MEMORY_GIB", 0.0)
STAGE_MAX_DISK_GIB = env.float("STAGE_MAX_DISK_GIB", 0.0)
STAGE_USER = env.str("STAGE_USER", "")
DEMO_PRESET = env.str("DEMO_PRESET", "tiny")
# Below which folders a project's admin may name a model, in addition to the project's own runs.
MODEL_FOLDERS = [
    Path(folder).expanduser().resolve()
    for folder in env.str("MODEL_FOLDERS", str(DATA_DIR / "models")).split(os.pathsep)
    if folder
]
# Hub names that may be named without a revision where workers download (HF_HUB_OFFLINE=0).
HUB_MODELS = env.list("HUB_MODELS", default=[])
# --- Live dialogue: who answers -----------------------------------------------------------------
# An OpenAI-compatible server somewhere else (vLLM); its key stays on this side.
POLICY_SERVER_URL = env.str("POLICY_SERVER_URL", "").rstrip("/")
POLICY_SERVER_TOKEN = env.str("POLICY_SERVER_TOKEN", "")
POLICY_IDLE_MINUTES = env.float("POLICY_IDLE_MINUTES", 30.0)
POLICY_SERVERS_MAX = env.int("POLICY_SERVERS_MAX", 2)
POLICY_START_SECONDS = env.float("POLICY_START_SECONDS", 600.0)
POLICY_DEVICE = env.str("POLICY_DEVICE", "auto")
DIALOGUE_RATE = env.int("DIALOGUE_RATE", 12)
DIALOGUE_STREAMS = env.int("DIALOGUE_STREAMS", 4)

# For the estimate before a launch: what the machine draws, and what an hour of it costs (0: nothing).
MACHINE_WATTS = env.float("MACHINE_WATTS", 40.0)
MACHINE_PRICE_PER_HOUR = env.float("MACHINE_PRICE_PER_HOUR", 0.0)

# What a training process gets to see of our environment: no keys, no addresses, no passwords.
TRAINING_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TZ")
    or name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME")
    or name.startswith(("LC_", "CUDA_", "NVIDIA_", "NCCL_", "ROCR_", "HIP_", "OMP_", "GOMP_"))
}
TRAINING_ENVIRONMENT.setdefault("HF_HUB_OFFLINE", "1")
TRAINING_ENVIRONMENT |= {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
if TRAINING_THREADS:
    TRAINING_ENVIRONMENT["OMP_NUM_THREADS"] = str(TRAINING_THREADS)

# In addition, for PPO only: the server for its rollouts, if `rollouts` is "server".
ROLLOUT_ENVIRONMENT = {
    name: os.environ[name]
    for name in ("ROLLOUT_SERVER_URL", "ROLLOUT_SERVER_TOKEN", "ROLLOUT_SERVER_FOLDER")
    if name in os.environ
}

# Security events, one file a day, and how many days they are kept.
SECURITY_LOG_DIR = DATA_DIR / "security"
SECURITY_LOG_DAYS = env.int("SECURITY_LOG_DAYS", 180)

# Whether messages of exceptions are logged, which may hold people's words (config/private_log.py).
LOG_WORDS = env.bool("LOG_WORDS", not set(ALLOWED_HOSTS) - {"localhost", "127.0.0.1", "[::1]"})

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "config.private_log.Lines" if LOG_WORDS else "config.private_log.PrivateLines",
            "format": "%(asctime)s %(levelname)s %(name)s [%(request)s]: %(message)s",
        }
    },
    "filters": {"request": {"()": "config.security_log.AddRequest"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["request"],
        },
        "security": {
            "class": "config.security_log.DailyJsonLines",
            "folder": str(SECURITY_LOG_DIR),
            "days": SECURITY_LOG_DAYS,
        },
    },
    "loggers": {"security": {"handlers": ["security"], "level": "INFO", "propagate": False}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "WARNING")},
}
