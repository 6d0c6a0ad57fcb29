"""The page in headless Chromium: its numbers are those of predict, and nothing leaves."""

import base64
import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, run_page
from conftest import REPOSITORY
from devtools import open_folder
from export_models import LABELS, METADATA, radiograph, write_model
from PIL import Image

from data.decode import read_image
from data.preprocess import preprocess
from export.dicom import NotFrontal
from export.metadata import UNCALIBRATED
from export.page.__main__ import about_numbers, main
from export.runtime import Predictor

DRIVE = """
const files = await Promise.all(NAMES.map(async (name) => new File(
  [await (await fetch("/in/" + name)).arrayBuffer()], name)));
const frame = document.createElement("iframe");
Object.assign(frame, { src: "/site/index.html", style: "border:0;width:100%;height:96vh" });
document.body.style.margin = 0;
document.body.append(frame);
const status = () => frame.contentDocument?.getElementById("status")?.textContent;
const until = async (ready) => { while (!ready()) await new Promise((go) => setTimeout(go, 50)); };
await until(() => /^The model (is ready|cannot)/.test(status()));
const page = frame.contentDocument, loaded = status();
await fetch("/loaded");
if (loaded === "The model is ready.") {
  const choice = new frame.contentWindow.DataTransfer();
  files.forEach((file) => choice.items.add(file));
  const input = page.getElementById("files");
  input.files = choice.files;
  input.dispatchEvent(new Event("change"));
  const shown = () => page.querySelectorAll("article").length;
  const isBusy = () => page.getElementById("results").getAttribute("aria-busy") === "true";
  await until(() => shown() === files.length && !isBusy());
}
const results = [...page.querySelectorAll("article")].reverse().map((article) => ({
  name: article.querySelector("h3").textContent,
  error: article.querySelector(".refused")?.textContent,
  picture: article.querySelector("img")?.src,
  rows: [...article.querySelectorAll("tbody tr")].map((row) => ({
    probability: Number(row.dataset.probability),
    cells: [...row.cells].map((cell) => cell.textContent) })) }));
await fetch("/done");
report({ loaded, results, status: status(), synthetic: !page.getElementById("synthetic").hidden,
  overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
  card: page.getElementById("card").textContent });
"""


@pytest.fixture
def libraries():
    """node_modules with the page's two libraries, named by $PAGE_LIBRARIES or installed by npm."""
    folder = Path(os.environ.get("PAGE_LIBRARIES", REPOSITORY / "tests" / "node_modules"))
    if not CHROMIUM:
        pytest.skip("no Chromium")
    if not (folder / "onnxruntime-web").is_dir():
        pytest.skip(f"no onnxruntime-web in {folder}: npm install --prefix tests")
    return folder


def drive(site, folder, names, **options):
    script = DRIVE.replace("NAMES", json.dumps(names))
    return run_page(script, {"/site": site, "/in": folder}, **options)


def probabilities(result):
    return np.array([row["probability"] for row in result["rows"]])


