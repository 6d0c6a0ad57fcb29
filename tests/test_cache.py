"""The cache: right after any interruption, damage or change, whoever fills it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.cache.__main__ import main
from data.cache.build import build_cache, open_cache
from data.cache.fingerprint import pattern_files
from data.cache.store import Store
from data.decode import decode_image
from data.files import stat_files
from data.preprocess import preprocess

SIZE = 32


def picture(seed, shape=(60, 50)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(root, name, seed, **shape):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, **shape)).save(path)
    return name


@pytest.fixture
def corpus(tmp_path):
    """A root, its 9 names and a function that builds the cache of some of them."""
    root = tmp_path / "root"
    names = [write(root, f"p{i % 3}/{i}.png", i) for i in range(9)]

    def build(wanted=names, **options):
        defaults = {"corpus": "toy", "size": SIZE, "cache_dir": tmp_path / "cache",
                    "progress": False}
        options = defaults | options
        return build_cache(options.pop("root", root), options.pop("names", names), wanted,
                           **options)
    return root, names, build


def content(cache):
    return [cache.images[row] for row in cache.rows.tolist()]


def expected(names):
    return [preprocess(picture(int(Path(name).stem)), SIZE) for name in names]


def age(path):
    """Give a file another time, as a copy or a touch does."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_rows_are_the_wanted_images_in_any_order(corpus):
    _, names, build = corpus
    wanted = [names[7], names[2], names[2], names[5]]
    cache = build(wanted)
    assert np.array_equal(content(cache), expected(wanted))
    assert cache.filled == 3 and cache.bad == [] and cache.images.shape == (9, SIZE, SIZE)
    assert not cache.images.flags.writeable


def test_only_what_is_lacking_is_done(corpus):
    _, names, build = corpus
    first = build(names[:4])
    again = build(names[2:])
    assert (first.filled, again.filled, build().filled) == (4, 5, 0)
    assert first.folder == again.folder == build(names=names[::-1]).folder
    assert np.array_equal(content(build()), expected(names))


def test_other_settings_are_another_cache(corpus):
    root, names, build = corpus
    caches = [build(), build(size=16), build(names=[*names, "other.png"]), build(corpus="x")]
    assert len({cache.folder for cache in caches}) == 4


def test_a_changed_image_is_done_again_and_a_touched_one_is_not_decoded(corpus, monkeypatch):
    root, names, build = corpus
    build()
    write(root, names[3], 100)
    age(root / names[3])
    age(root / names[4])
    decoded = []

    def decode(data, path, size):
        decoded.append(path)
        return preprocess(picture(100), size)

    monkeypatch.setattr("data.cache.fill.load_bytes", decode)
    cache = build()
    assert decoded == [str(root / names[3])] and cache.filled == 1
    assert np.array_equal(cache.images[cache.rows[3]], preprocess(picture(100), SIZE))
    assert build().filled == 0


def test_bad_images_are_named_and_the_good_ones_kept(corpus):
    root, names, build = corpus
    (root / names[1]).write_bytes((root / names[1]).read_bytes()[:-30])
    (root / names[6]).write_text("no image")
    with pytest.raises(ValueError,
                       match=r"6\.png.*not a PNG.*images: 2|1\.png.*truncated.*images: 2"):
        build()
    cache = build(on_bad="skip")
    assert cache.filled == 0  # the others were kept
    assert cache.rows[[1, 6]].tolist() == [-1, -1] and (np.delete(cache.rows, [1, 6]) >= 0).all()
    assert {name for name, _ in cache.bad} == {names[1], names[6]}
    assert all(str(root / name) in reason for name, reason in cache.bad)
    write(root, names[1], 1)
    assert build(names[:4]).filled == 1


@pytest.mark.parametrize("name, change", [
    ("data.preprocess._equalize", lambda levels: levels),
    ("data.preprocess.resize", lambda image, size: np.asarray(Image.fromarray(
        image.astype(np.float32)).resize((size, size), Image.BICUBIC))),
    ("data.raster._turn_upright", lambda image, exif: image),
    ("data.raster._to_gray", lambda picture: np.asarray(picture.convert("RGB"))[..., 1]),
    ("data.cache.fingerprint.DECODING_VERSION", 0)])
def test_other_preprocessing_has_another_cache(corpus, monkeypatch, name, change):
    root, names, build = corpus
    before = build()
    monkeypatch.setattr(name, change)
    after = build()
    assert after.folder != before.folder and after.filled == len(names)
    monkeypatch.undo()
    assert build().folder == before.folder and build().filled == 0


