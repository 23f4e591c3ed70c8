"""The page of `report`: pictures are NumPy's slices, numbers those of the tables, and a browser shows it all."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import os
import resource
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from harness import Program, files_in, report_of
from make_dataset import Dataset, Options, make_dataset
from niftis import nib
from numpy.typing import NDArray
from PIL import Image
from small_datasets import set_meta, write_csv, write_dataset, write_plain_tables

LARGEST = 5 << 20  # bytes of a page
SIDE = 256  # pixels
WINDOWS = {"lung window": (-1350, 150), "mediastinal window": (-160, 240), "±10 HU": (-500, 500)}
LEVEL = 255 / 64  # between two grey levels of a picture
SHAPE = (48, 40, 24)  # height, width, depth
SPACING = (0.75, 0.75, 1.5)
SLOPE, INTERCEPT = 2.0, -1000.0


class Page(html.parser.HTMLParser):
    """What is on a page: texts by section, and pictures by what they show."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.section = ""
        self.study = ""
        self.texts: dict[str, str] = {}
        self.pictures: dict[tuple[str, str], NDArray[np.uint8]] = {}
        self.addresses: list[str] = []
        self._in_heading = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes where the texts that follow stand, and takes pictures."""
        given = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value is not None]
        if tag == "section":
            self.section = given["id"] or ""
        self._in_heading = tag == "h3"
        if tag == "img":
            png = base64.b64decode((given["src"] or "").removeprefix("data:image/png;base64,"))
            self.pictures[self.study, given["alt"] or ""] = np.asarray(Image.open(io.BytesIO(png)))

    def handle_data(self, data: str) -> None:
        """Keeps the text; those of headings are studies."""
        if self._in_heading and data.strip():
            self.study = data.strip()
        self.texts[self.section] = self.texts.get(self.section, "") + " " + " ".join(data.split())


def report(program: Program, out: Path, *flags: object, code: int | None = 0) -> Page:
    """The page of one run."""
    done = program.run("report", *flags, "--output", out, check=False)
    assert code is None or done.returncode == code, done.stderr
    return Page(out)


def grey(rows: NDArray[Any], window: str, aspect: float) -> NDArray[np.uint8]:
    """A slice that is smaller than a picture, fitted into it by its size in mm: the definition of a picture."""
    low, high = WINDOWS[window]
    levels = np.round(np.clip((rows - low) / (high - low), 0, 1) * 64) * LEVEL
    height, width = rows.shape
    scale = SIDE / max(width, height * aspect)
    down, across = round(height * aspect * scale), round(width * scale)
    picture = np.zeros((SIDE, SIDE))
    top, left = (SIDE - down) // 2, (SIDE - across) // 2
    fitted = levels[np.arange(down) * height // down][:, np.arange(across) * width // across]
    picture[top : top + down, left : left + across] = fitted
    return np.round(picture).astype(np.uint8)


def middles(hu: NDArray[Any]) -> dict[str, tuple[NDArray[Any], float]]:
    """The middle slices of a volume (H, W, D), with the height of a pixel over its width."""
    h, w, d = (length // 2 for length in hu.shape)
    mm_h, mm_w, mm_d = SPACING
    return {
        "axial": (hu[:, :, d], mm_h / mm_w),
        "coronal": (hu[h].T[::-1], mm_d / mm_w),
        "sagittal": (hu[:, w].T[::-1], mm_d / mm_h),
    }


def values(rng: np.random.Generator) -> NDArray[np.float32]:
    """Values (H, W, D) that float16 rounds, different along all axes."""
    h, w, d = np.meshgrid(*(np.linspace(0, 1, length) for length in SHAPE), indexing="ij")
    return (400 * h + 150 * w + 60 * d + rng.uniform(0, 90, SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """A folder, and the values of two volumes."""
    rng = np.random.default_rng(5)
    return tmp_path_factory.mktemp("numbers"), {study: values(rng) for study in ("v00", "v01")}


@pytest.mark.parametrize("axes", ["HWD", "DHW", "WHD"])
@pytest.mark.parametrize("volume", ["stored", "rescaled"])
def test_pictures_are_the_slices(
    program: Program, numbers: tuple[Path, dict[str, NDArray[np.float32]]], axes: str, volume: str, tmp_path: Path
) -> None:
    """Each picture is what NumPy makes of the array by the definition."""
    _, volumes = numbers
    order = ["HWD".index(axis) for axis in axes]
    arrays = {f"{study}.npz": {"data": stored.transpose(order)} for study, stored in volumes.items()}
    data = write_dataset(tmp_path, arrays)
    write_plain_tables(data, list(volumes))
    set_meta(data, dict.fromkeys(volumes, (SLOPE, INTERCEPT, "[0.75, 0.75]", 1.5)))
    page = report(program, tmp_path / "r.html", *data.flags(), "--axes", axes, "--volume", volume, "--rescale", "table")
    seen = 0
    for study, stored in volumes.items():
        source = stored.astype(np.float64) * SLOPE + INTERCEPT
        rounded = stored.astype(np.float16).astype(np.float64) * SLOPE + INTERCEPT
        shard = source.astype(np.float16).astype(np.float64) if volume == "rescaled" else rounded
        subjects = {"source": source, "shard": shard, "difference × 50": (shard - source) * 50}
        for subject, hu in subjects.items():
            windows = ["±10 HU"] if subject.startswith("difference") else ["lung window", "mediastinal window"]
            for plane, (rows, aspect) in middles(hu).items():
                for window in windows:
                    picture = page.pictures.pop((study, f"{plane} slice of the {subject}, {window}"))
                    off = np.abs(picture.astype(int) - grey(rows, window, aspect))
                    # A value between two levels may be rounded either way.
                    assert off.max() <= 5, (study, plane, subject, window)
                    assert (off > 1).mean() < 0.01, (study, plane, subject, window)
                    assert len(np.unique(picture)) > 2
                    seen += 1
        for step in range(SHAPE[2]):
            for window in ("lung window", "mediastinal window"):
                picture = page.pictures.pop((study, f"axial slice {step + 1} of {SHAPE[2]}, {window}"))
                assert np.abs(picture.astype(int) - grey(shard[:, :, step], window, 1.0)).max() <= 5
    assert seen == 2 * 3 * 5
    assert not page.pictures


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Phantoms with noise, and files that are left out."""
    return make_dataset(Options(tmp_path_factory.mktemp("phantoms"), volumes=10, size=(128, 120, 40)))


