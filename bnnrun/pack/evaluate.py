"""`bnnrun eval`: a packed network over a test set; with --verify against the trained one."""

from bnnrun.config import EvalConfig
from bnnrun.records import Record, Run
from bnnrun.runtime.evaluate import measure_error, open_model, test_images


def evaluate(config: EvalConfig, run: Run) -> list[Record]:
    """One record, the test error; torch is imported only where the trained network is asked."""
    classifier, path = open_model(config)
    dataset = test_images(config, classifier)
    verified = None
    if config.verify:
        from bnnrun.pack.verify import verify

        verified = verify(classifier, path, dataset.test, config.trained)
        print(
            f"verified: {verified['hidden_bits']:,} hidden bits and {verified['scores']:,} scores "
            f"of {verified['images']:,} images are the trained network's"
        )
    return [measure_error(config, run, (classifier, path), dataset, verified)]