def test_the_fingerprint_is_far_from_where_a_machine_could_round_it_otherwise():
    for file in pattern_files():
        image = decode_image(file, "pattern").astype(np.float32)
        resized = np.asarray(Image.fromarray(image).resize((16, 16), Image.BILINEAR), float)
        levels = 255 * (resized - resized.min()) / np.ptp(resized) + 0.5
        inner = levels[(levels > 0.6) & (levels < 255.4)]  # the ends are exact
        assert len(np.unique(np.floor(levels))) > 100
        assert np.abs(inner - np.round(inner)).min() > 0.02


def test_an_image_of_one_intensity_is_a_bad_one(corpus):
    root, names, build = corpus
    Image.fromarray(np.full((60, 50), 7, np.uint8)).save(root / names[4])
    with pytest.raises(ValueError, match="4.png: the image holds one intensity only"):
        build()
    cache = build(on_bad="skip")
    assert [name for name, _ in cache.bad] == [names[4]] and cache.rows[4] == -1


@pytest.mark.parametrize("name, reason", [
    ("../outside.png", "leads out of"), ("/etc/passwd", "leads out of"), ("..", "leads out of"),
    ("p0/../../outside.png", "leads out of"), ("C:/0.png", "leads out of"),
    ("", "expected folders and a name"), ("p0/./0.png", "expected folders and a name"),
    ("p0//0.png", "expected folders and a name"), ("p0\\0.png", r"write / for \\")])
def test_no_path_of_a_table_leads_out_of_the_root(corpus, name, reason):
    root, names, build = corpus
    write(root.parent, "outside.png", 1)
    with pytest.raises(ValueError, match=reason) as caught:
        build([name], names=names + [name])
    assert ("leads out" in str(caught.value)) == (reason == "leads out of")


def test_a_colon_in_a_name_is_a_name(corpus):
    root, names, build = corpus
    write(root, "p0/12:30:00.png", 1)
    assert np.array_equal(content(build(["p0/12:30:00.png"], names=[*names, "p0/12:30:00.png"])),
                          expected([names[1]]))


def test_links_that_the_owner_put_there_are_followed(corpus):
    root, names, build = corpus
    write(root.parent / "disk", "1.png", 1)
    (root / "link.png").symlink_to(root.parent / "disk" / "1.png")
    (root / "linked").symlink_to(root.parent / "disk")
    more = ["link.png", "linked/1.png"]
    assert np.array_equal(content(build(more, names=names + more)), expected([names[1]] * 2))


def test_links_inside_the_root_and_a_root_that_is_a_link(corpus):
    root, names, build = corpus
    (root / "also.png").symlink_to(root / names[0])
    (root / "folder").symlink_to(root / "p1")
    (root.parent / "alias").symlink_to(root)
    more = ["also.png", f"folder/{Path(names[1]).name}"]
    cache = build(more, names=names + more, root=root.parent / "alias")
    assert np.array_equal(content(cache), expected(names[:2]))


def test_absent_and_unknown_names(corpus):
    root, names, build = corpus
    (root / names[2]).unlink()
    (root / names[5]).unlink()
    with pytest.raises(FileNotFoundError,
                       match=f"2 of 9 images are absent, the first is {names[2]}"):
        build()
    with pytest.raises(ValueError, match="other.png is not among the 9 images of toy"):
        build(["other.png"])


def test_files_may_be_elsewhere_than_their_names(corpus):
    root, names, build = corpus
    write(root, "moved/0.png", 0)
    cache = build([names[0]], files=["moved/0.png"])
    assert np.array_equal(content(cache), expected([names[0]]))


def damage(cache, row):
    with open(cache.folder / "images.npy", "r+b") as file:
        file.seek(cache.images.offset + row * SIZE * SIZE + 7)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def test_damaged_pixels_are_noticed_and_done_again(corpus):
    _, names, build = corpus
    cache = build()
    damage(cache, cache.rows[4])
    again = build(verify=True)
    assert again.filled == 1 and np.array_equal(content(again), expected(names))
    damage(cache, cache.rows[8])
    assert build().filled == 1  # so few are all looked at anyway


@pytest.mark.parametrize("file, content", [
    ("images.npy", None), ("images.npy", ""), ("index.npy", None), ("index.npy", "junk"),
    ("meta.json", "{"), ("meta.json", "{}"), ("meta.json", '{"size": 3}')])
def test_a_damaged_folder_is_refused_in_a_line_that_names_the_file(corpus, file, content):
    _, _, build = corpus
    path = build().folder / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=str(path.parent)):
        build()


def test_a_shorter_array_is_refused(corpus):
    _, _, build = corpus
    path = build().folder / "images.npy"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match="images.npy: is damaged"):
        build()


