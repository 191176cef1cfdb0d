"""The reference configuration of a proxy, started: HTTPS, one name, and addresses that nobody forges."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlencode

import pytest
from django.conf import settings

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="needs nginx and openssl"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, "it ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("it did not start")


def site(folder, web, plain, secure):
    """The reference files with the test's ports and certificate, inside the least that nginx needs."""
    deploy = settings.BASE_DIR / "deploy"
    text = (deploy / "nginx-site.conf").read_text()
    changes = {
        "127.0.0.1:8000;": f"127.0.0.1:{web};",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "listen 443": f"listen 127.0.0.1:{secure}",
        "/etc/ssl/lab.example/": f"{folder}/",
        "snippets/ground-control-proxy.conf": str(deploy / "nginx-proxy.conf"),
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "site.conf").write_text(text)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"
        f"events {{}} http {{ {paths} access_log {folder}/access.log; include site.conf; }}"
    )


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    """(plain, secure, data folder) of nginx in front of gunicorn, both as the documents say."""
    folder = tmp_path_factory.mktemp("nginx")
    web, plain, secure = free_port(), free_port(), free_port()
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=lab.example",
            "-addext",
            "subjectAltName=DNS:lab.example",
            "-keyout",
            folder / "privkey.pem",
            "-out",
            folder / "fullchain.pem",
        ],
        check=True,
        capture_output=True,
    )
    site(folder, web, plain, secure)
    data = folder / "data"
    environment = {
        **os.environ,
        "GROUND_CONTROL_DATA": str(data),
        "HTTPS": "1",
        "ALLOWED_HOSTS": "lab.example",
        "CSRF_TRUSTED_ORIGINS": "https://lab.example",
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    run = [sys.executable, "manage.py", "migrate", "-v", "0"]
    subprocess.run(run, cwd=settings.BASE_DIR, env=environment, check=True)
    gunicorn = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{web}"]
    processes = [
        subprocess.Popen(gunicorn, cwd=settings.BASE_DIR, env=environment),
        subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"]),
    ]
    try:
        wait_for(web, processes[0])
        wait_for(secure, processes[1])
        yield plain, secure, folder
    finally:
        for process in processes:
            process.terminate()
            process.wait(20)


def ask(ports, method="GET", path="/accounts/login/", body=None, name="lab.example", **headers):
    _, secure, folder = ports
    context = ssl.create_default_context(cafile=folder / "fullchain.pem")
    connection = HTTPSConnection("127.0.0.1", secure, context=context, timeout=30)
    # The name decides which server of nginx answers, and is what the certificate is checked for.
    raw = socket.create_connection(("127.0.0.1", secure), 30)
    connection.sock = context.wrap_socket(raw, server_hostname=name)
    connection.request(method, path, body, {"Host": name, **headers})
    answer = connection.getresponse()
    return answer, answer.read().decode(errors="replace")


def test_plain_requests_are_sent_to_https(ports):
    connection = HTTPConnection("127.0.0.1", ports[0], timeout=30)
    connection.request("GET", "/projects/apollo/?a=b", headers={"Host": "lab.example"})
    answer = connection.getresponse()
    assert answer.status == 308
    assert answer.headers["Location"] == "https://lab.example/projects/apollo/?a=b"


def test_a_page_by_https_has_its_headers_and_a_secure_cookie(ports):
    answer, page = ask(ports)
    assert answer.status == 200
    assert "<h1>Sign in</h1>" in page
    assert "max-age=31536000" in answer.headers["Strict-Transport-Security"]
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "nginx/" not in answer.headers["Server"]
    asset, script = ask(ports, path="/static/js/theme.js")
    assert (asset.status, bool(script)) == (200, True)


def test_another_name_gets_neither_an_answer_nor_the_certificate(ports):
    with pytest.raises(OSError, match=r".*"):
        ask(ports, name="other.example")
    connection = HTTPConnection("127.0.0.1", ports[0], timeout=30)
    connection.request("GET", "/", headers={"Host": "other.example"})
    with pytest.raises(OSError, match=r".*"):
        connection.getresponse()


def test_an_old_protocol_is_refused(ports):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    raw = socket.create_connection(("127.0.0.1", ports[1]), 30)
    with pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="lab.example")


def test_a_client_cannot_say_who_it_is_and_tries_are_limited(ports):
    answer, page = ask(ports)
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    token = page.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    body = urlencode({"csrfmiddlewaretoken": token, "login": "ada", "password": "wrong"})
    headers = {
        "Cookie": cookie,
        "Content-Type": "application/x-www-form-urlencoded",
        "Referer": "https://lab.example/accounts/login/",
        "X-Forwarded-For": "203.0.113.66",
        "Forwarded": "for=203.0.113.66",
    }
    assert ask(ports, "POST", body=body, **headers)[0].status == 200
    lines = "".join(path.read_text() for path in (ports[2] / "data/security").iterdir())
    failed = [
        row for row in map(json.loads, lines.splitlines()) if row["event"] == "sign-in failed"
    ]
    assert failed
    assert {row["address"] for row in failed} == {"127.0.0.1"}
    statuses = [ask(ports)[0].status for _ in range(40)]
    assert 429 in statuses


def test_a_link_that_lets_in_is_in_no_log(ports):
    assert ask(ports, path="/invitations/s3cret/")[0].status == 404
    assert ask(ports, path="/nowhere/")[0].status == 404
    until = time.monotonic() + 10  # a line is written after its answer
    while "/nowhere/" not in (log := (ports[2] / "access.log").read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "s3cret" not in log
