"""Whether values are HU already, and what the program and both data sets of the loader make of it: one answer."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctreport_webdataset import LoaderError
from harness import Program, Stored, digest, require_fuse
from kinds import Steps, head, preprocessed, samples
from loading import HALF_HU, Samples, assert_same, collected, from_npz, from_shards
from make_dataset import Dataset
from numpy.typing import NDArray
from small_datasets import set_meta, write_dataset

SMALL = Steps(shape=(24, 20, 18), spacing=(0.75, 0.75, 1.5))
KINDS = ["stored", "rescaled", "preprocessed"]


def hu(seed: int = 0) -> NDArray[Any]:
    """A head in HU."""
    return head(-1000, -1024, seed)


def raw(seed: int = 0) -> NDArray[Any]:
    """A head in the stored values of a scanner with intercept -1024."""
    return head(24, 0, seed)


RAW = {"-1024": (raw(), -1024), "padded": (head(24, -2000), -1024), "-8192": (head(7192, 7168), -8192)}


def data_set(folder: Path, volumes: dict[str, NDArray[Any]], intercept: float = -1024) -> Dataset:
    """Volumes as `data`, in a table that takes them for stored values."""
    dataset = write_dataset(folder, {f"{study}.npz": {"data": volume} for study, volume in volumes.items()})
    set_meta(dataset, dict.fromkeys(volumes, (1, intercept, "[0.9, 0.9]", 1.2)))
    return dataset


def groups(folder: Path) -> list[dict[str, Any]]:
    """What the manifest of a folder of shards says of the values."""
    found: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text())["value_groups"]
    return found


def volumes_of(data: Any) -> Samples:
    """The samples of a data set of the loader; what it warns of is looked at elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return collected(data() if callable(data) else data)


def in_order(data: Any) -> list[Any]:
    """The samples of a data set of NPZ files, which are asked for by number."""
    return [data[at] for at in range(len(data))]


@pytest.mark.parametrize("values", RAW)
@pytest.mark.parametrize("kind", ["stored", "rescaled"])
def test_raw_values_raise_no_doubt(program: Program, tmp_path: Path, values: str, kind: str) -> None:
    """Of every scanner that CT-RATE has."""
    volume, intercept = RAW[values]
    dataset = data_set(tmp_path / "data", {"v": volume}, intercept)
    assert program.run("plan", *dataset.flags(), "--volume", kind).stderr == ""
    out = program.materialize(dataset, tmp_path / "out", "--volume", kind)
    wanted = volume + (intercept if kind == "rescaled" else 0)
    assert (samples(out)["v"]["volume"] == wanted.astype(np.float16)).all()
    assert [(group["rescale"], group["already_hu"]["volumes"]) for group in groups(out)] == [("table", 0)]
    with warnings.catch_warnings(action="error"):
        from_npz(dataset)