def test_a_record_never_vouches_for_pixels_that_were_overwritten(corpus, monkeypatch):
    """Killed between the pixels of a changed image and their record; then the old file is put
    back."""
    root, names, build = corpus
    build()
    old, status = (root / names[0]).read_bytes(), (root / names[0]).stat()
    write(root, names[0], 50)
    age(root / names[0])
    real_mark = Store.mark
    monkeypatch.setattr(Store, "mark", lambda store, records: real_mark(
        store, {row: r for row, r in records.items() if r["mtime_ns"] == -1}))
    build()
    monkeypatch.undo()
    (root / names[0]).write_bytes(old)
    os.utime(root / names[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    cache = build()
    assert cache.filled == 1 and np.array_equal(content(cache), expected(names))


def test_a_read_only_root_and_a_complete_read_only_cache(corpus):
    root, names, build = corpus
    before = sorted(root.rglob("*"))
    everything = [*names, "bad.png"]
    folder = build(names[:5], names=everything).folder
    assert sorted(root.rglob("*")) == before
    (root / "bad.png").write_text("no image")
    age(root / names[2])
    for path in [folder, *folder.iterdir(), *root.rglob("*"), root]:
        path.chmod(0o555)
    for path in list(root.parents)[:-2]:
        path.chmod(path.stat().st_mode | 0o055)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        complete = build([*names[:5], "bad.png"], names=everything, on_bad="skip")
        with pytest.raises(PermissionError, match="is read-only, and lacks"):
            build(names=everything)
    finally:
        os.seteuid(user)
        for path in [folder, root, *root.rglob("*")]:
            path.chmod(0o755)
    assert complete.rows[5] == -1 and [name for name, _ in complete.bad] == ["bad.png"]
    assert np.array_equal(complete.images[complete.rows[:5]], expected(names[:5]))


def test_no_room_is_said_before_the_work(corpus, monkeypatch):
    _, _, build = corpus
    monkeypatch.setattr("shutil.disk_usage",
                        lambda path: __import__("types").SimpleNamespace(free=100))
    with pytest.raises(OSError, match="9 images need 0.0 GB"):
        build()


def test_the_command_on_the_official_layout(tmp_path, capsys, real_cxr14):
    arguments = ["cxr14", "--root", str(real_cxr14), "--image-size", "32", "--cache-dir",
                 str(tmp_path / "a")]
    assert main(arguments) == 0
    assert main(arguments + ["--verify"]) == 0
    out = capsys.readouterr().out.splitlines()
    folder = Path(out[-1].split(": ")[0])
    assert "images ready: 1,236" in out[-1] and "not on disk: 110,884" in out[-1]
    assert json.loads((folder / "meta.json").read_text())["images"] == 112120
    with open(folder / "images.npy", "r+b") as file:
        row = int(np.flatnonzero(Store(folder).read_index()["bytes"])[7])
        file.seek(Store(folder).pixel_file(file).offset + row * 32 * 32)
        file.write(b"\x01\x02\x03")
    assert main(arguments + ["--verify"]) == 0
    assert "1 preprocessed now, 1 damaged done again" in capsys.readouterr().out
    nothing = str(tmp_path / "none")
    for wrong in (["cxr14", "--root", nothing], [], ["cxr14", "--cohort", "x"],
                  arguments + ["--workers", "0"], arguments + ["--image-size", "-1"]):
        assert main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_cache_opens_without_its_images(corpus):
    root, names, build = corpus
    whole = build(names[:5])
    shutil.rmtree(root)
    options = dict(corpus="toy", size=SIZE, cache_dir=whole.folder.parent)
    cache = open_cache(names, names[3:7], **options)
    assert (cache.rows >= 0).tolist() == [True, True, False, False]
    assert np.array_equal(cache.images[cache.rows[:2]], content(whole)[3:])
    with pytest.raises(FileNotFoundError, match="toy-32-.*: no such cache; fill it with `python -m "
                                                "data.cache toy` where the images are"):
        open_cache(names[1:], names[3:7], **options)
    damage(whole, whole.rows[3])
    with pytest.raises(ValueError, match="images that do not match their checksums: 1; copy the "
                                         "cache"):
        open_cache(names, names[3:7], **options)


def test_every_start_asks_the_disk_once_a_file_and_folder(tmp_path, monkeypatch):
    """The check of paths and times, which every start pays: no path is resolved link by link."""
    names = [f"p{i % 50:02d}/s{i % 100}/{i}.png" for i in range(2_000)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    asked = []
    for call in ("stat", "lstat"):
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda path, *args, real=real, **options:
                            asked.append(path) or real(path, *args, **options))
    assert stat_files(tmp_path, names).shape == (2_000, 2)
    assert len(asked) <= 2_000 + 50 + 100 + len(tmp_path.parts)