def test_a_browser_shows_it(program: Program, phantoms: Dataset, tmp_path: Path) -> None:
    """Chromium shows all pictures, by keys as well, fetches nothing, and a checker of accessibility finds nothing."""
    report(program, tmp_path / "r.html", *phantoms.flags())
    axe = files("axe_core_python").joinpath("axe.min.js").read_text()
    with browser(tmp_path / "profile") as tab:
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
            tab.open(tmp_path / "r.html", width, scheme)
            tab.evaluate(axe)
            found = tab.evaluate(
                "axe.run().then(found => found.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 200))]))"
            )
            assert found == [], (scheme, width)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 256)")
        seen = "[...document.querySelectorAll('[data-walk] img')].filter(i => i.offsetWidth).map(i => i.alt).join(';')"
        first = tab.evaluate(seen).split(";")
        assert len(first) == 4  # two volumes, each in two windows
        for _ in range(40):  # with the keyboard alone: links first, then the slider
            tab.press("Tab", 9)
            if tab.evaluate("document.activeElement.type") == "range":
                break
        tab.press("ArrowRight", 39)
        second = tab.evaluate(seen).split(";")
        numbers = [[int(name.split()[2]) for name in names] for names in (first, second)]
        assert numbers[1][0] == numbers[1][1] > numbers[0][0] and numbers[1][2:] == numbers[0][2:]
        assert set(tab.requests) - {(tmp_path / "r.html").as_uri()} == {
            address for address in tab.requests if address.startswith("data:")
        }