def test_the_pages_numbers_are_predicts_and_nothing_leaves(tmp_path, libraries, real_dicom):
    model = write_model(tmp_path / "model.onnx", synthetic=True, corpus="phantom")
    (images := tmp_path / "in").mkdir()
    gray = radiograph(210, 190, 1).astype(np.uint8)
    Image.fromarray(gray).save(images / "gray.png")
    Image.fromarray(radiograph(150, 170, 2, 4095).astype(np.uint16)).save(images / "deep.png")
    color = np.stack([gray, np.roll(gray, 5, 0), np.roll(gray, 9, 1), gray], -1)
    Image.fromarray(color[..., :3]).save(images / "color.png")
    Image.fromarray(color).save(images / "alpha.png")
    Image.fromarray(gray).convert("P").save(images / "palette.png")
    Image.fromarray(gray).save(images / "gray.jpg", quality=95)
    for path in real_dicom.glob("*.dcm"):
        (images / path.name).write_bytes(path.read_bytes())
    jpeg = [path.name for path in images.glob("*.dcm")]
    pydicom = pytest.importorskip("pydicom")
    for kind, signed in (("MONOCHROME1", 0), ("MONOCHROME2", 1)):
        dataset = pydicom.dcmread(images / jpeg[0])
        dataset.decompress()
        pixels = radiograph(140, 120, 5, 4095).astype(np.uint16 if not signed else np.int16)
        dataset.PixelData = (pixels - 2048 if signed else pixels).tobytes()
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16 if signed else 12, 11
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation, dataset.PhotometricInterpretation = signed, kind
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000
        dataset.WindowCenter, dataset.WindowWidth = (500, 3000) if signed else (3500, 2000)
        dataset.save_as(images / f"{kind}.dcm")
    names = sorted(path.name for path in images.iterdir())
    (images / "black.png").write_bytes(b"")
    Image.new("L", (80, 80)).save(images / "black.png")
    (images / "notes.txt").write_text("not an image, though it has a name")
    site = tmp_path / "site"
    assert main([str(model), "--out", str(site), "--libraries", str(libraries)]) == 0
    found = drive(site, images, [*names, "black.png", "notes.txt"])
    assert found["loaded"] == "The model is ready." and found["synthetic"]
    assert found["status"] == f"{len(names)} read, 2 refused."
    predictor = Predictor(model, "cpu")
    expected = predictor([images / name for name in names])
    assert [one["name"] for one in found["results"]] == [*names, "black.png", "notes.txt"]
    for one, row in zip(found["results"], expected):
        assert "error" not in one, one
        # two decoders of JPEG may differ by a gray level here and there
        tolerance = 2e-3 if one["name"] in jpeg else 1e-4
        assert np.abs(probabilities(one) - row).max() < tolerance, one["name"]
        assert [cells["cells"][0] for cells in one["rows"]] == LABELS
        words = {True: "called", False: "not called", None: "no threshold"}
        decided = [words[answer] for answer in predictor.predict_labels(row[None])[0]]
        assert [cells["cells"][3] for cells in one["rows"]] == decided
        seen = preprocess(read_image(images / one["name"]), 64).astype(int)
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["picture"][22:]))))
        assert shown.shape == (64, 64, 4) and np.abs(shown[..., 0] - seen).mean() < 0.5
    black, notes = found["results"][-2:]
    assert "one intensity only" in black["error"] and "not a PNG, JPEG or DICOM" in notes["error"]
    requests = found["requests"]
    assert requests[requests.index("/loaded") + 1 :] == ["/done", "/result"]  # nothing in between
    assert all(path.startswith("/") for path in requests)  # no other host, at any time
    assert predictor.checksum in found["card"]


@pytest.mark.parametrize("size", [(390, 844), (1280, 900)])
def test_it_fits_a_phone_and_a_desk(tmp_path, libraries, size):
    labels = ["Cardiomegaly", "Pleural thickening", "Enlarged Cardiomediastinum", "Edema", "x" * 40]
    model = write_model(tmp_path / "model.onnx", labels=labels)
    Image.fromarray(radiograph(210, 190, 1).astype(np.uint8)).save(tmp_path / "x.png")
    site = tmp_path / "site"
    assert main([str(model), "--out", str(site), "--libraries", str(libraries)]) == 0
    found = drive(site, tmp_path, ["x.png"], size=size)
    assert found["overflow"] <= 0 and not found["synthetic"]


