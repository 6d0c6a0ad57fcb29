"""`Predictor`, the deployed model for programs."""

import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from export_models import good, radiograph

from data.decode import decode_image
from export import batch, runtime
from export.runtime import Predictor

pytest_plugins = ["export_predictions"]  # folder, model


def test_files_and_arrays_of_mixed_sizes_come_back_in_order(folder, model):
    images = [
        radiograph(120, 100, 1).astype(np.uint8),
        radiograph(90, 130, 2, 65535),
        good(folder)[2],
    ]
    one_by_one = np.concatenate([model([image]) for image in images])
    assert np.allclose(model(good(folder)), one_by_one, atol=1e-6)
    assert np.allclose(
        model(images[::-1] * 3, batch_size=2), np.concatenate([one_by_one[::-1]] * 3), atol=1e-6
    )
    assert model([]).shape == (0, 5)


def test_labels_are_positive_at_and_above_the_threshold(model):
    positive = model.predict_labels(np.float32([[0.4, 0.49, 0.9, 0.7, 0.5]]))
    assert positive.tolist() == [[True, False, None, True, True]]


def large(*values):
    return np.resize(np.array(values), (20, 20))


@pytest.mark.parametrize(
    "image, reason",
    [
        (np.zeros((0, 50)), "at least 16 x 16 pixels"),
        (np.array([[0, 1]]), "at least 16 x 16 pixels"),
        (np.zeros((5, 5, 3)), "image 1: shape"),
        (np.full((20, 20), 7, np.uint16), "image 1: holds one intensity only"),
        (large(0, 1e-60), "one intensity"),
        (large(-3e38, 3e38).astype(np.float32), "range beyond"),
        (large(1.0, np.nan), "NaN"),
        (large(1, np.inf), "infinite"),
        (large("a", "b"), "expected numbers"),
    ],
)
def test_an_image_without_meaning_is_refused(model, image, reason):
    with pytest.raises(ValueError, match=reason):
        model([radiograph(20, 20), image])


@pytest.mark.parametrize(
    "kind, offset",
    [(np.int64, 2**40), (np.float64, 1e12), (np.uint32, 2**31), (np.int32, -(2**30))],
)
def test_a_large_offset_costs_no_digits(model, kind, offset):
    image = radiograph(90, 80, depth=200)
    assert np.array_equal(
        model([image.astype(kind) + kind(offset)]), model([image.astype(np.uint8)])
    )


@pytest.mark.parametrize(
    "images", ["a.png", Path("a.png"), b"a.png", radiograph(20, 20), np.float32(1), None, 5]
)
def test_one_image_is_no_sequence(model, images):
    with pytest.raises(ValueError, match=r"expected a sequence of files or of \(H, W\) arrays"):
        model(images)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_an_image(model, batch_size):
    with pytest.raises(ValueError, match="batch_size .*expected at least 1"):
        model([radiograph(20, 20)], batch_size=batch_size)


def test_few_images_are_in_memory_at_a_time(folder, model, monkeypatch):
    """Decoded images live until they have the model's size; of those, a few batches wait."""
    files, alive, most, small = good(folder)[:1] * 40, [], 0, []

    def decode(content, name):
        nonlocal most
        image = decode_image(content, name)
        alive[:] = [one for one in alive if one() is not None] + [weakref.ref(image)]
        most = max(most, len(alive))
        return image

    def shrink(image):
        small.append(image)
        return Predictor.shrink(model, image)

    expected = model(files)
    monkeypatch.setattr(runtime, "decode_image", decode)
    assert np.array_equal(model(files), expected) and most <= 2
    monkeypatch.setattr(model, "shrink", lambda image: small.append(0) or image[:64, :64].copy())
    taken, most = 0, 0
    alive.clear()
    for _ in batch.predictions(model, files, batch_size=4, workers=2):
        taken += 1
        time.sleep(0.005)  # time enough for the threads to decode all that they may
        assert len(small) - taken <= 4 + 8 + 2 + 1  # of a batch, waiting, the threads', one more
    assert most <= 3 and taken == 40


def test_abandoned_predictions_decode_no_more(folder, model, monkeypatch):
    read = []
    monkeypatch.setattr(
        model, "read", lambda path, **_: read.append(path) or Predictor.read(model, path)
    )
    results = batch.predictions(model, good(folder)[:1] * 50, batch_size=1, workers=2)
    next(results)
    results.close()  # joins the threads
    assert len(read) < 10


def test_sizes_that_differ_share_batches(folder, model, monkeypatch):
    """Forty radiographs of forty sizes take five inferences, and give what each gives alone."""
    images = [radiograph(100 + n, 140 - n, n, 255 + 1500 * n) for n in range(40)]
    alone = np.concatenate([model.predict([model.check(image)]) for image in images])
    runs, whole = [], model.session
    monkeypatch.setattr(
        model,
        "session",
        SimpleNamespace(run=lambda names, feeds: runs.append(1) or whole.run(names, feeds)),
    )
    assert np.abs(model(images) - alone).max() < 2e-4 and len(runs) == 5


def test_bytes_and_datasets_are_read_as_files_are(model, folder, real_dicom):
    pydicom = pytest.importorskip("pydicom")
    path = real_dicom / "Fake_MONOHR1.dcm"
    expected = model([path, good(folder)[0]])
    images = [path.read_bytes(), good(folder)[0].read_bytes()]
    assert np.array_equal(model(images), expected)
    assert np.array_equal(model([pydicom.dcmread(path)]), expected[:1])
    with pytest.raises(ValueError, match="expected a sequence"):
        model(pydicom.dcmread(path))


def test_a_failure_of_onnxruntime_is_one_line(model, monkeypatch):
    run = model.session.run
    misnamed = SimpleNamespace(run=lambda names, feed: run(names, {"picture": feed["image"]}))
    monkeypatch.setattr(model, "session", misnamed)
    with pytest.raises(ValueError, match="onnxruntime failed .*image") as caught:
        model([radiograph(20, 20)])
    assert "\n" not in str(caught.value)
