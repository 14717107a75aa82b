"""One file from one server, in memory, within a time and a size whatever the server does."""

from __future__ import annotations

import threading

CHUNK = 1 << 16


class FetchError(Exception):
    """A server did not send the file; the message says what it did instead."""


def fetch(url: str, *, most: int, silence_s: float, total_s: float) -> bytes:
    """What `url` gives, as it is sent.

    Parameters
    ----------
    most
        Bytes that it may have.
    silence_s
        How long the server may send nothing.
    total_s
        How long all of it may take: name resolution, redirects, and a server that sends a byte now and then.

    Raises
    ------
    FetchError
        The network or the server fails, or a limit is passed.
    """
    received = bytearray()
    problems: list[str] = []
    given_up = threading.Event()

    def work() -> None:
        try:
            receive(url, received, most, silence_s, given_up)
        except FetchError as error:
            problems.append(str(error))
        except Exception as error:  # of requests, urllib3, http.client, ssl, codecs: there are too many to name
            problems.append(type(error).__name__)  # the error itself would keep the connection's objects alive

    # Only from outside is name resolution bounded, or a read that a byte now and then keeps from its timeout.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(total_s)
    if worker.is_alive():
        given_up.set()
        raise FetchError(f"not done in {total_s:g} s")
    if problems:
        raise FetchError(problems[0])
    return bytes(received)


def receive(url: str, received: bytearray, most: int, silence_s: float, given_up: threading.Event) -> None:
    """Append what `url` sends to `received`, until all is there or it was given up."""
    import requests

    # A server that compresses what is compressed already would spoil the count of bytes.
    headers = {"Accept-Encoding": "identity"}
    with (
        requests.Session() as session,
        session.get(url, headers=headers, stream=True, timeout=silence_s) as response,
    ):
        if response.status_code != requests.codes.ok:
            raise FetchError(f"HTTP status {response.status_code}")
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            if given_up.is_set():
                return
            received += chunk
            if len(received) > most:
                raise FetchError(f"more than {most:,} bytes")
