"""The map of where a model looked, on models whose gaze is known."""

import csv

import numpy as np
import pytest
from export_models import radiograph, write_model
from PIL import Image

from export.explain import BAR, GAP, HEADER, INFERENCES, inferno, occlusion, overlay
from export.predict import main
from export.runtime import Predictor, resize


class Gazer:
    """A stand-in for a Predictor: each label's log-odds is the contrast in one box."""

    metadata = dict(image_size=64, calibration=[dict(slope=1.0)] * 3)
    boxes = [
        (slice(4, 16), slice(4, 16)),
        (slice(40, 56), slice(8, 20)),
        (slice(28, 40), slice(44, 60)),
    ]

    def __init__(self, sign=1):
        self.sign = sign

    def check(self, image):
        return np.asarray(image, np.float32)

    def resize(self, image):
        return resize(image, 64)

    def predict(self, images, batch_size):
        assert {image.dtype for image in images} == {np.dtype(np.float32)}
        contrast = np.array(
            [[image[box].astype(float).std() for box in self.boxes] for image in images]
        )
        return 1 / (1 + np.exp(-self.sign * contrast / 30))


def test_each_label_lights_up_where_it_comes_from():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64))
    heat = occlusion(Gazer(), picture)
    assert heat.shape == (3, 64, 64) and heat.dtype == np.float32
    for one, box in zip(heat, Gazer.boxes):
        y, x = np.unravel_index(one.argmax(), one.shape)
        assert box[0].start <= y < box[0].stop and box[1].start <= x < box[1].stop
        inside = np.zeros((64, 64), bool)
        inside[box] = True
        assert one[inside].mean() > 3 * np.abs(one[~inside]).mean()


def test_what_speaks_against_a_label_stays_dark():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64))
    against, support = occlusion(Gazer(sign=-1), picture), occlusion(Gazer(), picture)
    assert against.min() >= 0 and support.min() >= 0
    for no, yes in zip(against, support):
        assert no[np.unravel_index(yes.argmax(), yes.shape)] < 0.1 * yes.max()


def test_any_size_and_shape_of_radiograph_has_the_same_map():
    small = np.random.default_rng(0).integers(0, 256, (64, 64))
    large = small.repeat(4, 0).repeat(2, 1)  # 256 x 128; the resize to 64 x 64 undoes it nearly
    a, b = occlusion(Gazer(), small), occlusion(Gazer(), large)
    for one, other in zip(a, b):
        (y, x), (v, u) = (np.unravel_index(heat.argmax(), heat.shape) for heat in (one, other))
        assert max(abs(y - v), abs(x - u)) < 8


def test_colors_are_matplotlibs_inferno():
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(0, 1, 101)
    assert np.abs(inferno(values) - 255 * matplotlib.colormaps["inferno"](values)[:, :3]).max() < 9


def test_overlay_colors_the_hot_place_and_nothing_else():
    image = radiograph(200, 100, depth=3000)
    heat = np.zeros((64, 64), np.float32)
    heat[8:24, 32:56] = 2.0
    picture = np.asarray(overlay(image, heat, "a.png", "Edema", 0.7, 0.5, side=400)).astype(int)
    left, right = picture[HEADER:464, :200], picture[HEADER:464, 208:408]
    assert (np.ptp(left, axis=-1) == 0).all()  # gray
    changed = np.abs(left - right).max(-1) > 10
    rows, columns = np.nonzero(changed)
    assert changed[100:140, 120:160].mean() > 0.95
    assert rows.min() > 30 and rows.max() < 170 and columns.min() > 80 and columns.max() < 195
    flat = np.asarray(overlay(radiograph(50, 50), heat * 0, "a.png", "Edema", 0.1, None)).astype(
        int
    )
    assert (np.ptp(flat[HEADER:, :1288], axis=-1) == 0).all()


def test_colors_can_be_read_off_the_scale():
    """On mid-gray, each color of the map is found on the scale at the map's value."""
    image = np.full((200, 200), 128)
    image[:5], image[-5:] = 0, 255  # the ends of the gray scale
    heat = np.linspace(0, 2, 64, dtype=np.float32)[:, None].repeat(64, 1)
    picture = np.asarray(overlay(image, heat, "a.png", "Edema", 0.7, 0.5)).astype(int)[HEADER:]
    scale = picture[:, 2 * 640 + 2 * GAP + 8]  # 2 at the top, 0 at the bottom
    assert len(scale) == 640
    for y in (*range(120, 310, 20), *range(340, 620, 20)):  # between, the outline runs
        distance = np.abs(scale - picture[y, 640 + GAP + 320]).sum(-1)
        assert distance.min() < 12 and abs((639 - distance.argmin()) - y) < 20


@pytest.mark.parametrize("shape", [(448, 120), (120, 448), (2, 900)])
def test_what_is_written_fits(shape):
    name = "1.2.840." * 30 + "\udcff\n.png"  # of a file that is not UTF-8, with a line break
    picture = overlay(
        radiograph(*shape),
        np.zeros((64, 64), np.float32),
        name,
        "Enlarged Cardiomediastinum",
        0.7,
        0.5,
    )
    pixels = np.asarray(picture)
    assert pixels[:HEADER, -8:].max() == 0 and pixels[:HEADER, :-8].max() == 255
    numbers = (
        pixels[HEADER:, -BAR:] if shape[1] > shape[0] else pixels[HEADER:, 2 * 171 + 2 * GAP + 18 :]
    )
    assert numbers.shape[0] >= 160 and numbers.max() > 200 and numbers[:, -8:].max() == 0