def test_a_library_that_is_not_what_was_pinned_is_refused(tmp_path, libraries, capsys):
    model, copy = write_model(tmp_path / "model.onnx"), tmp_path / "node_modules"
    for package in ("onnxruntime-web", "dicom-parser"):
        (copy / package).mkdir(parents=True)
        (copy / package / "dist").symlink_to(libraries / package / "dist")
    site = tmp_path / "site"
    assert main([str(model), "--out", str(site), "--libraries", str(copy)]) == 0
    script = site / "ort.wasm.bundle.min.mjs"
    script.write_bytes(script.read_bytes() + b"\n")
    assert "cannot be loaded" in drive(site, tmp_path, [])["loaded"]
    (copy / "dicom-parser" / "dist").unlink()
    (copy / "dicom-parser" / "dist").mkdir()
    (copy / "dicom-parser" / "dist" / "dicomParser.min.js").write_text("other")
    assert main([str(model), "--out", str(site), "--libraries", str(copy)]) == 2
    assert "is not that of dicom-parser 1.8.21" in capsys.readouterr().err


def test_from_the_network_each_library_is_pinned(tmp_path):
    assert main([str(write_model(tmp_path / "m.onnx")), "--out", str(tmp_path / "site")]) == 0
    libraries = json.loads((tmp_path / "site" / "page.json").read_text())["libraries"]
    for one in libraries.values():
        assert one["url"].startswith("https://cdn.jsdelivr.net/npm/") and "@1." in one["url"]
        assert len(base64.b64decode(one["integrity"].removeprefix("sha384-"))) == 48
    assert "https://cdn.jsdelivr.net/npm/" in (tmp_path / "site" / "index.html").read_text()


