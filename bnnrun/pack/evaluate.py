"""`bnnrun eval`: a network over a test set; --verify compares it with the one it was made of."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import EvalConfig
from bnnrun.data.dataset import Images
from bnnrun.errors import InputError
from bnnrun.files import user_path
from bnnrun.records import Record, Run
from bnnrun.runtime import Classifier
from bnnrun.runtime.evaluate import evaluate_file, measure_error, open_model, test_images
from bnnrun.runtime.onnx_file import OnnxClassifier

TRAINED = ".pt"  # suffix of the network file of a run, which is not packed


def evaluate(config: EvalConfig, run: Run) -> list[Record]:
    """One record, the test error. Imports torch only for a trained network or --verify."""
    if config.model.endswith(TRAINED):
        return [_evaluate_trained(config, run)]
    classifier, path = open_model(config)
    dataset = test_images(config, classifier.source, classifier.spec)
    classifier.compile()
    verified = _verified(config, classifier, path, dataset.test) if config.verify else None
    return [evaluate_file(config, run, (classifier, path), dataset, verified)]


def _verified(
    config: EvalConfig, classifier: Classifier | OnnxClassifier, path: Path, images: Images
) -> dict[str, int]:
    """Compare a network with the one that it was made of, and print how much was compared."""
    if isinstance(classifier, OnnxClassifier):
        from bnnrun.pack.verify_onnx import verify_onnx

        verified = verify_onnx(classifier, path, images, config.trained)
        compared, made_of = "", "packed"
    else:
        from bnnrun.pack.verify import verify

        verified = verify(classifier, path, images, config.trained)
        compared, made_of = f"{verified['hidden_bits']:,} hidden bits and ", "trained"
    print(
        f"verified: {compared}{verified['scores']:,} scores of {verified['images']:,} images are "
        f"the {made_of} network's"
    )
    return verified


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
    measurement = ("trained_test_error", saved_config["seed"], details)
    return measure_error(config, run, predict, dataset, measurement, device=device.type)
