"""Pixels become network input: scaled, standardized, whitened."""

import numpy as np
import pytest
from made_up import make_images

from bnnrun.config import Preprocessing
from bnnrun.data import preprocess
from bnnrun.data.dataset import Images
from bnnrun.data.preprocess import ZCA_BIAS, fit
from bnnrun.errors import InputError


def correlated(count: int, seed: int = 0) -> Images:
    """Images of 2 x 4 x 3 whose neighbouring pixels are alike, as those of photographs are."""
    rng = np.random.default_rng(seed)
    pixels = np.cumsum(rng.normal(0, 25, (count, 2, 4, 3)), axis=2) + 120
    return Images(np.clip(pixels, 0, 255).astype(np.uint8), np.zeros(count, np.uint8))


@pytest.mark.parametrize("levels", [255, 16])
def test_scale_goes_from_minus_one_to_one(levels):
    scaled = fit(Preprocessing.scale, correlated(3), levels)
    assert (scaled.p, scaled.q, scaled.d) == (2, -levels, levels)
    pixels = np.arange(levels + 1, dtype=np.uint8).reshape(-1, 1, 1, 1)
    x = scaled.apply(pixels)
    assert x[0] == -1 and x[-1] == 1 and x.dtype == np.float64
    np.testing.assert_array_equal(x * levels, 2 * pixels.astype(int) - levels)


def test_standardize_has_one_mean_and_deviation(monkeypatch):
    monkeypatch.setattr(preprocess, "BLOCK", 24 * 7)  # 7 images a block: 50 are no multiple
    train = correlated(50)
    standard = fit(Preprocessing.standardize, train, 255)
    # Sums of at most 1200 · 255² are exact; what remains is a few roundings of numbers near 1.
    np.testing.assert_allclose(-standard.q, train.pixels.mean(), rtol=1e-13)
    np.testing.assert_allclose(standard.d, train.pixels.std(), rtol=1e-13)
    x = standard.apply(train.pixels)
    assert abs(x.mean()) < 1e-12 and abs(x.std() - 1) < 1e-12


def test_standardize_refuses_images_without_contrast():
    flat = Images(np.full((5, 1, 2, 2), 7, np.uint8), np.zeros(5, np.uint8))
    with pytest.raises(InputError, match="every training pixel is 7"):
        fit(Preprocessing.standardize, flat, 255)


def test_zca_is_the_plain_whitening(monkeypatch):
    """Against the definition by np.cov and a matrix square root from an SVD.

    W is stored as float32, hence 2^-23 of its largest element; the two ways round differently
    by much less.
    """
    monkeypatch.setattr(preprocess, "BLOCK", 24 * 64)
    train = correlated(1000)
    whitened = fit(Preprocessing.zca, train, 255)
    x = train.pixels.reshape(1000, -1) / 127.5 - 1
    u, variances, _ = np.linalg.svd(np.cov(x, rowvar=False, bias=True))
    matrix = u @ np.diag((variances + ZCA_BIAS) ** -0.5) @ u.T
    assert whitened.zca_matrix is not None and whitened.zca_mean is not None
    assert whitened.zca_matrix.dtype == whitened.zca_mean.dtype == np.float32
    tolerance = 2**-23 * np.abs(matrix).max()
    np.testing.assert_allclose(whitened.zca_matrix, matrix, rtol=0, atol=tolerance)
    np.testing.assert_allclose(whitened.zca_mean, x.mean(axis=0), rtol=0, atol=2**-23)
    test = correlated(10, seed=1).pixels
    expected = (test.reshape(10, -1) / 127.5 - 1 - x.mean(axis=0)) @ matrix
    # Each output adds 24 products of numbers below 2.
    np.testing.assert_allclose(
        whitened.apply(test), expected.reshape(test.shape), rtol=0, atol=24 * 2 * tolerance
    )


def test_zca_whitens(monkeypatch):
    """With a bias near 0 the covariance of the output is the identity."""
    monkeypatch.setattr(preprocess, "ZCA_BIAS", 1e-12)
    train = correlated(5000)
    x = fit(Preprocessing.zca, train, 255).apply(train.pixels).reshape(5000, -1)
    # W is symmetric, so that no direction but its length changes; float32 keeps 2^-23 of it.
    np.testing.assert_allclose(np.cov(x, rowvar=False, bias=True), np.eye(24), atol=1e-4)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)


def test_zca_has_the_bias_of_the_authors_code():
    """dp.ZCA adds 0.1 to variances of images in [0, 1]: the same whitening of the same image."""
    train = correlated(500)
    x = train.pixels.reshape(500, -1) / 255
    variances, u = np.linalg.eigh(np.cov(x, rowvar=False, bias=True))
    expected = (x - x.mean(axis=0)) @ (u / np.sqrt(variances + 0.1)) @ u.T
    ours = fit(Preprocessing.zca, train, 255).apply(train.pixels).reshape(500, -1)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_zca_survives_pixels_that_never_change():
    train = correlated(100)
    train.pixels[:, :, 0] = 0
    x = fit(Preprocessing.zca, train, 255).apply(train.pixels)
    assert np.isfinite(x).all() and np.ptp(x[:, :, 0], axis=0).max() < 1e-5


def test_zca_refuses_large_images():
    with pytest.raises(InputError, match="49,152 pixels an image, at most 12,288"):
        fit(Preprocessing.zca, make_images(2, (3, 128, 128)), 255)