def plain_dicom(**changes):
    """An uncompressed 12-bit radiograph (140, 120), with changed elements; None deletes one."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    pixels = radiograph(140, 120, 5, 4095).astype(np.uint16)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write_dicoms(folder, variants):
    folder.mkdir()
    for name, changes in variants.items():
        plain_dicom(**changes).save_as(folder / f"{name}.dcm", enforce_file_format=True)


def padded(value, signed=False):
    """Pixels with a border of padding, and the elements that say so."""
    pixels = radiograph(140, 120, 5, 4095).astype(np.int32)
    pixels -= 1500 if signed else 0
    pixels[:6] = pixels[-6:] = pixels[:, :6] = pixels[:, -6:] = value
    return dict(PixelData=(pixels & 0xFFFF).astype(np.uint16).tobytes())


def code(meaning):
    pydicom = pytest.importorskip("pydicom")
    item = pydicom.Dataset()
    item.CodeMeaning = meaning
    return dict(ViewCodeSequence=[item])


def site_of(tmp_path, libraries):
    model, site = write_model(tmp_path / "model.onnx"), tmp_path / "site"
    assert main([str(model), "--out", str(site), "--libraries", str(libraries)]) == 0
    return model, site


def test_the_page_refuses_what_predict_refuses_and_says_why(tmp_path, libraries):
    pixels = plain_dicom().PixelData
    refused = {
        "high_bit": dict(HighBit=15), "columns": dict(Columns=130), "rows": dict(Rows=150),
        "doubled": dict(PixelData=2 * pixels), "bits": dict(BitsStored=17, HighBit=16),
        "eight": dict(BitsAllocated=8, BitsStored=8, HighBit=7), "samples": dict(SamplesPerPixel=3),
        "no_bits": dict(BitsStored=None), "no_sign": dict(PixelRepresentation=None),
        "frames": dict(NumberOfFrames=2), "color": dict(PhotometricInterpretation="RGB"),
        "window": dict(WindowCenter=2000, WindowWidth=0),
        "all_padding": dict(PixelPaddingValue=0, PixelPaddingRangeLimit=4095),
        "ct": dict(Modality="CT"), "knee": dict(BodyPartExamined="KNEE"),
        "view": dict(ViewPosition="XTABLE LATERAL"), "decubitus": dict(ViewPosition="AP LLD"),
        "code": code("left lateral"), "side": dict(PatientOrientation=["A", "F"]),
        "series": dict(SeriesDescription="CHEST LATERAL"),
    }
    images = tmp_path / "in"
    write_dicoms(images, refused)
    whole = (images / "high_bit.dcm").read_bytes()
    (images / "short.dcm").write_bytes(whole[:300])
    (images / "cut.dcm").write_bytes(whole[:-5000])
    deflated = plain_dicom()
    deflated.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    deflated.save_as(images / "deflated.dcm", enforce_file_format=True)
    Image.fromarray(radiograph(90, 80).astype(np.uint8)).convert("CMYK").save(images / "cmyk.jpg")
    Image.fromarray(radiograph(90, 80).astype(np.uint8)).save(images / "png.png")
    damaged = bytearray((images / "png.png").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (images / "png.png").write_bytes(damaged)
    model, site = site_of(tmp_path, libraries)
    names = sorted(path.name for path in images.iterdir())
    predictor = Predictor(model, "cpu")
    left_out = set()
    for name in names:
        if name != "deflated.dcm":  # which predict reads, and the page says that it does not
            with pytest.raises(ValueError) as refused_there:
                predictor.read(images / name)
            if refused_there.type is NotFrontal:
                left_out.add(name)
    shown = drive(site, images, names)["results"]
    assert [result["name"] for result in shown] == names
    for result in shown:
        verb = "left out" if result["name"] in left_out else "not read"
        reason = result.get("error", "")
        assert reason.startswith(f"This image was {verb}: ") and "undefined" not in reason, result
    reasons = {Path(result["name"]).stem: result["error"] for result in shown}
    assert "up to bit 15" in reasons["high_bit"] and "CMYK" in reasons["cmyk"]
    assert "deflated" in reasons["deflated"] and "truncated" in reasons["short"]
    assert "XTABLE LATERAL" in reasons["view"] and "A/F" in reasons["side"]


def test_padding_polarity_and_orientation_are_predicts(tmp_path, libraries):
    images = tmp_path / "in"
    raw = "1.2.840.10008.5.1.4.1.1.1.1.1"
    variants = {
        "beyond": padded(65535) | dict(PixelPaddingValue=65535),
        "within": padded(4095) | dict(PixelPaddingValue=4095,
                                      PhotometricInterpretation="MONOCHROME1"),
        "range": padded(3) | dict(PixelPaddingValue=30, PixelPaddingRangeLimit=0),
        "signed": padded(-2000, True) | dict(PixelRepresentation=1, BitsStored=16, HighBit=15,
                                             PixelPaddingValue=-2000),
        "raw": dict(SOPClassUID=raw, PixelIntensityRelationshipSign=1),
        "narrow": dict(WindowCenter=2000, WindowWidth=1), "bit": dict(HighBit=None),
        "rest": dict(PixelData=plain_dicom().PixelData + bytes(8)),
        "words": dict(ViewPosition="PA", SeriesDescription="Thorax LAT", BodyPartExamined="CHEST"),
    }
    write_dicoms(images, variants)
    gray = Image.fromarray(radiograph(90, 140, 3).astype(np.uint8))
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        gray.save(images / f"upright{orientation}.png", exif=exif)
    gray.save(images / "upright.jpg", exif=exif, quality=95)
    model, site = site_of(tmp_path, libraries)
    names = sorted(path.name for path in images.iterdir())
    expected = Predictor(model, "cpu")([images / name for name in names])
    for result, row in zip(drive(site, images, names)["results"], expected, strict=True):
        assert "error" not in result, result
        assert np.abs(probabilities(result) - row).max() < 1e-4, result["name"]


@pytest.mark.parametrize("stale", ["model.onnx", "model.json"])
def test_a_model_without_its_own_description_is_refused(tmp_path, libraries, stale):
    _, site = site_of(tmp_path, libraries)
    (tmp_path / "other").mkdir()
    thresholds = [0.1, 0.9, None, 0.2, 0.5]
    other = write_model(tmp_path / "other" / "model.onnx", thresholds=thresholds)
    other_site = tmp_path / "other" / "site"
    assert main([str(other), "--out", str(other_site), "--libraries", str(libraries)]) == 0
    (site / stale).write_bytes((other_site / stale).read_bytes())
    loaded = drive(site, tmp_path, [])["loaded"]
    assert loaded.startswith(f"The model cannot be loaded: {stale} ") and "\n" not in loaded


# -- for all who read it ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the page in `site`, a radiograph and a file that is none."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture
def opened(place, libraries):
    """A function that opens the page, ready to read, in a window of its own."""
    if not (place / "site").exists():
        auroc = [0.8, 0.7, None, 0.45, 0.9]
        model = write_model(place / "model.onnx", val_auroc=auroc)
        command = [str(model), "--out", str(place / "site"), "--libraries", str(libraries)]
        assert main(command) == 0
        image = Image.fromarray(radiograph(210, 190, 1).astype(np.uint8))
        image.save(place / "chest.png")
        (place / "notes.txt").write_text("no image")

    @contextlib.contextmanager
    def open_ready(**settings):
        with open_folder(place / "site", **settings) as page:
            page("Page.setInterceptFileChooserDialog", enabled=True)
            page.wait_until("document.getElementById('choose')?.disabled === false")
            yield page

    return open_ready


def choose(page, *files):
    """Give files to the dialog that a key has opened, and wait for what the page says of them."""
    chooser = page.wait_for_event("Page.fileChooserOpened")
    before = page.evaluate("document.querySelectorAll('article').length")
    page("DOM.setFileInputFiles", files=[str(file) for file in files],
         backendNodeId=chooser["backendNodeId"])
    page.wait_until(f"document.querySelectorAll('article').length === {before + len(files)} && "
                    "document.getElementById('results').ariaBusy === 'false'")


def focused(page):
    """Text of the element that has the focus, and the width of the line around it."""
    return page.evaluate("""(() => {
      const { innerText, tagName } = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return { tag: tagName, text: innerText, outline: outlineStyle + " " + outlineWidth };
    })()""")


def test_keys_alone_choose_and_read(opened, place):
    with opened() as page:
        page.press("Tab")
        button = focused(page)
        assert button["tag"] == "BUTTON" and button["text"].startswith("Choose radiographs")
        assert button["outline"] == "solid 3px"
        for key in ("Enter", " "):
            page.press(key)
            choose(page, place / "chest.png")
            assert focused(page) == button  # the focus stays where it was
        page.press("Tab")
        assert focused(page) == dict(tag="SUMMARY", text="The model", outline="solid 3px")
        page.press("Enter")
        assert page.evaluate("document.querySelector('details').open")


def test_a_screen_reader_is_told_all_that_is_seen(opened, place):
    with opened() as page:
        page.press("Tab")
        page.press("Enter")
        choose(page, place / "chest.png", place / "notes.txt")
        tree = page.accessible()
        status = page.evaluate("document.getElementById('status').textContent")
        size = page.evaluate("document.querySelector('img').naturalWidth")
        # Chromium takes a th without a scope for a row's header; other browsers may not
        scopes = page.evaluate("[...document.querySelectorAll('th')].map((cell) => cell.scope)")

    def names(role):
        return [name for one, name, _ in tree if one == role]

    probability = Predictor(place / "model.onnx", "cpu")([place / "chest.png"])[0]
    called = [label for label, threshold, value in zip(LABELS, METADATA["thresholds"], probability)
              if threshold is not None and value >= threshold]
    summary = f"{len(called)} of 5 findings called: {', '.join(called)}."
    assert called and size == 64
    refusal = "not read: not a PNG, JPEG or DICOM file"
    assert status == f"chest.png: {summary} notes.txt: {refusal}."
    [live] = [properties for role, _, properties in tree if role == "status"]
    assert live["live"] == "polite" and status in names("StaticText")
    headings = [(properties["level"], name) for role, name, properties in tree
                if role == "heading"]
    assert sorted(headings) == [
        (1, "cxr14-dinov2: chest radiograph to probabilities"), (2, "Before you read a number"),
        (2, "Results, the newest first"), (3, "chest.png"), (3, "notes.txt")]
    assert len(names("main")) == 1 and len(names("button")) == 1
    assert names("article") == ["notes.txt", "chest.png"]
    assert names("image") == [
        "chest.png as the model sees it: 64 × 64 pixels, contrast equalized"]  # and no bar
    assert names("table") == [summary]
    assert names("columnheader") == ["Finding", "Probability", "Threshold", "Result"]
    rows = [label.replace("Nodule", "Nodule worse than chance on validation") for label in LABELS]
    assert names("rowheader") == rows
    assert scopes == ["col"] * 4 + ["row"] * 5
    words = ["called" if label in called else "not called" for label in LABELS]
    words[2] = "no threshold"
    assert names("cell")[2::3] == words
    assert names("cell")[0::3] == [f"{value:.4f}" for value in probability]
    assert names("cell")[1::3] == ["0.4000", "0.5000", "none", "0.6000", "0.5000"]
    assert f"This image was {refusal}" in names("StaticText")


CONTRAST = """(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = (color) => {
    const [r, g, b] = channels(color).map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backgroundOf = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (channels(color)[3] !== 0) return color;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const pair = [getComputedStyle(element).color, backgroundOf(element)].map(luminance);
    found.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), element.textContent]);
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1100])
def test_all_text_is_readable_in_both_schemes(opened, place, width, dark):
    """A contrast of 4.5 at least: WCAG 2.2, 1.4.3."""
    with opened(width=width, dark=dark) as page:
        page.press("Tab")
        page.press("Enter")
        choose(page, place / "chest.png", place / "notes.txt")
        pairs = page.evaluate(CONTRAST)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        broken = page.evaluate("[...document.querySelectorAll('td')].some((cell) => "
                               "cell.scrollWidth > cell.clientWidth)")
    assert len(pairs) > 40 and min(pairs)[0] >= 4.5, min(pairs)
    assert (background == "rgb(255, 255, 255)") == (not dark)
    assert overflow <= 0 and not broken


