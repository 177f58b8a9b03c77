import pytest

from d7agent.helper.address import base_url, is_loopback
from d7agent.helper.clean import cleaned, cleaned_token
from d7agent.helper.faults import Invalid, JobFault
from d7agent.helper.proxy import bypassed, proxy_for
from tests.support.helper import shown


@pytest.mark.parametrize(
    ("pasted", "value"),
    [
        ("abc", "abc"),
        (" \t abc\r\n", "abc"),
        ('"abc"', "abc"),
        ("'abc'", "abc"),
        (" \"'abc' \" \n", "abc"),
        ("“abc”", "abc"),
        ("\ufeffabc\u200b", "abc"),
        ("a b", "a b"),
        ('"abc', '"abc'),
        ("Bearer abc", "Bearer abc"),
        ("pässwörd", "pässwörd"),
    ],
)
def test_what_pasting_added_is_taken_off(pasted: str, value: str) -> None:
    """Blanks, byte order marks and pairs of quotes around a value go; what is inside stays."""
    assert cleaned("client_secret", pasted) == value


@pytest.mark.parametrize("pasted", ["", " ", '""', "a\x00b", "a\nb", "a\x1bb", "a\u200bb", "a\ud800", "x" * 16385])
def test_what_cannot_be_a_secret_is_refused(pasted: str) -> None:
    """Empty, control characters inside, or a whole file: the parameter is named, its value is not."""
    with pytest.raises(Invalid) as fault:
        cleaned("client_secret", pasted)
    assert fault.value.failed.invalid == "client_secret"
    assert fault.value.failed.permanent
    assert not pasted.strip() or pasted not in fault.value.failed.message


@pytest.mark.parametrize("pasted", ["a.b.c", "Bearer a.b.c", ' "bearer\ta.b.c"\n', "BEARER 'a.b.c'"])
def test_a_pasted_token_loses_its_bearer(pasted: str) -> None:
    """A leading Bearer, in any case and behind quotes, is no part of a token."""
    assert shown(cleaned_token("access_token", pasted)) == "a.b.c"


@pytest.mark.parametrize("pasted", ["Bearer", "a b", "tökén", "", "Bearer  ", "x" * 16385])
def test_what_cannot_be_a_token_is_refused(pasted: str) -> None:
    """A token is visible ASCII without blanks, and the word Bearer alone is none."""
    with pytest.raises(Invalid):
        cleaned_token("access_token", pasted)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.d7networks.com",
        "https://api.d7networks.com/",
        "https://gateway.example:8443/d7/",
        "http://localhost:8080",
        "http://127.1.2.3",
        "http://[::1]:99",
    ],
)
def test_usable_base_urls(url: str) -> None:
    """https anywhere, plain http to loopback; a path is kept without its last slash."""
    parts = base_url(url)
    assert parts.geturl() == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.d7networks.com",
        "ftp://api.d7networks.com",
        "http://api.d7networks.com",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://2130706433",
        "http://0.0.0.0",
        "https://",
        "https://user@api.d7networks.com",
        "https://user:pass@api.d7networks.com",
        "https://api.d7networks.com?x=1",
        "https://api.d7networks.com/#x",
        "https://api.d7networks.com/?",
        "https://api.d7networks.com:99999",
        "https://api.d7networks.com:x",
        "https://api.d7networks.com\r\nX: 1",
        "https://api.d7networks.com /x",
        "https://evil.example\\@api.d7networks.com",
        "https://[::1",
        "https://exämple.org",
    ],
)
def test_unusable_base_urls(url: str) -> None:
    """Nothing that could send the secret elsewhere, or in the clear, is a base URL."""
    with pytest.raises(Invalid) as fault:
        base_url(url)
    assert fault.value.failed.invalid == "base_url"


@pytest.mark.parametrize(
    ("host", "is_it"),
    [("localhost", True), ("LOCALHOST.", True), ("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("::", False)],
)
def test_loopback(host: str, is_it: bool) -> None:
    """Only names and addresses that cannot leave this machine are loopback."""
    assert is_loopback(host) is is_it


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://proxy:1"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://small", "HTTPS_PROXY": "http://large"}, "http://small:80"),
        ({"ALL_PROXY": "https://proxy"}, "https://proxy:443"),
        ({"HTTPS_PROXY": "proxy:8080"}, "http://proxy:8080"),
        ({"HTTPS_PROXY": "http://[fe80::1]:8080"}, "http://[fe80::1]:8080"),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "d7networks.com"}, None),
        ({"HTTPS_PROXY": "http://proxy:1", "no_proxy": "x, .d7networks.com:443"}, None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "d7networks.com:8443,networks.com,"}, "http://proxy:1"),
    ],
)
def test_which_proxy(env: dict[str, str], url: str | None) -> None:
    """The usual variables, the small spelling first; NO_PROXY names hosts and what is below them."""
    found = proxy_for(base_url("https://api.d7networks.com"), env)
    assert (found.url if found else None) == url


def test_loopback_never_goes_through_a_proxy() -> None:
    """A sandbox on this machine is not asked for on a proxy's machine."""
    assert proxy_for(base_url("https://127.0.0.1:8443"), {"HTTPS_PROXY": "http://proxy:1"}) is None


@pytest.mark.parametrize("entry", ["10.0.0.0/8", "10.1.2.3", "[10.1.2.3]:443", "10.1.2.3:443"])
def test_no_proxy_knows_addresses_and_networks(entry: str) -> None:
    """Addresses and networks, as curl reads them."""
    assert bypassed("10.1.2.3", 443, {"NO_PROXY": entry})
    assert not bypassed("11.1.2.3", 443, {"NO_PROXY": entry})


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "http://", "http://proxy:0x1", "gopher://x"])
def test_a_proxy_that_cannot_be_used_is_told(url: str) -> None:
    """The variable is named; nothing is sent directly instead."""
    with pytest.raises(JobFault) as fault:
        proxy_for(base_url("https://api.d7networks.com"), {"HTTPS_PROXY": url})
    assert fault.value.failed.reason == "connect"
    assert "HTTPS_PROXY" in fault.value.failed.message


def test_a_proxys_password_stays_out_of_its_name() -> None:
    """User and password are taken out of the URL, decoded, and kept as a secret."""
    found = proxy_for(base_url("https://api.d7networks.com"), {"HTTPS_PROXY": "http://me:p%40ss@proxy:1"})
    assert found is not None
    assert (found.url, found.name, shown(found.login)) == ("http://proxy:1", "proxy:1", "me:p@ss")
    assert "p@ss" not in repr(found)
