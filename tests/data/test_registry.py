"""Files are found, fetched and checked."""

import dataclasses
import hashlib
import http.server
import threading

import pytest

from bayeswm.base.errors import DataError, SpecError
from bayeswm.data import registry
from bayeswm.data.registry import SOURCES, File, measured_file, source

CONTENT = b"a,b\n1,2\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def toy(monkeypatch):
    """A registered data set of one file with a known content, and a way to change its entry."""

    def register(**changes):
        file = dataclasses.replace(File("toy.csv", DIGEST, None), **changes)
        entry = dataclasses.replace(SOURCES["silverbox"], files=(file,), origin="the toy shop")
        monkeypatch.setitem(SOURCES, "toy", entry)

    register()
    monkeypatch.delenv("BAYESWM_DATA", raising=False)
    return register


@pytest.fixture
def server():
    served = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            served.append(self.path)
            self.send_response(200 if self.path == "/toy.csv" else 404)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", served
        running.shutdown()
        thread.join()


def test_every_entry_is_complete():
    for entry in SOURCES.values():
        assert entry.title
        assert entry.licence
        assert entry.citation
        assert entry.origin.startswith("github.com/")
        for file in entry.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            if file.address is not None:
                owner, name, commit = file.address.removeprefix("https://raw.githubusercontent.com/").split("/")[:3]
                assert f"{owner}/{name}" in entry.origin
                assert len(bytes.fromhex(commit)) == 20  # pinned: the file there never changes


def test_unknown_names():
    with pytest.raises(SpecError, match="did you mean 'silverbox'"):
        source("silverbx")
    with pytest.raises(SpecError, match=r"SNLS80mV\.csv"):
        measured_file("silverbox", "other.csv")


def test_read_from_the_folder(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESWM_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"file toy/toy\.csv in the folder that BAYESWM_DATA names"):
        measured_file("toy", "toy.csv")
    (tmp_path / "toy").mkdir()
    path = tmp_path / "toy" / "toy.csv"
    path.write_bytes(CONTENT)
    assert measured_file("toy", "toy.csv") == path
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=rf"toy\.csv: expected the registered file with SHA-256 {DIGEST}, got"):
        measured_file("toy", "toy.csv")


def test_without_folder_and_address_it_says_what_to_do(toy):
    with pytest.raises(DataError, match=r"BAYESWM_DATA to name a folder that holds toy/toy\.csv.*the toy shop"):
        measured_file("toy", "toy.csv")


def test_downloaded_once_and_checked(toy, server, tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    address, served = server
    toy(address=f"{address}/toy.csv")
    path = measured_file("toy", "toy.csv")
    assert path.read_bytes() == CONTENT
    assert measured_file("toy", "toy.csv") == path
    assert served == ["/toy.csv"]


def test_a_download_of_another_file_is_refused(toy, server, tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    toy(address=f"{server[0]}/toy.csv", sha256="0" * 64)
    with pytest.raises(DataError, match=r"toy\.csv: expected the registered file toy/toy\.csv, got another"):
        measured_file("toy", "toy.csv")


def test_a_failed_download_names_the_way_out(toy, server, tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    for address in (f"{server[0]}/elsewhere.csv", "http://127.0.0.1:9/toy.csv"):
        toy(address=address)
        with pytest.raises(DataError, match=r"download .*set BAYESWM_DATA to a folder that holds toy/toy\.csv"):
            measured_file("toy", "toy.csv")


def test_registered_files_are_the_ones_here(measured_data):
    assert registry.FOLDER == "BAYESWM_DATA"
    for name, entry in SOURCES.items():
        for file in entry.files:
            assert measured_file(name, file.name) == measured_data / name / file.name
