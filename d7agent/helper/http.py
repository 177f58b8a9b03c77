"""One HTTP exchange with D7 through urllib3: no redirects, no retries, hard limits on time and size."""

import os
import ssl
import zlib
from typing import Final
from urllib.parse import SplitResult

import urllib3
from msgspec import Struct

from d7agent import __version__
from d7agent.core.clock import boot_time
from d7agent.core.jobs import CONNECT_LIMIT, LOGIN_LIMIT, Failed
from d7agent.core.model import Secret
from d7agent.helper.answers import LATER_HINT, PROXY_HINT, Answer
from d7agent.helper.deadline import within
from d7agent.helper.faults import JobFault
from d7agent.helper.network_faults import Route, sorted_fault
from d7agent.helper.proxy import Proxy, proxy_for

MAX_BODY: Final = 1024 * 1024  # bytes after decompression; a login's answer is 1 kB, a balance smaller
PIECE: Final = 8 * 1024  # bytes read at once
GZIP: Final = 16 + zlib.MAX_WBITS  # zlib's way to say "with a gzip header"
ENCODINGS: Final = {"": None, "identity": None, "gzip": GZIP, "x-gzip": GZIP}


class Request(Struct, frozen=True):
    """What to ask: `path` below the base URL; `fields` as a form, or a bearer `token`."""

    method: str
    path: str
    fields: dict[str, Secret] | None = None
    token: Secret | None = None


def exchange(base: SplitResult, request: Request, limit: float = LOGIN_LIMIT) -> Answer:
    """The answer to one request, whole within `limit` seconds. Raises JobFault sorted by what stood in the way."""
    proxy = proxy_for(base, os.environ)
    route = Route(host=base.hostname or "", proxy=proxy.name if proxy else None)
    late = Failed("timeout", f"{route.host} did not finish its answer within {limit:g} s", LATER_HINT)
    return within(limit, lambda: _sorted(base, request, proxy, route, limit), lambda: JobFault(late))


def _sorted(base: SplitResult, request: Request, proxy: Proxy | None, route: Route, limit: float) -> Answer:
    failed: Failed
    try:
        with _pool(base, proxy) as pool:
            return _answer(pool, base, request, limit)
    except JobFault:
        raise
    except Exception as error:  # noqa: BLE001  urllib3, http.client, ssl and the resolver: sorted by cause, once, here
        failed = sorted_fault(error, route)
    raise JobFault(failed)  # outside the handler: no context, in which a foreign exception might hold the form


def _pool(base: SplitResult, proxy: Proxy | None) -> urllib3.PoolManager:
    """A pool with the system's CAs (or SSL_CERT_FILE, SSL_CERT_DIR); they take 20 ms to load, so not for http."""
    context = ssl.create_default_context() if base.scheme == "https" else None
    if proxy is None:
        return urllib3.PoolManager(ssl_context=context)
    headers = urllib3.make_headers(proxy_basic_auth=proxy.login.reveal()) if proxy.login else None
    return urllib3.ProxyManager(proxy.url, proxy_headers=headers, ssl_context=context, proxy_ssl_context=context)


def _answer(pool: urllib3.PoolManager, base: SplitResult, request: Request, limit: float) -> Answer:
    end = boot_time() + limit
    headers = {"User-Agent": f"d7agent/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip"}
    if request.token:
        headers["Authorization"] = f"Bearer {request.token.reveal()}"
    response = pool.request(
        request.method,
        f"{base.scheme}://{base.netloc}{base.path}{request.path}",
        fields={name: value.reveal() for name, value in request.fields.items()} if request.fields else None,
        headers=headers,
        redirect=False,
        retries=False,
        preload_content=False,
        timeout=urllib3.Timeout(connect=CONNECT_LIMIT, total=limit),
    )
    try:
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(status=response.status, headers=found, body=_body(response, end))
    finally:
        response.close()


def _body(response: urllib3.BaseHTTPResponse, end: float) -> bytes:
    """The body, decompressed step by step so that a bomb never unfolds. Raises JobFault."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ENCODINGS:
        raise _bad(response.status, "came in an encoding that was not asked for")
    window = ENCODINGS[encoding]
    inflater = zlib.decompressobj(window) if window else None
    body = bytearray()
    while piece := response.read(PIECE, decode_content=False):
        body += inflater.decompress(piece, MAX_BODY + 1 - len(body)) if inflater else piece
        if len(body) > MAX_BODY:
            raise _bad(response.status, f"is larger than {MAX_BODY // 1024} KiB")
        if boot_time() > end:
            raise TimeoutError
    if inflater and not inflater.eof and body:
        raise _bad(response.status, "broke off")
    return bytes(body)


def _bad(status: int, why: str) -> JobFault:
    return JobFault(Failed("bad_reply", f"the answer (HTTP {status}) {why}", PROXY_HINT, status=status))
