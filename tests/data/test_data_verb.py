"""`bnnrun data status | verify | fetch`, from the command line, on made-up files."""

from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import pytest
from made_up import write_mnist

from bnnrun.cli.main import run
from bnnrun.data import cifar10, mnist, published, status
from bnnrun.data.published import DataFile

LABELS = "MNIST/raw/train-labels-idx1-ubyte.gz"


@pytest.fixture
def datasets() -> ModuleType:
    """What downloads; it takes seconds to load."""
    return pytest.importorskip("torchvision.datasets", exc_type=ImportError)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """The made-up MNIST files as the published ones."""
    write_mnist(tmp_path)
    files = []
    for file in mnist.FILES:
        size, md5 = published.fingerprint(tmp_path / file.path)
        files.append(DataFile(file.path, md5, size))
    monkeypatch.setitem(status.PUBLISHED, "mnist", tuple(files))
    return tmp_path


def test_status_lists_what_is_there_by_size_and_says_where_the_rest_goes(publish, capsys):
    (publish / mnist.FILES[0].path).unlink()
    content = bytearray((publish / LABELS).read_bytes())
    content[4] ^= 1
    (publish / LABELS).write_bytes(content)  # of the same size: status does not read
    (publish / mnist.FILES[3].path).write_bytes(b"short")
    assert run(["data", "status", "mnist", f"root={publish}"]) == 0
    out = capsys.readouterr().out
    state = {line.split()[1]: line for line in out.splitlines() if line.startswith(" mnist")}
    assert "not there" in state[mnist.FILES[0].path]
    assert state[LABELS].rstrip().endswith("there") and "not" not in state[LABELS]
    assert "5 bytes, the published file has" in state[mnist.FILES[3].path]
    assert f"goes to {publish}; `bnnrun data fetch mnist`" in out and "svhn" not in out


def test_status_without_sets_lists_them_all(tmp_path, capsys):
    assert run(["data", f"root={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("mnist", "cifar10", "svhn/extra_32x32.mat", "digits"))
    assert "the set can be read without it" in out


def test_verify_ends_with_status_2_for_an_altered_file(publish, capsys):
    assert run(["data", "verify", "mnist", "digits", f"root={publish}"]) == 0
    assert capsys.readouterr().out.count("whole") == 4
    content = bytearray((publish / LABELS).read_bytes())
    content[4] ^= 1
    (publish / LABELS).write_bytes(content)
    assert run(["data", "verify", "mnist", f"root={publish}"]) == 2
    output = capsys.readouterr()
    assert "altered: md5" in output.out
    assert output.err.count("\n") == 1 and str(publish / LABELS) in output.err


def test_verify_passes_over_absent_files(tmp_path, capsys):
    assert run(["data", "verify", f"root={tmp_path}"]) == 0
    assert "not there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["status", "mnits"], "did you mean 'mnist'?"),
        (["verify", "mnist", "it's me"], "sets=it's me: no such data set; known: cifar10, digits"),
        (["statsu"], "did you mean 'status'?"),
        (["verify", "folder"], "sets=folder: no such data set"),
    ],
)
def test_unknown_words_name_the_nearest(words, part, capsys):
    assert run(["data", *words]) == 2
    output = capsys.readouterr().err
    assert part in output and output.count("\n") == 1


def test_words_may_stand_behind_settings(publish, capsys):
    assert run(["data", f"root={publish}", "verify", "mnist"]) == 0
    assert capsys.readouterr().out.count("whole") == 4


def test_fetch_downloads_what_is_not_whole_and_verifies_it(publish, datasets, monkeypatch, capsys):
    contents = {path.name: path.read_bytes() for path in (publish / "MNIST/raw").iterdir()}
    (publish / LABELS).write_bytes(b"altered")
    (publish / mnist.FILES[0].path).unlink()
    asked = []

    def download_url(url: str, root: str, filename: str, md5: str) -> None:
        asked.append(url)
        if url.startswith(datasets.MNIST.mirrors[0]):
            raise URLError("first mirror down")
        Path(root, filename).write_bytes(contents[filename])

    monkeypatch.setattr(datasets.utils, "download_url", download_url)
    assert run(["data", "fetch", "mnist", f"root={publish}"]) == 0
    names = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert asked == [mirror + name for name in names for mirror in datasets.MNIST.mirrors]
    assert capsys.readouterr().out.count("whole") == 4
    assert run(["data", "fetch", "mnist", "digits", f"root={publish}"]) == 0
    assert "mnist: nothing to fetch" in capsys.readouterr().out and len(asked) == 4


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_a_failed_download_is_one_line_with_all_one_needs(
    name, datasets, tmp_path, monkeypatch, capsys
):
    def fail(url: str, *args: object, **settings: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(datasets.utils, "download_url", fail)
    monkeypatch.setattr(datasets.utils, "download_and_extract_archive", fail)
    assert run(["data", "fetch", name, f"root={tmp_path}"]) == 1
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and str(tmp_path) in output and "no network" in output
    expected = {
        "mnist": [*datasets.MNIST.mirrors, "train-images-idx3-ubyte.gz", mnist.FILES[0].md5],
        "cifar10": [datasets.CIFAR10.url, "cifar-10-python.tar.gz", datasets.CIFAR10.tgz_md5],
        "svhn": [*datasets.SVHN.split_list["train"]],
    }
    assert all(part in output for part in expected[name])


def test_a_download_that_is_not_the_published_file_is_told(datasets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.utils, "download_and_extract_archive", lambda *a, **k: None)
    assert run(["data", "fetch", "cifar10", f"root={tmp_path}"]) == 1
    assert "data_batch_1: fetched, and still not there" in capsys.readouterr().err


def test_our_checksums_are_torchvisions(datasets):
    known = dict([*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list])
    known[datasets.CIFAR10.meta["filename"]] = datasets.CIFAR10.meta["md5"]
    known |= dict(datasets.MNIST.resources)
    known |= {filename: md5 for _, filename, md5 in datasets.SVHN.split_list.values()}
    ours = {Path(f.path).name: f.md5 for files in status.PUBLISHED.values() for f in files}
    assert ours == known
    assert all(Path(f.path).parent.name == datasets.CIFAR10.base_folder for f in cifar10.FILES)