@pytest.mark.parametrize("deviation", [1, 30, 120])
def test_a_page_fetches_nothing_and_is_small(program: Program, deviation: float, tmp_path: Path) -> None:
    """Noise, which no picture format packs well, keeps within the limit."""
    rng = np.random.default_rng(2)
    noise = {f"v{n:02}.npz": {"data": rng.normal(0, deviation, (256, 256, 40)).astype(np.float32)} for n in range(9)}
    noise["v00.npz"]["data"][0, 0, :3] = np.nan
    data = write_dataset(tmp_path, noise)
    write_plain_tables(data, [name.removesuffix(".npz") for name in noise])
    page = report(program, tmp_path / "r.html", *data.flags(), "--rescale", "none")
    assert "3 voxels are not a number" in page.texts["values"]
    assert ("grey levels" in page.texts["volumes"]) == (deviation > 1)
    assert len({study for study, _ in page.pictures}) == 8
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert page.path.stat().st_size <= LARGEST


def test_numbers_are_those_of_tables(program: Program, tmp_path: Path) -> None:
    """Labels, shapes, spacings, who is left out, and texts only where they were asked for."""
    hostile = "a<img src=x>&'"  # a study that is no markup
    rng = np.random.default_rng(3)
    studies = [hostile, "b", "c", "d"]
    data = write_dataset(tmp_path, {f"{s}.npz": {"data": values(rng)} for s in studies} | {"e.npz": {"x": np.zeros(3)}})
    write_plain_tables(data, [*studies, "e"])
    set_meta(data, {s: (1, -1024 if s != "d" else -2048, "[0.75, 0.75]", 1.5) for s in [*studies, "e"]})
    write_csv(data.labels, [["VolumeName", "mass", "fluid"], *([s, i % 2, 1] for i, s in enumerate([*studies, "e"]))])
    page = report(program, tmp_path / "r.html", *data.flags(), "--rescale", "table")
    assert "mass" in page.texts["labels"] and "2 (50.0 %)" in page.texts["labels"]
    assert "4 (100.0 %)" in page.texts["labels"]
    assert "48 × 40 × 24 4" in page.texts["shapes"] and "0.750 × 0.750 × 1.500 4" in page.texts["shapes"]
    assert "1 e" in page.texts["left-out"]
    assert "slope 1, intercept -1024, applied (3 volumes)" in page.texts["values"]
    assert "slope 1, intercept -2048, applied (1 volume)" in page.texts["values"]
    assert any(study == hostile for study, _ in page.pictures)
    assert "findings of" not in page.path.read_text()
    with_texts = report(program, tmp_path / "t.html", *data.flags(), "--rescale", "table", "--with-reports")
    assert "findings of b" in with_texts.texts["volumes"]
    assert "This page has texts of patients." in with_texts.texts[""]


def test_damaged_volumes_are_listed(program: Program, tmp_path: Path) -> None:
    """One damaged volume costs its pictures, not the page."""
    rng = np.random.default_rng(4)
    data = write_dataset(tmp_path, {f"{s}.npz": {"data": values(rng)} for s in "abc"}, deflated=True)
    write_plain_tables(data, list("abc"))
    damaged = data.folder / "b.npz"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0x55
    damaged.write_bytes(content)
    page = report(program, tmp_path / "r.html", *data.flags(), "--rescale", "table", code=1)
    assert page.texts["unread"].startswith(" Could not be read 1 of the volumes")
    assert "b.npz" in page.texts["unread"]
    assert {study for study, _ in page.pictures} == {"a", "c"}


