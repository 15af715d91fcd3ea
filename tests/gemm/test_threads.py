"""A packed network in other people's programs: threads, forks, Numba's layers and variables."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from numba import types
from packed_files import CONVNET, MLP, random_model

import bnnrun
from bnnrun.errors import InputError
from bnnrun.gemm.compiled import njit, set_threads, thread_count
from bnnrun.runtime import file

TIMES = 10


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    for name, kind in (("mlp", MLP), ("convnet", CONVNET)):
        file.save(random_model(*kind), folder / f"{name}.safetensors")
    return folder


@pytest.fixture(params=["mlp", "convnet"])
def path(files, request):
    return files / f"{request.param}.safetensors"


def images_for(network, n):
    shape = (n, *network.image_shape)
    return np.random.default_rng(0).integers(0, network.max_pixel + 1, shape, dtype=np.uint8)


@pytest.mark.parametrize("kernel", ["xnor", "reference"])
def test_threads_that_share_a_network_get_their_own_answers(path, kernel):
    network = bnnrun.load(path, kernel=kernel)
    images = images_for(network, 300)
    expected = bnnrun.load(path, kernel="reference").scores(images)
    sizes = [1 + 37 * i % 290 for i in range(8 * TIMES)]

    def ask(size):
        return size, network.scores(images[:size]), network.trace(images[size : size + 5])[1]

    with ThreadPoolExecutor(8) as pool:
        for size, scores, traced in pool.map(ask, sizes):
            np.testing.assert_array_equal(scores, expected[:size])
            np.testing.assert_array_equal(traced, expected[size : size + 5])


def test_no_more_sets_of_buffers_are_kept_than_calls_overlapped(path):
    network = bnnrun.load(path)
    images = images_for(network, 20)
    for _ in range(TIMES):
        network.scores(images)
    assert len(network.network._idle) == 1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: network.scores(images), range(8 * TIMES)))
    assert 1 <= len(network.network._idle) <= 4


def test_a_call_that_fails_gives_its_buffers_back(path, monkeypatch):
    network = bnnrun.load(path)
    images = images_for(network, 9)
    expected = network.scores(images)

    def stop(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(network.network.steps[1], "run", stop)
        context.setattr(network.network.steps[-1], "accumulators", stop)
        with pytest.raises(KeyboardInterrupt):
            network.scores(images)
    np.testing.assert_array_equal(network.scores(images), expected)
    assert len(network.network._idle) == 1


def test_the_number_of_threads_is_the_networks_whichever_thread_calls(path, monkeypatch):
    networks = {n: bnnrun.load(path, threads=n) for n in (1, 2)}
    most = bnnrun.load(path, threads=0).threads
    assert networks[1].threads == 1 and networks[2].threads == min(2, most)
    images = images_for(networks[1], 2)
    seen = []
    for n, network in networks.items():
        last = network.network.steps[-1]
        inner = last.accumulators
        monkeypatch.setattr(
            last,
            "accumulators",
            lambda *a, n=n, inner=inner: seen.append((n, thread_count())) or inner(*a),
        )
    mine = thread_count()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: networks[1 + i % 2].scores(images), range(40)))
        of_others = list(pool.map(lambda _: thread_count(), range(4)))
    for network in networks.values():
        network.scores(images)
    assert set(seen) == {(1, 1), (2, min(2, most))}
    assert thread_count() == mine and set(of_others) == {most}


def test_a_thread_keeps_the_number_that_it_had(path):
    before = thread_count()
    network = bnnrun.load(path, threads=1)
    network.scores(images_for(network, 2))
    assert thread_count() == before
    with pytest.raises(InputError):
        network.trace(images_for(network, network.network.chunk + 1))
    assert thread_count() == before
    assert set_threads(1) == before
    found = []
    thread = threading.Thread(target=lambda: found.append(thread_count()))
    thread.start()
    thread.join()
    assert thread_count() == 1 and found[0] > 0
    set_threads(before)
    assert numba.get_num_threads() == before


def in_child(path, images, expected):
    network = bnnrun.load(path)  # loaded there
    return np.array_equal(network.scores(images), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_gives_the_same_answers(path):
    network = bnnrun.load(path)
    images = images_for(network, 30)
    expected = network.scores(images)
    for _ in range(TIMES):
        child = os.fork()
        if child == 0:
            same = np.array_equal(network.scores(images), expected) and thread_count() == 1
            os._exit(0 if same else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:  # while other threads of this process are at work
        with ThreadPoolExecutor(2) as threads:
            busy = [threads.submit(network.scores, images) for _ in range(TIMES)]
            found = pool.starmap(in_child, [(path, images, expected)] * 6)
        assert all(found)
        assert all(np.array_equal(each.result(), expected) for each in busy)
    np.testing.assert_array_equal(network.scores(images), expected)


PROGRAM = """
import sys
import numpy as np
import bnnrun
from bnnrun.errors import InputError
from concurrent.futures import ThreadPoolExecutor

