"""Records with nothing of this machine in them, for tests of reports."""

import hashlib

from command import configure

from bnnrun.config import computed
from bnnrun.records import Record
from bnnrun.roles import Implementation

TEST_IMAGES = {"mnist": 10_000, "svhn": 26_032, "cifar10": 10_000, "digits": 400}
CPU = {"model": "A Processor", "cores": 2, "features": ["avx2"], "memory_bytes": 8 * 2**30}
CHANNELS = [128, 128, 256, 256, 512, 512]


def settings(experiment: str, **changed: object) -> dict:
    """The configuration that an experiment's records hold; `trainer__epochs=3` changes a key."""
    tree = computed(configure("train", f"experiment={experiment}"))
    for key, value in changed.items():
        *groups, name = key.split("__")
        node = tree
        for group in groups:
            node = node[group]
        node[name] = value
    return tree


def trained(
    experiment="table1_mnist_theano", value=1.0, seed=0, epochs=1000, created=0, **changes
) -> Record:
    """A test error of an experiment, made `created` minutes past noon."""
    config = settings(
        experiment or "table1_mnist_theano", trainer__epochs=epochs, **changes.pop("changed", {})
    )
    curve = [round(10 / (i + 1) + value, 3) for i in range(min(epochs, 40))]
    fields = {
        "experiment": experiment,
        "cell": config["cell"],
        "quantity": "test_error",
        "value": value,
        "unit": "%",
        "seed": seed,
        "device": "cpu",
        "details": {
            "protocol": "epoch of the lowest validation error, the latest of equals",
            "epoch": epochs,
            "epochs": epochs,
            "valid_error_pct": value + 0.1,
            "last_epoch_test_error_pct": value + 0.2,
            "best_on_test_error_pct": value - 0.1,
            "images_per_s": 50_000 / 3.6,
            "curve": {"train_loss": curve, "valid_error_pct": curve, "test_error_pct": curve},
        },
        "config": config | {"seed": seed},
        "command": f"bnnrun train experiment={experiment} seed={seed}",
        "data": read_data(config["dataset"]["name"]),
        "wall_time_s": 7.2 * epochs,
        **_made(created),
    }
    return Record(**{**fields, **changes})


def read_data(name="mnist", **changed: object) -> dict:
    """What a record says of the data that were read: the published files."""
    return {
        "name": name,
        "train": 50_000,
        "valid": 10_000,
        "test": TEST_IMAGES[name],
        "files": [{"name": "train", "size": 1, "md5": "a", "published_md5": "a"}],
        "verified": True,
        "notes": [],
        **changed,
    }


def timed(kind="gemm", created=0, kernels=None, size=8192, **changes) -> list[Record]:
    """The records of one `bnnrun bench`: milliseconds by competitor, "ours:xnor/int32_out".

    One with a remark, "baseline:unoptimized (2 rows)", made half of the product.
    """
    times = kernels or {"ours:xnor/int32_out": 100.0, "float32:torch": 1000.0}
    config = {"m": size, "n": size, "k": size, "workload": "gemm", "kernel": "all", "seed": 0}
    if kind != "gemm":
        name = "cifar10" if kind == "convnet" else "mnist"
        mlp, convnet = {"depth": 3, "width": 4096}, {"channels": CHANNELS, "fc": [1024, 1024]}
        config = {"dataset": {"name": name}, "arch": convnet if kind == "convnet" else mlp}
        config |= {"trainer": {"batch_size": 100}} if kind == "train_step" else {"batch": size}
    timings = []
    for name, value in times.items():
        key, _, remark = name.partition(" (")
        implementation, macs = Implementation.parse(key), 5e8 if remark else 1e9
        details = {
            "role": implementation.role.value,
            "variant": implementation.variant,
            "remark": remark.removesuffix(")"),
            "minimum": value,
            "spread": 0.1,
            "count": 5,
            "macs": macs,
            "gmac_per_s": macs / value / 1e6,
            "share_of_limit": 0.5,
            "in_the_same_run": {other.partition(" (")[0]: time for other, time in times.items()},
            "threads": 2,
        }
        fields = {
            "experiment": "",
            "cell": "",
            "quantity": f"{kind}_time",
            "value": value,
            "unit": "ms",
            "seed": 0,
            "device": "cpu",
            "details": details,
            "config": config,
            "command": "bnnrun bench",
            **_made(created),
        }
        timings.append(Record(**{**fields, **changes}))
    return timings


def packed(**changes) -> Record:
    """An evaluation of a packed file."""
    details = {
        "sha256": hashlib.sha256(b"packed").hexdigest(), "kernel": "xnor", "first": "bytes",
        "file": "mnist.safetensors", "packed_bytes": 4_661_680, "images_per_s": 12_345.6,
        "verified": None, "threads": 2,
        "trained": {"dataset": "mnist", "epoch": "9", "seed": "0", "test_error_pct": "1.0000"},
    }  # fmt: skip
    base = trained(quantity="packed_test_error", details=details, cell="", experiment="")
    return Record(**{**vars(base), **changes})


def _made(minute: int) -> dict:
    return {
        "peak_memory_bytes": 2**30,
        "source": {"commit": "c0ffee", "clean": True},
        "versions": {"python": "3.11.0", "torch": "2.6.0"},
        "cpu": CPU,
        "gpu": None,
        "created": f"2026-01-02T12:{minute % 60:02d}:00+00:00",
    }


def golden_records() -> list[Record]:
    """Three seeds of a whole schedule, one short run of no clean tree, one on other data."""
    return [
        *(trained(value=0.9 + 0.1 * seed, seed=seed) for seed in range(3)),
        trained(value=2.0, epochs=20, source={"commit": "c0ffee", "clean": False}),
        trained("table1_svhn_theano", 9.0, epochs=200,
                data=read_data("svhn", notes=["held | out"])),
    ]  # fmt: skip