@pytest.mark.parametrize("label", ["Pneumothorax", "Consolidation"])
def test_a_phone_shows_the_words_of_a_finding_whole(opened, place, label):
    with opened(width=390) as page:
        page.press("Tab")
        page.press("Enter")
        choose(page, place / "chest.png")
        lines = page.evaluate(f"""(() => {{
          const name = document.querySelector("tbody th");
          name.parentElement.className = "called";  // bold, which is wider
          name.textContent = "{label}";
          const words = document.createRange();
          words.selectNodeContents(name);
          return words.getClientRects().length;
        }})()""")
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert lines == 1 and overflow <= 0


def test_the_page_says_where_its_numbers_come_from():
    platt = dict(method="platt", slope=1.1, offset=0.2)
    some = METADATA | dict(calibration=[platt, UNCALIBRATED, platt, UNCALIBRATED, UNCALIBRATED],
                           val_auroc=[0.8, 0.7, None, 0.45, 0.9])
    thresholds, without, calibrated, uncalibrated, weak = about_numbers(some)
    assert thresholds == "Thresholds: Youden's index on the validation set."
    assert without.endswith("never called: Edema.")
    assert calibrated.endswith("(logistic map (Platt) fitted on validation): Cardiomegaly, Edema.")
    assert uncalibrated.startswith("Not calibrated: Pneumonia, Nodule, No finding.")
    assert weak.endswith("means anything: Nodule.")
    none = METADATA | dict(thresholds=[None] * 5, val_auroc=None,
                           thresholds_from="none, so that nothing is called positive")
    thresholds, uncalibrated = about_numbers(none)
    assert thresholds == "Thresholds: none, so that nothing is called positive."
    assert uncalibrated.startswith("Not calibrated: all findings.")