def files_of_one_name(folder):
    files = []
    for seed, name in enumerate(("1/a.png", "2/a.jpg", "2/a-2.png", "3/A.png")):
        files.append(folder / name)
        files[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(radiograph(90, 70, seed).astype(np.uint8)).save(files[-1])
    return files


def test_pictures_of_images_of_one_name_are_all_there(tmp_path):
    write_model(tmp_path / "model.onnx")
    words = [str(tmp_path / "model.onnx"), *map(str, files_of_one_name(tmp_path))]
    maps = tmp_path / "maps"
    assert main([*words, "--provider", "cpu", "--explain", str(maps), "--explain-all"]) == 0
    written = list(maps.iterdir())
    assert len(written) == len({path.name.casefold() for path in written}) == 4
    assert len({path.read_bytes() for path in written}) == 4


def test_a_sheet_has_the_labels_above_their_threshold(tmp_path, capsys):
    thresholds = [0.0, 1.0, None, 0.0, 1.0]  # two of them yes
    write_model(tmp_path / "model.onnx", thresholds=thresholds)
    words = [str(tmp_path / "model.onnx"), str(files_of_one_name(tmp_path)[0]), "--provider", "cpu"]
    assert main([*words, "--explain", str(tmp_path / "some")]) == 0
    assert f"{INFERENCES} inferences per image" in capsys.readouterr().err and INFERENCES == 339
    assert main([*words, "--explain", str(tmp_path / "all"), "--explain-all"]) == 0
    heights = [Image.open(tmp_path / name / "a.png").height for name in ("some", "all")]
    assert heights == [2 * (640 + HEADER), 5 * (640 + HEADER)]
    write_model(tmp_path / "model.onnx", thresholds=[1.0, None, 1.0, 1.0, 1.0])
    assert main([*words, "--explain", str(tmp_path / "none")]) == 0
    assert "without a picture: 1 image, since" in capsys.readouterr().err
    assert not list((tmp_path / "none").iterdir())


def test_a_calibrated_model_has_the_maps_it_had_before():
    """A map of the log-odds, slope 3, is taken back: the maps are those of the model before it."""

    class Steep(Gazer):
        metadata = dict(image_size=64, calibration=[dict(slope=3.0)] * 3)

        def predict(self, images, batch_size):
            p = Gazer.predict(self, images, batch_size)
            return 1 / (1 + np.exp(-3 * np.log(p / (1 - p)) + 1))

    picture = np.random.default_rng(0).integers(0, 256, (64, 64))
    plain, steep = occlusion(Gazer(), picture), occlusion(Steep(), picture)
    assert np.allclose(steep, plain, atol=2e-3) and plain.max() > 0.1


def test_the_outline_reads_the_same_on_bone_and_lung():
    """Around the hot place runs a line of black and of white, on bright and on dark ground."""
    heat = np.zeros((64, 64), np.float32)
    heat[16:48, 16:48] = 2.0
    for ground in (20, 235):
        image = np.full((200, 200), ground)
        image[:4], image[-4:] = 0, 255
        picture = np.asarray(overlay(image, heat, "a.png", "Edema", 0.7, 0.5, side=400))
        row = picture[HEADER + 200, 408:808].astype(int)
        assert (row == 255).all(-1).sum() == 2 and (row == 0).all(-1).sum() == 2


def test_a_map_with_nothing_to_show_says_so_across_it():
    heat = np.zeros((64, 64), np.float32)
    empty = np.asarray(overlay(radiograph(200, 200), heat, "a.png", "Edema", 0.7, 0.5))
    heat[30:34, 50:54] = 0.2  # log-odds: less than noise gives
    faint = np.asarray(overlay(radiograph(200, 200), heat, "a.png", "Edema", 0.7, 0.5)).astype(int)
    assert (np.ptp(faint[HEADER:, :1288], axis=-1) == 0).all()
    changed = (faint[HEADER:, 648:1288] != empty[HEADER:, 648:1288]).any(-1)
    assert changed.mean() < 0.01  # the text alone
    heat[30:34, 30:34] = 1.0
    full = np.asarray(overlay(radiograph(200, 200), heat, "a.png", "Edema", 0.7, 0.5))
    middle = empty[HEADER + 310 : HEADER + 330, 648 + 200 : 648 + 440]
    assert (middle == 0).all(-1).mean() > 0.3 and (middle == 255).any()
    assert not (full[HEADER + 310 : HEADER + 330, 648 + 200 : 648 + 440] == 0).all(-1).mean() > 0.1


def test_hiding_all_that_differs_is_no_error(tmp_path):
    """A picture of two levels has one where it is hidden; only a whole image may not."""
    model = Predictor(write_model(tmp_path / "model.onnx"), "cpu")
    image = np.zeros((64, 64), np.uint8)
    image[30:32, 30:32] = 1
    assert np.isfinite(occlusion(model, image)).all()


def test_a_picture_per_image(tmp_path):
    write_model(tmp_path / "model.onnx")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(radiograph(90, 70).astype(np.uint8)).save(tmp_path / folder / "a.png")
    (tmp_path / "two" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = [str(tmp_path / name) for name in ("model.onnx", "one", "two")]
    words += ["--provider", "cpu", "--explain", str(tmp_path / "maps"), "--explain-all"]
    assert main([*words, "--csv", str(tmp_path / "out.csv")]) == 1
    assert len(list(csv.DictReader((tmp_path / "out.csv").open()))) == 11
    written = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert written == ["a-2.png", "a.png"]
    with Image.open(tmp_path / "maps" / "a.png") as picture:
        assert picture.mode == "RGB" and picture.size[1] == 5 * (640 + HEADER)
