"""Downloads from a real HTTPS server, which does what servers and networks do at their worst."""

from __future__ import annotations

import gzip
import json
import select
import signal
import socket
import ssl
import sys
import threading
import time
from functools import partial

import pytest
import trustme
from commands import Fork
from https_server import serve
from model_files import hub_file, package, publish, recorded

from stemlab.errors import DownloadError
from stemlab.provisioning import _download, add_model, remove_model, verify_model
from stemlab.registry import find_model, is_installed, lookup

NAME = "tiny"
CUT = 100_001
unix = pytest.mark.skipif(sys.platform == "win32", reason="forks, signals and limits of Unix")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def content(tiny_htdemucs):
    return hub_file(tiny_htdemucs)


@pytest.fixture(scope="module")
def pickled(tiny_htdemucs):
    return package(tiny_htdemucs)


@pytest.fixture(autouse=True)
def trusted(authority, tmp_path, monkeypatch):
    """As a company's own authority is trusted."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    monkeypatch.setattr(_download, "TIMEOUT_SECONDS", (5.0, 5.0))
    monkeypatch.setattr(_download, "PAUSE_SECONDS", 0.01)
    return path


@pytest.fixture
def context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def server(context, content):
    with serve(context) as running:
        running.content = content
        yield running


@pytest.fixture
def store(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    monkeypatch.setenv("STEMLAB_MODELS", str(folder))
    return folder


@pytest.fixture
def assets(tmp_path, monkeypatch, store, server, content, tiny_htdemucs):
    """A registry whose model is published by the server."""
    folder = tmp_path / "assets"
    url = f"https://127.0.0.1:{server.port}/abc.safetensors"
    publish(folder, NAME, [tiny_htdemucs], [[recorded("abc.safetensors", content, url=url)]])
    monkeypatch.setattr(lookup, "asset_dir", lambda _: folder)
    return folder


def lying_in(store):
    return {str(each.relative_to(store)) for each in store.rglob("*") if each.is_file()} - {".lock"}


def part_of(store):
    (found,) = (store / ".downloads").iterdir()
    return found


def ranges(server):
    return [asked for _, asked in server.requests]


def fetched(store):
    """The model is whole, and nothing else is left."""
    assert verify_model(NAME)
    assert lying_in(store) == {"tiny/abc.safetensors"}
    return True


def in_turn(*answers):
    """Answer the first request in the first way and so on; the last way stays."""
    left = list(answers)

    def answer(handler, first):
        (left.pop(0) if len(left) > 1 else left[0])(handler, first)

    return answer


def test_a_model_is_fetched_verified_and_not_fetched_again(assets, server, store, content):
    events = []
    add_model(NAME, download=True, progress=events.append)
    assert fetched(store)
    done = [each.done for each in events]
    assert done == sorted(done)
    assert (events[-1].done, events[-1].total) == (len(content), len(content))
    add_model(NAME, download=True)
    assert server.requests == [("/abc.safetensors", None)]


def test_a_pickle_is_converted(assets, server, store, pickled, tiny_htdemucs):
    server.content = pickled
    url = f"https://localhost:{server.port}/abc.th"
    publish(assets, NAME, [tiny_htdemucs], [[recorded("abc.th", pickled, url=url)]])
    add_model(NAME, download=True)
    assert verify_model(NAME)
    assert lying_in(store) == {"tiny/abc.safetensors", "tiny/installed.json"}


def test_a_cut_connection_is_taken_up_where_it_was(assets, server, store):
    server.answer = in_turn(
        partial(server.cut, after=CUT), partial(server.cut, after=0), server.well
    )
    events = []
    add_model(NAME, download=True, progress=events.append)
    assert ranges(server) == [None, f"bytes={CUT}-", f"bytes={CUT}-"]
    done = [each.done for each in events]
    assert done == sorted(set(done))
    assert CUT in done
    assert fetched(store)


def test_a_server_that_gives_nothing_is_given_up_and_what_came_is_kept(assets, server, store):
    server.answer = in_turn(partial(server.cut, after=CUT), partial(server.cut, after=0))
    with pytest.raises(DownloadError, match=rf"{CUT} of \d+ bytes are there; the same command"):
        add_model(NAME, download=True)
    assert part_of(store).stat().st_size == CUT
    assert not is_installed(find_model(NAME))
    server.answer, server.requests = None, []
    add_model(NAME, download=True)
    assert ranges(server) == [f"bytes={CUT}-"]
    assert fetched(store)


def test_connections_that_bring_little_are_failures(assets, server, store):
    server.answer = partial(server.cut, after=1)
    with pytest.raises(DownloadError, match="the connection broke off .* 4 of"):
        add_model(NAME, download=True)
    assert ranges(server) == [None, "bytes=1-", "bytes=2-", "bytes=3-"]
    assert part_of(store).stat().st_size == 4


def test_there_is_an_end_to_connections_that_bring_enough(assets, server, store, monkeypatch):
    monkeypatch.setattr(_download, "MOST_CONNECTIONS", 5)
    enough = _download.LEAST_BYTES
    server.answer = partial(server.cut, after=enough)
    with pytest.raises(DownloadError, match=f"{5 * enough} of"):
        add_model(NAME, download=True)
    assert len(server.requests) == 5
    add_model(NAME, download=True)
    assert len(server.requests) == 10
    assert fetched(store)


def test_a_trickle_within_a_connection_is_given_up(assets, server, store, monkeypatch):
    """Every byte comes in time, and all of them in years."""
    monkeypatch.setattr(_download, "PATIENCE_SECONDS", 0.2)
    done = threading.Event()

    def trickle(handler, first):
        server.cut(handler, first, after=1)
        while not done.wait(0.05):
            handler.wfile.write(server.content[:1])

    server.answer = trickle
    began = time.monotonic()
    try:
        with pytest.raises(DownloadError, match="fewer than 65536 bytes came in 0.2 s"):
            add_model(NAME, download=True)
    finally:
        done.set()
    assert time.monotonic() - began < 60
    assert len(server.requests) == 4
    assert 4 < part_of(store).stat().st_size < 200


def test_a_slow_server_that_brings_enough_is_waited_for(assets, server, store, monkeypatch):
    monkeypatch.setattr(_download, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(_download, "LEAST_BYTES", 10)

    def slow(handler, first):
        server.cut(handler, first, after=CUT)
        for start in range(CUT, len(server.content), CUT):
            time.sleep(0.06)
            handler.wfile.write(server.content[start : start + CUT])

    server.answer = slow
    add_model(NAME, download=True)
    assert len(server.requests) == 1
    assert fetched(store)


def test_a_server_that_stalls_is_left_and_what_came_is_kept(assets, server, store, monkeypatch):
    monkeypatch.setattr(_download, "TIMEOUT_SECONDS", (5.0, 0.3))
    released = threading.Event()

    def stall(handler, first):
        server.cut(handler, first, after=1000)
        released.wait(120)

    server.answer = stall
    began = time.monotonic()
    try:
        with pytest.raises(DownloadError, match="timed out"):
            add_model(NAME, download=True)
    finally:
        released.set()
    assert time.monotonic() - began < 60
    kept = part_of(store).stat().st_size
    assert kept in (1000, 2000, 3000, 4000)
    server.answer = None
    add_model(NAME, download=True)
    assert ranges(server)[-1] == f"bytes={kept}-"
    assert fetched(store)


def test_a_server_without_ranges_sends_all_again(assets, server, store):
    server.answer = in_turn(
        partial(server.cut, after=CUT), lambda handler, first: server.well(handler, 0)
    )
    add_model(NAME, download=True)
    assert fetched(store)


@pytest.mark.parametrize("range_sent", ["bytes 0-99/100", "bytes 5-9/10", "", "bytes */10"])
def test_another_range_than_asked_for_is_not_appended(assets, server, store, range_sent):
    def wrong_range(handler, first):
        handler.send_response(206)
        handler.send_header("Content-Range", range_sent)
        handler.end_headers()
        handler.wfile.write(b"x" * 10)

    server.answer = in_turn(partial(server.cut, after=CUT), wrong_range, server.well)
    add_model(NAME, download=True)
    assert ranges(server) == [None, f"bytes={CUT}-", None]
    assert fetched(store)


def test_no_such_range_begins_anew(assets, server, store):
    def unsatisfiable(handler, first):
        handler.send_response(416)
        handler.end_headers()

    server.answer = in_turn(partial(server.cut, after=CUT), unsatisfiable, server.well)
    add_model(NAME, download=True)
    assert ranges(server) == [None, f"bytes={CUT}-", None]
    assert fetched(store)


def unmeasured(sent):
    """Answer without a Content-Length: the end of the connection is that of the file."""

    def answer(handler, first):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(sent)

    return answer


@pytest.mark.parametrize("change", [1, -1], ids=["longer", "shorter"])
def test_another_length_is_refused_before_anything_is_fetched(
    assets, server, store, content, refused, change
):
    server.content = content + b"x" if change > 0 else content[:-1]
    with pytest.raises(
        DownloadError, match=r"is not the recorded file: \d+ bytes where \d+ were"
    ) as refusal:
        add_model(NAME, download=True)
    refused(
        "download", f"a file {'longer' if change > 0 else 'shorter'} than recorded", refusal.value
    )
    assert len(server.requests) == 1
    assert lying_in(store) == set()


def test_an_end_without_warning_is_an_interruption(assets, server, store, content):
    server.answer = in_turn(unmeasured(content[:CUT]), server.well)
    add_model(NAME, download=True)
    assert ranges(server) == [None, f"bytes={CUT}-"]
    assert fetched(store)


def test_what_comes_after_the_recorded_bytes_is_not_read(assets, server, store, content):
    server.answer = unmeasured(content + b"x")
    add_model(NAME, download=True)
    assert fetched(store)


def test_an_endless_answer_fills_no_disk(assets, server, store, content, refused):
    sent, most = [], 20 * len(content)

    def endless(handler, first):
        unmeasured(b"")(handler, first)
        while sum(sent) < most:
            sent.append(handler.wfile.write(bytes(1 << 16)))

    server.answer = endless
    events = []
    with pytest.raises(DownloadError, match="expected SHA-256") as refusal:
        add_model(NAME, download=True, progress=events.append)
    refused("download", "an answer without an end", refusal.value)
    assert max(each.done for each in events) == len(content)
    assert sum(sent) < most
    assert lying_in(store) == set()


def test_other_bytes_of_the_right_length_are_deleted(assets, server, store, content, refused):
    server.content = bytes(len(content))
    with pytest.raises(DownloadError, match="expected SHA-256 .* got .* It was deleted") as refusal:
        add_model(NAME, download=True)
    refused("download", "other bytes of the right length", refusal.value)
    assert lying_in(store) == set()
    server.content = content
    add_model(NAME, download=True)
    assert fetched(store)


@pytest.mark.parametrize("share", [0.5, 1, 2], ids=["half", "whole", "too long"])
def test_a_damaged_beginning_is_found_out(assets, server, store, content, share):
    (store / ".downloads").mkdir(parents=True)
    digest = recorded("", content)["sha256"]
    (store / ".downloads" / f"{digest}.part").write_bytes(bytes(int(share * len(content))))
    if share <= 1:
        with pytest.raises(DownloadError, match="It was deleted. Run the command again"):
            add_model(NAME, download=True)
        assert lying_in(store) == set()
    add_model(NAME, download=True)
    assert fetched(store)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_said_at_once(assets, server, store, status):
    server.answer = lambda handler, first: handler.send_error(status)
    with pytest.raises(DownloadError, match=f"answered {status} .*--from"):
        add_model(NAME, download=True)
    assert len(server.requests) == 1
    assert lying_in(store) == set()


def test_a_busy_server_is_asked_again(assets, server, store):
    def busy(status):
        return lambda handler, first: handler.send_error(status)

    server.answer = in_turn(busy(503), busy(429), server.well)
    add_model(NAME, download=True)
    assert fetched(store)


def redirect_to(location):
    def answer(handler, first):
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def test_redirects_are_followed_with_the_range(assets, server, store):
    far = redirect_to(f"https://localhost:{server.port}/far")

    def answer(handler, first):
        if handler.path == "/abc.safetensors":
            far(handler, first)
        elif handler.path == "/far":
            redirect_to("/near")(handler, first)
        elif not first:
            server.cut(handler, first, after=CUT)
        else:
            server.well(handler, first)

    server.answer = answer
    add_model(NAME, download=True)
    assert [path for path, _ in server.requests] == 2 * ["/abc.safetensors", "/far", "/near"]
    assert server.requests[-1] == ("/near", f"bytes={CUT}-")
    assert fetched(store)


def test_a_redirect_to_plain_http_is_refused_and_not_asked(assets, server, store, content, refused):
    with serve(None) as plain:
        plain.content = content
        server.answer = redirect_to(f"http://127.0.0.1:{plain.port}/abc.safetensors")
        with pytest.raises(DownloadError, match="not HTTPS") as refusal:
            add_model(NAME, download=True)
        assert plain.requests == []
    assert lying_in(store) == set()
    refused("download", "a redirect to plain HTTP", refusal.value)


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/x", "HTTP://a/"])
def test_redirects_to_anything_but_https_are_refused(assets, server, store, location, refused):
    server.answer = redirect_to(location)
    with pytest.raises(DownloadError, match="not HTTPS") as refusal:
        add_model(NAME, download=True)
    assert lying_in(store) == set()
    refused("download", f"a redirect to {location}", refusal.value)


@pytest.mark.parametrize("location", ["https://[", "https://\xff/"], ids=["bracket", "no text"])
def test_redirects_to_what_is_no_address_are_refused(assets, server, store, location, refused):
    server.answer = redirect_to(location)
    with pytest.raises(DownloadError, match="redirects to an invalid URL") as refusal:
        add_model(NAME, download=True)
    assert lying_in(store) == set()
    refused("download", f"a redirect to {location!a}", refusal.value)


def test_the_text_of_a_redirect_is_not_read(assets, server, store):
    sent, most = [], 50_000_000

    def endless(handler, first):
        handler.send_response(302)
        handler.send_header("Location", "/near")
        handler.end_headers()
        while sum(sent) < most:
            sent.append(handler.wfile.write(bytes(1 << 16)))

    server.answer = in_turn(endless, server.well)
    add_model(NAME, download=True)
    assert sum(sent) < most
    assert fetched(store)


def test_a_loop_of_redirects_ends(assets, server, store, refused):
    server.answer = redirect_to("/abc.safetensors")
    with pytest.raises(DownloadError, match="redirects more than 10 times") as refusal:
        add_model(NAME, download=True)
    assert len(server.requests) == 11
    assert lying_in(store) == set()
    refused("download", "a loop of redirects", refusal.value)


def test_credentials_are_not_sent(assets, server, store, tmp_path, monkeypatch):
    """A password for some server in ~/.netrc is nothing that a publisher of models needs."""
    netrc = tmp_path / "netrc"
    netrc.write_text(
        "machine 127.0.0.1 login me password secret\ndefault login all password too\n", "utf-8"
    )
    monkeypatch.setenv("NETRC", str(netrc))
    seen = []

    def answer(handler, first):
        seen.append(handler.headers.get("Authorization"))
        if handler.path == "/abc.safetensors":
            redirect_to(f"https://me:secret@localhost:{server.port}/far")(handler, first)
        else:
            server.well(handler, first)

    server.answer = answer
    add_model(NAME, download=True)
    assert seen == [None, None]


def test_an_unknown_certificate_is_refused(assets, server, store, tmp_path, monkeypatch, refused):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    with pytest.raises(
        DownloadError, match="certificate of .* is not trusted.*REQUESTS_CA_BUNDLE"
    ) as refusal:
        add_model(NAME, download=True)
    assert server.requests == []
    assert lying_in(store) == set()
    refused("download", "a certificate of an unknown authority", refusal.value)


def test_the_certificate_of_another_host_is_refused(
    assets, authority, store, content, tiny_htdemucs, refused
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("models.example.org").configure_cert(context)
    with serve(context) as other:
        other.content = content
        url = f"https://localhost:{other.port}/abc.safetensors"
        publish(assets, NAME, [tiny_htdemucs], [[recorded("abc.safetensors", content, url=url)]])
        with pytest.raises(DownloadError, match="certificate of .* is not trusted") as refusal:
            add_model(NAME, download=True)
        assert other.requests == []
    assert lying_in(store) == set()
    refused("download", "the certificate of another host", refusal.value)


def test_a_missing_file_of_authorities_is_no_fault_of_the_models_folder(
    assets, server, store, tmp_path, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    with pytest.raises(DownloadError, match="certificate bundle, invalid path: .*gone.pem"):
        add_model(NAME, download=True)
    assert lying_in(store) == set()


def test_compressed_content_is_not_taken_for_the_file(assets, server, store, content, refused):
    packed = gzip.compress(content, mtime=0)

    def answer(handler, first):
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(packed)))
        handler.end_headers()
        handler.wfile.write(packed)

    server.answer = answer
    with pytest.raises(
        DownloadError, match=r"not the recorded file: it is compressed \(gzip\)"
    ) as refusal:
        add_model(NAME, download=True)
    assert lying_in(store) == set()
    refused("download", "compressed content", refusal.value)


def test_what_is_no_http_is_said(assets, server, store, refused):
    server.answer = lambda handler, first: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
    with pytest.raises(
        DownloadError, match=r"no proper answer came \(SSH-2.0-OpenSSH\)"
    ) as refusal:
        add_model(NAME, download=True)
    assert lying_in(store) == set()
    refused("download", "what is no HTTP", refusal.value)


@pytest.mark.parametrize(
    "line", ["HTTP/1.1 404 \x1b[2J", "HTTP/1.1 503 \x1b[2J", "\x1b[2J"], ids=["404", "503", "none"]
)
def test_words_of_a_server_are_shortened_and_no_commands(assets, server, line):
    sent = f"{line}{'z' * 5000}\r\n\r\n".encode()
    server.answer = lambda handler, first: handler.wfile.write(sent)
    with pytest.raises(DownloadError, match=r"\\x1b\[2Jzzz") as caught:
        add_model(NAME, download=True)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_nobody_there_is_said(assets, store, tiny_htdemucs, content):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = recorded("abc.safetensors", content, url=f"https://127.0.0.1:{port}/x")
    publish(assets, NAME, [tiny_htdemucs], [[file]])
    with pytest.raises(DownloadError, match="refused.* 0 of .*--from"):
        add_model(NAME, download=True)
    assert lying_in(store) == set()


def test_an_interrupted_download_goes_on_and_can_be_thrown_away(assets, server, store, content):
    def interrupt(event):
        if event.done > len(content) // 2:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            add_model(NAME, download=True, progress=interrupt)
        assert len(content) // 2 < part_of(store).stat().st_size < len(content)
        remove_model(NAME)
        assert lying_in(store) == set()
    with pytest.raises(KeyboardInterrupt):
        add_model(NAME, download=True, progress=interrupt)
    add_model(NAME, download=True)
    assert server.requests[-1][1] is not None
    assert fetched(store)


def test_proxies_are_used(assets, server, store, monkeypatch):
    tunnels = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def relay():
            client, _ = listener.accept()
            with client:
                request = client.recv(65536).decode()
                tunnels.append(request.split()[1])
                host, port = tunnels[-1].split(":")
                with socket.create_connection((host, int(port)), timeout=10) as target:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    ends = {client: target, target: client}
                    while ready := select.select(list(ends), [], [], 10)[0]:
                        for each in ready:
                            data = each.recv(65536)
                            if not data:
                                return
                            ends[each].sendall(data)

        thread = threading.Thread(target=relay)
        thread.start()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        add_model(NAME, download=True)
        thread.join()
    assert tunnels == [f"127.0.0.1:{server.port}"]
    assert fetched(store)


# --- processes: forks of this one, in which the registry is the one of the tests


@unix
def test_a_killed_download_goes_on(assets, server, store, content):
    killed = threading.Event()

    def slow(handler, first):
        server.cut(handler, first, after=300_000)
        killed.wait(60)

    server.answer = slow
    running = Fork("models", "add", NAME, "--download")
    try:
        deadline = time.monotonic() + 60
        while not sum(each.stat().st_size for each in store.glob(".downloads/*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not is_installed(find_model(NAME))
    finally:
        running.kill(signal.SIGKILL)
        killed.set()
    kept = part_of(store).stat().st_size
    assert lying_in(store) == {str(part_of(store).relative_to(store))}
    server.answer, server.requests = None, []
    add_model(NAME, download=True)
    assert ranges(server) == [f"bytes={kept}-"]
    assert fetched(store)


@unix
def test_processes_that_want_the_same_fetch_it_once(assets, server, store):
    running = [Fork("models", "add", NAME, "--download", "--json") for _ in range(2)]
    done = [fork.wait() for fork in running]
    assert [fork.returncode for fork in done] == [0, 0], done
    assert len(server.requests) == 1
    assert all(json.loads(fork.stdout)["installed"] for fork in done)
    assert fetched(store)


@unix
def test_a_full_disk_is_said_and_leaves_nothing_installed(assets, server, store):
    """A limit on the size of files stands for a disk that is full."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = Fork("models", "add", NAME, "--download", first=limit).wait()
    assert done.returncode == 6, done
    assert "cannot be written" in done.stderr
    assert "free space" in done.stderr
    assert not is_installed(find_model(NAME))
    kept = part_of(store).stat().st_size
    assert kept <= 100_000
    add_model(NAME, download=True)
    assert ranges(server)[-1] == f"bytes={kept}-"
    assert fetched(store)