try:
    network = bnnrun.load(sys.argv[1], threads=2)
    images = np.random.default_rng(0).integers(0, 256, (64, *network.image_shape), dtype=np.uint8)
    network.scores(images)
except InputError as error:
    print(error)
    sys.exit(2)
expected = bnnrun.load(sys.argv[1], kernel="reference").scores(images)
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda i: network.scores(images[i % 60 : i % 60 + 3]), range(400)))
assert all((s == expected[i % 60 : i % 60 + 3]).all() for i, s in enumerate(found))
print("right")
"""


def program(path, **variables):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path],
        check=False,
        env={**os.environ, **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.parametrize(("name", "value"), [("NUMBA_ENABLE_AVX", "0"), ("OMP_THREAD_LIMIT", "1")])
def test_a_variable_that_takes_something_away_changes_no_answer(files, name, value):
    """Vector code for what Numba may not compile for made LLVM abort the process."""
    found = program(files / "mlp.safetensors", **{name: value})
    assert found[:2] == (0, "right"), found


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_threads_under_a_layer_of_numbas(files, layer):
    """workqueue aborts a process (134) in which two threads begin work at once."""
    found = program(files / "mlp.safetensors", NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    assert found[:2] == (0, "right"), found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_NUM_THREADS", "0"),
        ("NUMBA_NUM_THREADS", "-3"),
        ("NUMBA_THREADING_LAYER", "nonsense"),
        ("NUMBA_THREADING_LAYER_PRIORITY", "omp"),
        ("NUMBA_DISABLE_JIT", "1"),
    ],
)
def test_a_variable_of_numbas_that_cannot_be_is_told_in_one_line(files, name, value):
    status, out, err = program(files / "mlp.safetensors", **{name: value})
    assert status == 2, err
    assert out.startswith(f"{name}={value}: ") and "unset" in out and "\n" not in out


def test_a_layer_that_is_not_installed_is_told_in_one_line(files):
    status, out, err = program(files / "mlp.safetensors", NUMBA_THREADING_LAYER="tbb")
    if status == 0:
        pytest.skip("TBB is installed here")
    assert status == 2, err
    assert out.startswith("NUMBA_THREADING_LAYER=tbb: ") and "\n" not in out


def test_the_definition_runs_where_numba_cannot(files):
    code = (
        "import sys, numpy as np, bnnrun; n = bnnrun.load(sys.argv[1], kernel='reference'); "
        "print(n.predict(np.zeros((2, *n.image_shape), np.uint8)).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, files / "mlp.safetensors"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == "(2,)"


@njit
def add_element(total, x, i):
    """With a loop, so that Numba would not drop the counting by itself."""
    for _ in range(i):
        total[0] += x[i]


@njit
def add_elements(total, x):
    for i in range(len(x)):
        add_element(total, x, i)


def test_what_a_kernel_calls_counts_no_references():
    """Threads would contend for the counters in every innermost loop."""
    floats = types.float32[::1]
    add_elements.compile((floats, floats))
    (code,) = add_elements.inspect_llvm().values()
    assert "add_element" in code
    assert "NRT_incref" not in code