@pytest.mark.parametrize("codec", ["", "zstd"])
@pytest.mark.parametrize("volume", ["stored", "preprocessed"])
def test_a_folder_of_shards(program: Program, phantoms: Dataset, codec: str, volume: str, tmp_path: Path) -> None:
    """Finished shards give the pictures of the data set that they were made from."""
    # Labels without a row are NaN, which is no JSON.
    flags = (
        [*phantoms.flags(), "--volume", volume, "--shape", "96,80,40"] if volume == "preprocessed" else phantoms.flags()
    )
    out = tmp_path / "shards"
    program.run("materialize", *flags, *(["--compress", codec] if codec else []), "--output-dir", out)
    before = files_in(out)
    of_sources = report(program, tmp_path / "a.html", *flags)
    of_shards = report(program, tmp_path / "b.html", "--shards", out)
    assert files_in(out) == before
    same = {
        key: picture
        for key, picture in of_sources.pictures.items()
        if "source" not in key[1] and "difference" not in key[1]
    }
    assert {key for key, _ in of_shards.pictures.items()} == set(same)
    if volume == "preprocessed":  # whose spacing no shard says
        assert "proportions of the voxels" in of_shards.texts["volumes"]
        assert "preprocessed volumes do not say theirs" in of_shards.texts["shapes"]
        same = {key: picture for key, picture in same.items() if key[1].startswith("axial")}
    assert all(np.array_equal(of_shards.pictures[key], picture) for key, picture in same.items())
    assert ("order of stored axes" in of_shards.texts["volumes"]) == (volume == "stored")
    assert of_shards.texts["labels"] == of_sources.texts["labels"]
    said = "no source, no difference and no rounding"
    assert said in of_shards.texts["volumes"] and said not in of_sources.texts["volumes"]
    assert "volumes in the shards" in of_shards.texts["shapes"] and "volumes in the" not in of_sources.texts["shapes"]


def test_what_verify_and_bench_found(program: Program, phantoms: Dataset, tmp_path: Path) -> None:
    """Verdicts and rates stand on the page; what is something else is refused."""
    out = tmp_path / "shards"
    program.run("materialize", *phantoms.flags(), "--output-dir", out)
    verify = tmp_path / "verify.json"
    done = program.run("verify", "--json", *phantoms.flags(), "--shards", out, check=False)
    verify.write_text(done.stdout)
    page = report(program, tmp_path / "r.html", *phantoms.flags(), "--verified", verify)
    assert report_of(done)["verdict"] in page.texts["verify"]
    shutil.copy(verify, tmp_path / "bench.json")
    message = program.refuses(
        "report", *phantoms.flags(), "--benched", tmp_path / "bench.json", "-o", tmp_path / "n.html"
    )
    assert "bench.json" in message and "bench --json" in message
    assert not (tmp_path / "n.html").exists()


