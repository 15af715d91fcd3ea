"""`bnnrun eval`: a network over a test set; a packed one with --verify against the trained one."""

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import EvalConfig
from bnnrun.errors import InputError
from bnnrun.files import user_path
from bnnrun.records import Record, Run
from bnnrun.runtime.evaluate import evaluate_packed, measure_error, open_model, test_images

TRAINED = ".pt"  # suffix of the network file of a run, which is not packed


def evaluate(config: EvalConfig, run: Run) -> list[Record]:
    """One record, the test error. Imports torch only for a trained network or --verify."""
    if config.model.endswith(TRAINED):
        return [_evaluate_trained(config, run)]
    classifier, path = open_model(config)
    dataset = test_images(config, classifier.model.source, classifier.model.spec)
    verified = None
    if config.verify:
        from bnnrun.pack.verify import verify

        verified = verify(classifier, path, dataset.test, config.trained)
        print(
            f"verified: {verified['hidden_bits']:,} hidden bits and {verified['scores']:,} scores "
            f"of {verified['images']:,} images are the trained network's"
        )
    return [evaluate_packed(config, run, (classifier, path), dataset, verified)]


def _evaluate_trained(config: EvalConfig, run: Run) -> Record:
    """The test error of a trained network, binary or not."""
    import torch

    from bnnrun.nn.engine import Engine
    from bnnrun.pack.convert import provenance, trained
    from bnnrun.train.loop import torch_device

    if config.verify:
        raise InputError(f"model={config.model}: the trained network itself; --verify compares a "
                         "packed one with it: model=FOLDER --verify")  # fmt: skip
    device = torch_device(config.device, config.threads)
    network, saved = trained(user_path(config.model))
    engine = Engine(network.to(device))
    saved_config = saved["config"]
    dataset = test_images(config, provenance(saved), network.spec)

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
        step = saved_config["trainer"]["eval_batch_size"]
        parts = [
            engine.evaluate(torch.from_numpy(pixels[i : i + step].copy()).to(device))[0].argmax(1)
            for i in range(0, len(pixels), step)
        ]
        labels: NDArray[np.intp] = torch.cat(parts).cpu().numpy()
        return labels

    details = {"epoch": saved["row"]["epoch"], "threads": torch.get_num_threads()}
    of = ("trained_test_error", saved_config["seed"], details)
    return measure_error(config, run, predict, dataset, of, device=device.type)
