# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Fetch many files at once: threads, few of them for each host, and pauses before another try."""

import heapq
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from urllib.parse import urlsplit

from .failures import FetchError


#: Seconds before the second try; it doubles with each further one.
BACKOFF_SECONDS = 1.0
#: Maximum number of seconds that a site can make this run wait by `Retry-After`.
MAX_WAIT_SECONDS = 120.0
#: This many failures to connect, to this many hosts and with no success between them, are a failure of this machine's own network. At the
#: beginning of a list they are so for any number of hosts.
MAX_FAILED_IN_A_ROW, MIN_FAILED_HOSTS = 200, 20


class NetworkDownError(ConnectionError):
    """Nothing can be reached, so all images would be counted as dead."""


@dataclass
class _Job:
    """Hold what is to be fetched, and who waits for it."""

    fetch: Callable[[], None]
    host: str
    future: Future
    attempts: int = 0


class Downloads:
    """
    Threads that fetch many files. A thread never waits for a busy host while another one has work.

    Args:
        concurrency (`int`): Number of threads.
        max_per_host (`int`): Maximum number of files of one host at the same time.
        retries (`int`): Maximum number of further tries.
        is_first (`bool`, *optional*, defaults to `False`):
            Whether nothing was fetched of the list before. Then a single host that cannot be reached may be a failure of this
            machine's own network too, if the list has no other one. Later it is a host that is gone.
    """

    def __init__(self, concurrency: int, max_per_host: int, retries: int, is_first: bool = False):
        self.max_per_host, self.retries = max_per_host, retries
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[_Job]] = {}
        self._active: Counter[str] = Counter()
        # Hosts with a job that may start now, each once
        self._ready: dict[str, None] = {}
        self._paused: dict[str, float] = {}
        # Jobs that are tried again, and hosts that are asked again, with the time
        self._later: list[tuple[float, int, _Job | str]] = []
        self._numbers = itertools.count()
        self._failed_in_a_row, self._failed_hosts = 0, set()
        self._hosts: set[str] = set()
        self._is_first = is_first
        self._stopped: BaseException | None = None
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]
        for thread in self.threads:
            thread.start()

    def submit(self, url: str, fetch: Callable[[], None]) -> "Future[FetchError | None]":
        """
        Fetch a file some time.

        Args:
            url (`str`): Its address, of which the host matters.
            fetch (`Callable[[], None]`): Fetches it. If it raises a [`FetchError`] that can be retried, it is called again.

        Returns:
            `Future[FetchError | None]`: `None`, or why it failed in the end. An exception of any other type is raised.
        """
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        job = _Job(fetch, host, Future())
        with self._changed:
            if self._stopped is not None:
                job.future.set_exception(self._stopped)
                return job.future
            if self._is_first:
                self._hosts.add(host)
            self._waiting.setdefault(host, deque()).append(job)
            self._mark(host)
        return job.future

    def stop(self, error: BaseException | None = None) -> None:
        """Start nothing more. Who still waits gets an error."""
        with self._changed:
            self._stopped = error or RuntimeError("the downloads were stopped")
            jobs = [job for waiting in self._waiting.values() for job in waiting]
            jobs += [entry[2] for entry in self._later if isinstance(entry[2], _Job)]
            self._waiting.clear()
            self._ready.clear()
            self._later.clear()
            self._changed.notify_all()
        for job in jobs:
            job.future.set_exception(self._stopped)

    def _work(self) -> None:
        while (job := self._take()) is not None:
            result: FetchError | None = None
            try:
                job.fetch()
            except FetchError as error:
                result = error
            except BaseException as error:  # a full disk: it belongs to whoever waits
                self._release(job.host)
                job.future.set_exception(error)
                continue
            if result is None or not self._postpone(job, result):
                self._release(job.host)
                self._watch_network(job.host, result)
                job.future.set_result(result)

    def _take(self) -> _Job | None:
        """Return the next job, or `None` after the end."""
        with self._changed:
            while self._stopped is None:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._resume(heapq.heappop(self._later)[2])
                if self._ready:
                    host = next(iter(self._ready))
                    del self._ready[host]
                    job = self._waiting[host].popleft()
                    if not self._waiting[host]:
                        del self._waiting[host]
                    self._active[host] += 1
                    self._mark(host)
                    return job
                self._changed.wait(self._later[0][0] - now if self._later else None)
        return None

    def _resume(self, what: _Job | str) -> None:
        if isinstance(what, _Job):
            self._waiting.setdefault(what.host, deque()).appendleft(what)
            self._mark(what.host)
        elif self._paused.get(what, 0.0) <= time.monotonic():
            self._paused.pop(what, None)
            self._mark(what)

    def _mark(self, host: str) -> None:
        """Let a thread take a job of a host, if there is one and it may start."""
        may_start = self._active[host] < self.max_per_host and host not in self._paused
        if may_start and host in self._waiting and host not in self._ready:
            self._ready[host] = None
            self._changed.notify()

    def _release(self, host: str) -> None:
        with self._changed:
            self._active[host] -= 1
            if not self._active[host]:
                del self._active[host]
            self._mark(host)

    def _postpone(self, job: _Job, error: FetchError) -> bool:
        """Plan another try, if there may be one."""
        job.attempts += 1
        delay = BACKOFF_SECONDS * 2 ** (job.attempts - 1)
        if not error.can_retry or job.attempts > self.retries or (error.retry_after or 0.0) > MAX_WAIT_SECONDS:
            return False
        with self._changed:
            if self._stopped is not None:
                return False
            now = time.monotonic()
            if error.retry_after is not None:  # the host has enough of all of them
                delay = max(delay, error.retry_after)
                self._paused[job.host] = max(self._paused.get(job.host, 0.0), now + error.retry_after)
                heapq.heappush(self._later, (self._paused[job.host], next(self._numbers), job.host))
                self._ready.pop(job.host, None)
            heapq.heappush(self._later, (now + delay, next(self._numbers), job))
            self._changed.notify()
        self._release(job.host)
        return True

    def _watch_network(self, host: str, error: FetchError | None) -> None:
        """End the downloads if nothing can be reached any more."""
        with self._changed:
            if error is None or error.reason not in ("connection", "dns", "timeout"):
                self._failed_in_a_row, self._is_first = 0, False
                self._failed_hosts.clear()
                return
            self._failed_in_a_row += 1
            self._failed_hosts.add(host)
            are_all = self._is_first and self._hosts <= self._failed_hosts
            is_down = self._failed_in_a_row >= MAX_FAILED_IN_A_ROW and (
                are_all or len(self._failed_hosts) >= MIN_FAILED_HOSTS
            )
            hosts = "all of the same host" if len(self._failed_hosts) == 1 else f"of {len(self._failed_hosts)} hosts"
            remedy = " If a host is gone for good, remove its rows from the list." if are_all else ""
            message = (
                f"The last {self._failed_in_a_row} images, {hosts}, could not be reached ({error.detail}). "
                "Is the network down? They are not counted as dead. Run the same command again to go on."
                f"{remedy}"
            )
        if is_down:
            self.stop(NetworkDownError(message))