@pytest.mark.parametrize("asked", ["", "keep", "LPS", "IAL"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("volume", ["stored", "rescaled"])
def test_patients_lie_as_their_files_say(program: Program, codes: str, asked: str, volume: str, tmp_path: Path) -> None:
    """The front is up, the patient's right is on the left, and the head is up, however the file has its axes."""
    right, front, up = np.meshgrid(*(np.linspace(0, 1, length) for length in (40, 48, 24)), indexing="ij")
    hu = (-1000 + 500 * right + 300 * front + 150 * up).astype(np.float32)  # along R, A, S
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    image = nib.Nifti1Image(hu, np.diag([0.7, 0.9, 1.5, 1])).as_reoriented(turn)
    (tmp_path / "volumes").mkdir()
    nib.save(image, tmp_path / "volumes" / "v.nii.gz")
    orientation = ["--orientation", asked] if asked else []
    flags = ["--data-folder", tmp_path / "volumes", "--volume", volume, *orientation]
    page = report(program, tmp_path / "r.html", *flags)
    # Pictures have the front in the first row, and the right in the first column.
    seen = hu.transpose(1, 0, 2)[::-1, ::-1]
    middle = {"axial": (seen[:, :, 12], 0.9 / 0.7), "coronal": (seen[24].T[::-1], 1.5 / 0.7)}
    middle["sagittal"] = (seen[:, 20].T[::-1], 1.5 / 0.9)
    for plane, (rows, aspect) in middle.items():
        picture = page.pictures["v", f"{plane} slice of the shard, lung window"].astype(int)
        assert np.abs(picture - grey(rows, "lung window", aspect)).max() <= 12  # of an even length, either middle


@pytest.mark.parametrize("kind", ["table", "volume", "fifo", "link", "folder", "nowhere"])
def test_nothing_but_a_page_is_replaced(program: Program, kind: str, tmp_path: Path) -> None:
    """What is there may be a table or a volume; an earlier page is replaced."""
    rng = np.random.default_rng(6)
    data = write_dataset(tmp_path, {"a.npz": {"data": values(rng)}})
    write_plain_tables(data, ["a"])
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(data.meta)
    places = {"table": data.labels, "volume": data.folder / "a.npz", "nowhere": tmp_path / "no" / "r.html"}
    out = places.get(kind, tmp_path / kind)
    before = files_in(data.folder) | {path.name: path.read_text() for path in (data.labels, data.meta, data.reports)}
    message = program.refuses("report", *data.flags(), "--output", out)
    assert ("mkdir -p" if kind == "nowhere" else "no page of this command") in message
    after = files_in(data.folder) | {path.name: path.read_text() for path in (data.labels, data.meta, data.reports)}
    assert before == after and (tmp_path / "link").is_symlink() and (tmp_path / "fifo").is_fifo()
    for _ in range(2):
        report(program, tmp_path / "r.html", *data.flags())


def test_a_shape_that_is_no_shape(program: Program, tmp_path: Path) -> None:
    """A shard's JSON that does not fit its voxels costs the volume, not the program."""
    rng = np.random.default_rng(7)
    data = write_dataset(tmp_path, {f"{study}.npz": {"data": values(rng)} for study in "ab"})
    write_plain_tables(data, list("ab"))
    out = program.materialize(data, tmp_path / "shards")
    shard = out / "shard-000000.tar"
    content = shard.read_bytes()
    assert content.count(b'"volume_shape": [48, 40, 24]') == 2
    shard.write_bytes(content.replace(b'"volume_shape": [48, 40, 24]', b'"volume_shape": [99, 99, 99]', 1))
    page = report(program, tmp_path / "r.html", "--shards", out, code=1)
    assert "does not fit" in page.texts["unread"] and {study for study, _ in page.pictures} == {"b"}


def test_a_file_that_has_gone(program: Program, tmp_path: Path) -> None:
    """It costs its pictures, not an hour of work."""
    rng = np.random.default_rng(8)
    data = write_dataset(tmp_path, {f"{study}.npz": {"data": values(rng)} for study in "abc"})
    write_plain_tables(data, list("abc"))
    program.run("plan", *data.flags())  # which is saved: the files are not looked at again
    (data.folder / "b.npz").chmod(0)
    (data.folder / "b.npz").write_bytes(b"no zip file any more" * 100)
    page = report(program, tmp_path / "r.html", *data.flags(), code=None)
    assert {study for study, _ in page.pictures} >= {"a", "c"}


def test_what_is_not_known_is_said(program: Program, tmp_path: Path) -> None:
    """Without tables nothing makes HU of stored values; HU of which the table would make others are not shifted."""
    rng = np.random.default_rng(9)
    data = write_dataset(tmp_path, {"a.npz": {"data": values(rng)}})
    write_plain_tables(data, ["a"])
    page = report(program, tmp_path / "r.html", "--data-folder", data.folder)
    assert "may not be HU" in page.texts["values"]
    page = report(program, tmp_path / "r.html", *data.flags(), "--rescale", "none")
    assert "not applied" in page.texts["values"] and "may not be HU" not in page.texts["values"]
    page = report(program, tmp_path / "r.html", *data.flags(), "--dialect", "hu")
    assert "slope and intercept not applied" in page.texts["values"]


def told(program: Program, *flags: object, code: int = 0) -> dict[str, Any]:
    """What `report --json` prints: one object, and nothing else."""
    done = program.run("report", "--json", *flags, check=False)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("dtype", ["float16", "int16", "float32"])
def test_programs_get_what_the_page_says(program: Program, dtype: str, tmp_path: Path) -> None:
    """Percentiles and what rounding costs are NumPy's, of all voxels: the one that differs most is found as well."""
    rng = np.random.default_rng(10)
    shape = (37, 41, 23)  # no multiple of any number of voxels that are looked at together
    volumes = {study: rng.normal(100, 300, shape).round(0).astype(np.float32) for study in "abc"}
    volumes["a"][20, 20, 20] = 4098.4  # a single voxel, which float16 rounds to 4100
    volumes["b"][0, 0, :3] = np.nan if dtype != "int16" else 0
    data = write_dataset(tmp_path, {f"{study}.npz": {"data": volume} for study, volume in volumes.items()})
    write_plain_tables(data, list(volumes))
    page = tmp_path / "r.html"
    flags = (*data.flags(), "--volume", "rescaled", "--rescale", "none", "--output-dtype", dtype)
    found = told(program, *flags, "-o", page)
    assert (found["page"], found["bytes"]) == (str(page), page.stat().st_size)
    assert (found["samples"], found["shards"], found["looked_at"], found["unread"]) == (3, 1, 3, [])
    assert (found["volume_kind"], found["volume_dtype"]) == ("rescaled", dtype)
    assert sorted(found["shown"]) == list(volumes) and [one["study_id"] for one in found["values"]] == list(volumes)
    for one in found["values"]:
        volume = volumes[one["study_id"]]
        hu = np.sort((np.rint(volume) if dtype == "int16" else volume.astype(np.float16)).ravel().astype(np.float64))
        hu = hu[~np.isnan(hu)]
        expected = [hu[int(np.ceil(share * hu.size)) - 1] for share in (0.01, 0.5, 0.99)]
        assert one["percentiles"] == pytest.approx(expected, abs=1e-3)
        assert one["not_a_number"] == np.isnan(volume).sum()
    largest = {"float16": 4100 - 4098.4, "int16": 4098.4 - 4098, "float32": 0.0}[dtype]
    assert found["rounding"]["largest"] == pytest.approx(largest, abs=1e-3)
    assert found["rounding"]["mean"] <= largest / 1000


def test_programs_get_who_could_not_be_read(program: Program, tmp_path: Path) -> None:
    """Study and reason; another volume is shown in place of the damaged one, with the slices that were for it. What is
    no number anywhere has no percentiles."""
    rng = np.random.default_rng(11)
    studies = [f"v{number}" for number in range(9)]
    volumes = {f"{study}.npz": {"data": values(rng)} for study in studies}
    data = write_dataset(tmp_path, volumes, deflated=True)
    write_plain_tables(data, studies)
    found = told(program, *data.flags(), "-o", tmp_path / "r.html")
    (left,) = set(studies) - set(found["shown"])
    first = found["shown"][0]
    damaged = data.folder / f"{first}.npz"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0x55
    damaged.write_bytes(content)
    np.savez(data.folder / f"{left}.npz", data=np.full(SHAPE, np.nan, np.float32))
    found = told(program, *data.flags(), "-o", tmp_path / "r.html", code=1)
    ((study, reason),) = ((one["study_id"], one["reason"]) for one in found["unread"])
    assert study == first and f"{first}.npz" in reason and found["looked_at"] == 9
    assert sorted(found["shown"]) == sorted(set(studies) - {first})
    assert [one["percentiles"] for one in found["values"] if one["study_id"] == left] == [None]
    page = Page(tmp_path / "r.html")
    assert (left, "axial slice 1 of 24, lung window") in page.pictures


def test_values_beyond_the_dtype_are_said(program: Program, tmp_path: Path) -> None:
    """An infinity is no large difference: the page counts them."""
    rng = np.random.default_rng(12)
    volume = values(rng)
    volume[3, 3, :5] = 1e6
    data = write_dataset(tmp_path, {"a.npz": {"data": volume}})
    write_plain_tables(data, ["a"])
    flags = (*data.flags(), "--rescale", "none", "--overflow", "inf", "-o", tmp_path / "r.html")
    assert told(program, *flags)["not_finite"] == 5
    assert "5 voxels are a number in float32 and none, or an infinity" in Page(tmp_path / "r.html").texts["rounding"]


@pytest.mark.parametrize(("dtype", "highest"), [("float32", 65504.0), ("float16", None)])
def test_what_is_counted_beyond_float16(program: Program, tmp_path: Path, dtype: str, highest: float | None) -> None:
    """A finite voxel of float32 stays one; an infinity of the shards is no number of JSON."""
    volume = values(np.random.default_rng(13))
    volume[: len(volume) // 4] = 1e6
    data = write_dataset(tmp_path, {"a.npz": {"data": volume}})
    write_plain_tables(data, ["a"])
    flags = (
        *data.flags(),
        "--rescale",
        "none",
        "--overflow",
        "inf",
        "--output-dtype",
        dtype,
        "-o",
        tmp_path / "r.html",
    )
    (found,) = told(program, *flags)["values"]
    assert found["percentiles"][2] == highest and found["percentiles"][0] is not None


def test_too_little_memory_names_the_remedy(program: Program, tmp_path: Path) -> None:
    """One volume that is too large is refused by its name before anything is read; else fewer threads work."""
    data = write_dataset(tmp_path, {"small.npz": {"data": np.zeros((64, 64, 64), "i1")}})
    write_plain_tables(data, ["small", "large"])
    mib = 1 << 20

    def limited(mebibytes: int) -> dict[str, Any]:
        return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (mebibytes * mib, mebibytes * mib))}

    np.savez_compressed(data.folder / "large.npz", data=np.zeros((512, 256, 256), "i1"))
    flags = ("report", *data.flags(), "--threads", 4, "-o", tmp_path / "r.html")
    message = program.refuses(*flags, **limited(300))
    assert "large" in message and "64.0 MiB, and its source in float32 128.0 MiB" in message
    assert "ulimit -v" in message and "--exclude" in message and not (tmp_path / "r.html").exists()
    done = program.run(*flags, **limited(700))
    assert "1 of 4 threads" in done.stderr and (tmp_path / "r.html").exists()


def test_preprocessed_volumes_have_the_spacing_of_their_voxels(program: Program, tmp_path: Path) -> None:
    """That which was asked for, unless nothing is resampled; of finished shards, that of their affine."""
    rng = np.random.default_rng(13)
    (tmp_path / "volumes").mkdir()
    image = nib.Nifti1Image(values(rng), np.diag([0.5, 0.5, 2, 1]))
    nib.save(image, tmp_path / "volumes" / "v.nii.gz")
    flags = ["--data-folder", tmp_path / "volumes", "--volume", "preprocessed", "--orientation", "LPS"]
    name = ("v", "coronal slice of the shard, lung window")
    pictures = []
    for resample in ([], ["--resample", "never", "--shape", "48,40,24"]):
        out = tmp_path / f"shards{len(resample)}"
        program.run("materialize", *flags, *resample, "--output-dir", out)
        of_file = report(program, tmp_path / "a.html", *flags, *resample)
        of_shards = report(program, tmp_path / "b.html", "--shards", out)
        assert "is not known" not in of_shards.texts["shapes"] + of_shards.texts["volumes"]
        assert np.array_equal(of_file.pictures[name], of_shards.pictures[name])
        pictures.append(of_file.pictures[name])
    # 24 slices of 2 mm are twice as high as 48 columns of 0.5 mm are wide.
    assert (pictures[1] > 0).any(axis=1).sum() == SIDE and (pictures[1] > 0).any(axis=0).sum() == SIDE / 2
