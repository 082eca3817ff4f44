# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Fetch one file over HTTP: redirects, limits of time and size, the wish of a site, and each failure by its reason."""

import email.utils
import time
import urllib.request
from collections.abc import Collection
from http.cookiejar import CookieJar, DefaultCookiePolicy

from huggingface_hub.utils import httpx  # the version of it that is installed with transformers

from ...files_flamingo import run_within
from .addresses import Resolver
from .failures import FetchError


#: Redirects that are followed.
MAX_REDIRECTS = 8
#: Directives of `X-Robots-Tag` by which a site opts out of training: those of img2dataset.
OPT_OUT_DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")

# Directives with a value, in which a colon does not follow the name of a robot
_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
_STATUSES = {
    **dict.fromkeys((404, 410), "not_found"),
    **dict.fromkeys((401, 403, 451), "forbidden"),
    **dict.fromkeys((408, 425), "server_error"),
    429: "rate_limited",
}


class Client:
    """
    Client that fetches files from many sites, from any number of threads.

    Args:
        timeout (`float`): Seconds for a file, with its redirects.
        max_bytes (`int`): Maximum size of a file.
        user_agent (`str`): What the client calls itself. A site may address an `X-Robots-Tag` to its first word.
        opt_out (`Collection[str]`): Directives of `X-Robots-Tag` that are obeyed.
        allow_private_hosts (`bool`): Whether addresses of private networks are fetched.
    """

    def __init__(
        self, timeout: float, max_bytes: int, user_agent: str, opt_out: Collection[str], allow_private_hosts: bool
    ):
        self.timeout, self.max_bytes = timeout, max_bytes
        self.robot = user_agent.partition("/")[0].split(maxsplit=1)[0].lower()
        self.opt_out = {directive.lower() for directive in opt_out}
        self._resolver = Resolver(allow_private_hosts)
        arguments = {
            # A small compressed answer could grow without limit. Images are compressed already.
            "headers": {"User-Agent": user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            "timeout": timeout,
            "verify": httpx.create_ssl_context(),
            # No cookie of any site is kept, or sent to another one
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            # A connection is to an address, and two hosts may share one: it is never used for another file
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=0),
        }
        self._direct = httpx.Client(trust_env=False, **arguments)
        self._proxied = httpx.Client(trust_env=True, **arguments)

    def fetch(self, url: str) -> bytes:
        """
        Return the content of an address.

        Raises:
            FetchError: it cannot or must not be fetched.
        """
        deadline = time.monotonic() + self.timeout
        try:
            return run_within(self.timeout, lambda: self._follow(url, deadline))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise FetchError("timeout", f"it did not arrive within {self.timeout:g} seconds") from error
        except httpx.InvalidURL as error:
            raise FetchError("bad_url", str(error)) from error
        except (httpx.HTTPError, OSError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            # The certificate of a site does not change while one waits
            raise FetchError("connection", words, "CERTIFICATE_VERIFY_FAILED" not in words) from error

    def _follow(self, address: str, deadline: float) -> bytes:
        url = _parse(address)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._open(url)
            try:
                if response.status_code not in (301, 302, 303, 307, 308):
                    return self._read(response, deadline)
                location = response.headers.get("location")
            finally:
                response.close()
            if not location:
                raise FetchError("redirects", f"status {response.status_code} without a new address")
            try:
                url = _parse(str(url.join(location)))
            except (httpx.InvalidURL, FetchError) as error:
                raise FetchError("redirects", f"it leads to {location!r:.200}, not an http(s) address") from error
        raise FetchError("redirects", f"there are more than {MAX_REDIRECTS}")

    def _open(self, url: httpx.URL) -> httpx.Response:
        if _uses_proxy(url):
            self._resolver.check_literal(url.host)
            return self._proxied.send(self._proxied.build_request("GET", url), stream=True)
        host = url.raw_host.decode("ascii")
        addresses = self._resolver.resolve(host, url.port or {"http": 80, "https": 443}[url.scheme])
        for address in addresses[:-1]:
            try:
                return self._send_to(address, host, url)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # a host may have an address of IPv6, and this machine no such network
        return self._send_to(addresses[-1], host, url)

    def _send_to(self, address: str, host: str, url: httpx.URL) -> httpx.Response:
        request = self._direct.build_request(
            "GET",
            url.copy_with(host=address),
            headers={"Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": host},
        )
        return self._direct.send(request, stream=True)

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        status = response.status_code
        if status != 200:
            reason = "server_error" if status >= 500 else _STATUSES.get(status, "http_error")
            raise FetchError(reason, f"status {status}", retry_after=_retry_after(response.headers.get("retry-after")))
        for value in response.headers.get_list("x-robots-tag"):
            found = self.opt_out.intersection(directives_for(value, self.robot))
            if found:
                raise FetchError("opted_out", f"X-Robots-Tag has {', '.join(map(repr, sorted(found)))}")
        limit = f"more than the limit of {self.max_bytes:,} bytes"
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_bytes:
            raise FetchError("too_large", f"it has {int(length):,} bytes, {limit}")
        data = bytearray()
        for part in response.iter_bytes():
            data += part
            if len(data) > self.max_bytes:
                raise FetchError("too_large", f"it has {limit}")
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(data)


def directives_for(value: str, robot: str) -> set[str]:
    """
    Return the directives of an `X-Robots-Tag` that apply to a robot: `noai, otherbot: noindex` has `noai` for all others.

    Args:
        value (`str`): The value of the header.
        robot (`str`): The name of the robot, in lower case.
    """
    found, applies = set(), True
    for part in value.lower().split(","):
        name, colon, directive = (word.strip() for word in part.partition(":"))
        if colon and name not in _WITH_VALUE:
            applies, name = name in (robot, "*"), directive
        if applies:
            found.add(name)
    return found


def _parse(address: str) -> httpx.URL:
    url = httpx.URL(address.strip())
    if url.scheme not in ("http", "https") or not url.host:
        raise FetchError("bad_url", f"{address!r:.200} is not an address that starts with http:// or https://")
    return url


def _uses_proxy(url: httpx.URL) -> bool:
    proxies = urllib.request.getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(url.host)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After`, which is a number or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