@pytest.mark.parametrize("kind", ["rescaled", "preprocessed"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_that_are_hu_already_are_not_shifted(program: Program, tmp_path: Path, kind: str, order: Any) -> None:
    """`plan` names them, `mount` and `materialize` refuse until an option decides."""
    volumes = {f"v{n}": np.asarray(hu(n), order=order) for n in range(4)}
    dataset = data_set(tmp_path / "data", volumes)
    flags = ["--volume", kind, *SMALL.flags()]
    warning = program.run("plan", *dataset.flags(), *flags).stderr
    assert "4 of 4 volumes looked at (v0, v1, v2, …)" in warning and "--rescale none" in warning
    point = tmp_path / "mount"
    point.mkdir()
    for command in (["mount", point], ["materialize", "--output-dir", tmp_path / "refused"]):
        assert "--rescale none" in program.refuses(command[0], *dataset.flags(), *flags, *command[1:])
    assert not (tmp_path / "refused").exists()
    for rescale, intercept in (("none", 0), ("table", -1024), ("1,-7", -7)):
        out = program.materialize(dataset, tmp_path / rescale, *flags, f"--rescale={rescale}")
        found, stored = samples(out)["v1"]["volume"], volumes["v1"]
        if kind == "rescaled":
            assert (found == (stored + intercept).astype(np.float16)).all()
        else:
            wanted, _ = preprocessed(stored, 1, intercept, (0.9, 0.9, 1.2), SMALL)
            np.testing.assert_allclose(found, wanted, atol=HALF_HU)


def test_stored_hu_is_not_shifted_by_any_reader(program: Program, tmp_path: Path) -> None:
    """Every command that makes shards warns and names studies and option; the loader shifts from none of its sources;
    `--rescale` changes the verdict, and no byte of a shard."""
    require_fuse()
    dataset = data_set(tmp_path / "data", {f"v{n}": hu(n) for n in range(4)})
    for _ in range(2):  # the second plan is a saved one
        warning = program.run("plan", *dataset.flags()).stderr
        assert "4 of 4 volumes looked at (v0, v1, v2, …) hold HU" in warning
        assert "--rescale none" in warning and "refuse" not in warning
    out = tmp_path / "out"
    made = program.run("materialize", *dataset.flags(), "--output-dir", out)
    assert "hold HU already" in made.stderr
    (group,) = groups(out)
    studies = ["v0", "v1", "v2"]
    assert group == {
        "rescale_slope": 1.0,
        "rescale_intercept": -1024.0,
        "volumes": 4,
        "looked_at": 4,
        "already_hu": {"volumes": 4, "studies": studies},
        "stored": {"volumes": 0, "studies": []},
        "not_normalized": {"volumes": 0, "studies": []},
        "rescale": "none",
    }
    sample = samples(out)["v0"]
    assert (sample["json"]["RescaleSlope"], sample["json"]["RescaleIntercept"]) == (1.0, -1024.0), "the converter's"
    right = volumes_of(in_order(from_npz(dataset, rescale="none")))
    with pytest.warns(UserWarning, match="4 of 4 volumes looked at .v0, v1, v2. hold HU already"):
        npz = from_npz(dataset)
    assert_same(volumes_of(in_order(npz)), right)
    assert_same(volumes_of(from_shards(out)), right)
    with program.mounted(dataset) as point:
        assert_same(volumes_of(from_shards(point)), right)
    assert program.run("plan", "--shards", out).stderr == "", "it is decided, and --rescale is no flag there"
    with program.mounted(Stored(out)) as point:
        assert groups(point) == groups(out)
        assert_same(volumes_of(from_shards(point)), right)
    for rescale in ("none", "table", "2,-7"):
        other = tmp_path / rescale
        made = program.run("materialize", *dataset.flags(), "--output-dir", other, f"--rescale={rescale}")
        assert "hold HU" not in made.stderr
        assert digest(other / "shard-000000.tar") == digest(out / "shard-000000.tar")
        assert [(group["rescale"], group["looked_at"]) for group in groups(other)] == [(rescale, 0)]
        told: Any = rescale if "," not in rescale else (2, -7)
        assert_same(volumes_of(from_shards(other)), volumes_of(in_order(from_npz(dataset, rescale=told))))
    assert_same(volumes_of(from_shards(out, rescale="table")), volumes_of(from_shards(tmp_path / "table")))


def test_volumes_of_both_sorts_are_refused(program: Program, tmp_path: Path) -> None:
    """One slope and intercept cannot be right for them: an error with both sides, in every kind and in the loader; of
    different intercepts, each group has its own verdict."""
    volumes = {"a": hu(0), "b": raw(1), "c": hu(2), "d": raw(3)}
    dataset = data_set(tmp_path / "data", volumes)
    sides = "2 hold HU already (a, c) and 2 hold stored values (b, d)"
    assert sides in program.run("plan", *dataset.flags()).stderr
    for kind in KINDS:
        out = tmp_path / kind
        message = program.refuses("materialize", *dataset.flags(), "--volume", kind, "--output-dir", out)
        assert sides in message and "--rescale" in message and not out.exists()
    with pytest.raises(LoaderError, match=r"2 hold HU already .a, c. and 2 hold stored values .b, d."):
        from_npz(dataset)
    out = program.materialize(dataset, tmp_path / "out", "--rescale", "table")
    assert_same(volumes_of(from_shards(out)), volumes_of(in_order(from_npz(dataset, rescale="table"))))
    set_meta(dataset, {study: (1, -1024 if study in "ac" else -1023, "[0.9, 0.9]", 1.2) for study in volumes})
    out = program.materialize(dataset, tmp_path / "apart")
    assert [(group["rescale_intercept"], group["rescale"]) for group in groups(out)] == [
        (-1024.0, "none"),
        (-1023.0, "table"),
    ]
    assert_same(volumes_of(from_shards(out)), volumes_of(lambda: in_order(from_npz(dataset))))


@pytest.mark.parametrize("layout", ["ctclip", "npy"])
@pytest.mark.parametrize("values", ["hu", "raw", "both"])
def test_shards_that_do_not_say_it(program: Program, tmp_path: Path, layout: str, values: str) -> None:
    """Those of version 0.1 and of the original converter: the loader looks at the values itself."""
    makers = {"hu": [hu] * 4, "raw": [raw] * 4, "both": [hu, raw] * 2}[values]
    volumes = {f"v{n}": make(n) for n, make in enumerate(makers)}
    dataset = data_set(tmp_path / "data", volumes)
    flags = ["--format", layout, "--samples-per-shard", "1", "--rescale", "table"]
    out = program.materialize(dataset, tmp_path / "out", *flags)
    (out / "manifest.json").unlink()
    if values == "both":
        with pytest.raises(LoaderError, match=r"2 hold HU already .v0, v2. and 2 hold stored values .v1, v3."):
            from_shards(out)
        return
    right = volumes_of(in_order(from_npz(dataset, rescale="none" if values == "hu" else "table")))
    assert_same(volumes_of(lambda: from_shards(out)), right)
    # Nothing is seen of the first shard's first sample: each sample is looked at when it is read.
    quiet = data_set(tmp_path / "quiet", {"u": np.full((32, 32, 24), 40, np.float32), **volumes})
    out = program.materialize(quiet, tmp_path / "one", "--format", layout, "--rescale", "table")
    (out / "manifest.json").unlink()
    found = volumes_of(lambda: from_shards(out))
    right = volumes_of(in_order(from_npz(quiet, rescale="none" if values == "hu" else "table")))
    del found["u"], right["u"]
    assert_same(found, right)


def test_verify_finds_a_wrong_verdict(program: Program, tmp_path: Path) -> None:
    """Planted in the manifest; the same materialize mends it and makes no shard again."""
    dataset = data_set(tmp_path / "data", {f"v{n}": hu(n) for n in range(4)})
    out = program.materialize(dataset, tmp_path / "out")
    arguments = ["verify", "--webdataset-dir", out, *dataset.flags()]
    assert program.run(*arguments).returncode == 0
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["value_groups"][0]["rescale"] = "table"
    (out / "manifest.json").write_text(json.dumps(manifest))
    before = (out / "shard-000000.tar").stat()
    done = program.run(*arguments, check=False)
    assert done.returncode == 3 and "4 of 4 volumes looked at hold HU already" in done.stdout
    program.materialize(dataset, out)
    assert program.run(*arguments).returncode == 0
    assert (out / "shard-000000.tar").stat().st_mtime_ns == before.st_mtime_ns
    program.materialize(dataset, out, "--rescale", "table")  # a decision of who made them is no fault
    assert program.run(*arguments).returncode == 0
    assert program.run(*arguments, "--rescale", "none", check=False).returncode == 3


def test_parts_of_one_mind(program: Program, tmp_path: Path) -> None:
    """Parts that were made with different verdicts are not merged."""
    dataset = data_set(tmp_path / "data", {f"v{n}": hu(n) for n in range(4)})
    out = tmp_path / "out"
    flags = [*dataset.flags(), "--samples-per-shard", "1", "--output-dir", out]
    program.run("materialize", *flags, "--partition", "0/2")
    program.run("materialize", *flags, "--partition", "1/2", "--rescale", "table")
    assert "choices of --rescale" in program.refuses("manifest", "merge", out)
    program.run("materialize", *flags, "--partition", "1/2")
    program.run("manifest", "merge", out)
    assert [group["rescale"] for group in groups(out)] == ["none"]


def test_many_groups_have_the_same_verdicts(program: Program, tmp_path: Path) -> None:
    """60 intercepts and 200 volumes: more than are looked at. Both look at the same, and take the table for the
    others."""
    rng = np.random.default_rng(4)
    volumes = {f"v{n:03}": hu(n)[::2, ::2, ::4] for n in range(200)}
    dataset = data_set(tmp_path / "data", volumes)
    intercepts = np.where(rng.random(200) < 0.2, -1024, -1024 - rng.integers(60, size=200)).tolist()
    rows = zip(volumes, intercepts, strict=True)
    set_meta(dataset, {study: (1, intercept, "[0.9, 0.9]", 1.2) for study, intercept in rows})
    out = program.materialize(dataset, tmp_path / "out")
    found = groups(out)
    assert sum(group["looked_at"] for group in found) == 48 and len({group["rescale"] for group in found}) == 2
    assert max(group["looked_at"] for group in found) == 8
    assert_same(volumes_of(from_shards(out)), volumes_of(lambda: in_order(from_npz(dataset))))


def test_arrays_of_every_dialect_in_one_data_set(program: Program, tmp_path: Path) -> None:
    """The manifest says which sample is of which, also through a mount of shards."""
    require_fuse()
    head_hu = hu()
    arrays = {
        "native.npz": {"data": head_hu + 1024},
        "hu.npz": {"volume": head_hu.astype(np.int16)},
        "normalized.npz": {"arr_0": (head_hu / 1000).clip(-1, 1).transpose(2, 0, 1).copy()},
    }
    dataset = write_dataset(tmp_path / "data", arrays)
    set_meta(dataset, {path.removesuffix(".npz"): (1, -1024, "[0.9, 0.9]", 1.2) for path in arrays})
    right = volumes_of(in_order(from_npz(dataset)))
    for kind in ("stored", "rescaled"):
        out = program.materialize(dataset, tmp_path / kind, "--volume", kind)
        listed = json.loads((out / "manifest.json").read_text())["shards"][0]["samples"]
        dialects = {sample["study_id"]: sample.get("dialect") for sample in listed}
        assert dialects == {"native": None, "hu": "hu", "normalized": "normalized"}
        with program.mounted(Stored(out)) as point:
            for folder in (out, point):
                assert_same(volumes_of(from_shards(folder)), right, within=HALF_HU)
    other = write_dataset(tmp_path / "other", {"v.npz": {"scan": head_hu}})
    out = program.materialize(other, tmp_path / "unknown")
    with pytest.raises(LoaderError, match="what does its array hold"):
        volumes_of(from_shards(out))
    with pytest.raises(LoaderError, match="what does the array 'scan'"):
        from_npz(other)[0]


def test_an_arr_0_of_hu_is_no_arr_0_of_clip(program: Program, tmp_path: Path) -> None:
    """Its values say so: an error where voxels would be made of them, a warning where readers make them."""
    dataset = write_dataset(tmp_path / "data", {"v.npz": {"arr_0": hu()}})
    set_meta(dataset, {"v": (1, -1024, "[0.9, 0.9]", 1.2)})
    flags = [*dataset.flags(), "--output-dir", tmp_path / "out"]
    message = program.refuses("materialize", *flags, "--volume", "preprocessed")
    assert "HU / 1000" in message and "--dialect" in message
    warning = program.run("materialize", *flags).stderr
    assert "HU / 1000" in warning and "--dialect" in warning
    for read in (from_shards(tmp_path / "out"), lambda: in_order(from_npz(dataset))):
        with pytest.raises(LoaderError, match="HU / 1000"):  # clipped to [-1, 1] they would be no picture
            volumes_of(read)
    found = program.run("init", dataset.folder, "--yes", "--output", tmp_path / "ctwds.toml").stdout
    assert "HU / 1000" in found and '# dialect = "native"' in (tmp_path / "ctwds.toml").read_text()
    shutil.rmtree(tmp_path / "out")
    assert "HU / 1000" not in program.run("materialize", *flags, "--dialect", "hu").stderr
