"""Jobs of a real Slurm: arrays that convert together, tasks that are cancelled, out of time or out of memory, and
mounts that a node has no more when their job has ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import FaultyFolder, faulty_folder
from harness import Program, files_in, require_fuse, shards, wait_until
from make_dataset import Dataset
from slurm import Cluster, cluster, require_slurm
from small_datasets import noise_dataset

CONVERT = Path(__file__).resolve().parents[2] / "contrib" / "convert.sbatch"
PARTS = 8
TOML = """
data_folder = "{0.folder}"
reports_file = "{0.reports}"
meta_file = "{0.meta}"
labels_file = "{0.labels}"
samples_per_shard = 1
"""


class Desk:
    """A folder with `ctwds.toml`, in which jobs are submitted; the volumes are on a file system that can wait."""

    def __init__(self, program: Program, slurm: Cluster, folder: FaultyFolder, base: Path, right: Path) -> None:
        self.program = program
        self.slurm = slurm
        self.folder = folder
        self.base = base
        self.right = right
        self.job_flags = [f"--chdir={base}", f"--export=ALL,PATH={program.path.parent}:{os.environ['PATH']}"]

    def submit(self, *arguments: object) -> str:
        """A job in this folder."""
        return self.slurm.submit(*self.job_flags, *arguments)

    def convert(self, out: Path, *flags: object) -> str:
        """Jobs that convert the data set into `out`."""
        log = f"--output={self.base}/{out.name}-%a.log"
        return self.submit(log, "--mem=300", *flags, CONVERT, out)

    def log(self, out: Path, task: int) -> str:
        """What a task of [`convert`] printed."""
        return (self.base / f"{out.name}-{task}.log").read_text()

    def script(self, *lines: str) -> Path:
        """A batch file."""
        path = self.base / f"job-{len(list(self.base.iterdir()))}.sh"
        path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
        return path

    def assert_merged(self, out: Path) -> None:
        """The parts make what one run makes."""
        self.program.run("manifest", "merge", out)
        found = {name: value for name, value in files_in(out).items() if not name.startswith("manifest-")}
        assert found == files_in(self.right)

    def when_read(self, name: str, act: Callable[[], object]) -> None:
        """Call `act` once, while whoever reads the volume waits."""
        acted: list[str] = []

        def on_read(read: str) -> None:
            if read == name and not acted:
                acted.append(read)
                act()

        self.folder.on_read = on_read


@pytest.fixture(scope="module")
def desk(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Twenty volumes, a shard each."""
    require_slurm()
    require_fuse()
    base = tmp_path_factory.mktemp("desk")
    data: Dataset = noise_dataset(tmp_path_factory.mktemp("data"), 20, (8, 8, 8))
    with faulty_folder({path.name: path.read_bytes() for path in data.volumes()}) as folder:
        far = replace(data, folder=folder.point)
        (base / "ctwds.toml").write_text(TOML.format(far))
        right = program.materialize(far, base / "right", "--samples-per-shard", 1)
        program.run("plan", cwd=base)  # the jobs read no volume to plan it again
        with cluster(tmp_path_factory.mktemp("slurm")) as slurm:
            yield Desk(program, slurm, folder, base, right)


@pytest.mark.parametrize("array", ["0-7", "0-7%2"])
def test_an_array(desk: Desk, array: str) -> None:
    """The recipe as it is, whatever number of its tasks runs at a time."""
    out = desk.base / f"array-{len(array)}"
    states = desk.slurm.wait(desk.convert(out, f"--array={array}"))
    assert states == {str(task): "COMPLETED" for task in range(PARTS)}
    for task in range(PARTS):
        assert f"Part {task} of the parts 0 to 7, by SLURM_ARRAY_TASK_ID" in desk.log(out, task)
    desk.assert_merged(out)


@pytest.mark.parametrize("array", ["1-8", "0-8", "8"])
def test_a_wrong_array(desk: Desk, array: str) -> None:
    """Every task refuses at once: none makes a part of what cannot be finished."""
    out = desk.base / f"wrong-{array}"
    states = desk.slurm.wait(desk.convert(out, f"--array={array}"))
    assert set(states.values()) == {"FAILED"}
    for task in map(int, states):
        assert "--array=0-7" in desk.log(out, task) and "SLURM_ARRAY_TASK_" in desk.log(out, task)
    assert not out.exists()


def test_a_task_that_is_cancelled(desk: Desk) -> None:
    """It says how to go on, and leaves no half file; submitted again by its number, it is the part that it was."""
    out = desk.base / "cancelled"
    jobs: list[str] = []

    def cancel() -> None:
        wait_until(lambda: bool(jobs), "the job has a number")
        desk.slurm.run("scancel", f"{jobs[0]}_3")
        time.sleep(1)  # the program has the signal

    desk.when_read("v11.npz", cancel)
    jobs.append(desk.convert(out, "--array=0-7"))
    states = desk.slurm.wait(jobs[0])
    assert states.pop("3") in ("CANCELLED", "FAILED") and set(states.values()) == {"COMPLETED"}, states
    assert "interrupted" in desk.log(out, 3) and "same command" in desk.log(out, 3)
    assert not list(out.glob("*.partial")) and len(shards(out)) < 20
    refused = desk.program.refuses("manifest", "merge", out)
    assert "part 3/8" in refused
    assert desk.slurm.wait(desk.convert(out, "--array=3")) == {"3": "COMPLETED"}
    desk.assert_merged(out)


def job_of_run(desk: Desk, name: str, command: str) -> tuple[Path, list[object]]:
    """A job that mounts for a command, which first lists the shards into a file; the file, and its arguments."""
    listed = desk.base / f"{name}.listed"
    script = desk.script(
        f"exec ctwds-fs run --at /tmp/ctwds-test-{os.getpid()}-{name}/shards -- "
        f"sh -c 'ls \"$1\" > {listed}; {command}' sh /tmp/ctwds-test-{os.getpid()}-{name}/shards"
    )
    return listed, [f"--output={desk.base}/{name}.log", script]


def assert_nothing_is_left(desk: Desk, name: str) -> None:
    """No mount, no process, no folder; the next job of the same name can have the folder."""
    wait_until(lambda: not desk.slurm.processes(desk.program.path), "all processes of the program have ended")
    assert desk.slurm.mounts() == []
    folder = Path(f"/tmp/ctwds-test-{os.getpid()}-{name}")
    listed, arguments = job_of_run(desk, name, "true")
    listed.unlink(missing_ok=True)
    assert desk.slurm.wait(desk.submit("--mem=300", *arguments)) == {"": "COMPLETED"}
    assert "shard-000019.tar" in listed.read_text()
    assert not folder.exists() or not any(folder.iterdir())
    if folder.exists():
        folder.rmdir()


def test_a_mount_of_a_cancelled_job(desk: Desk) -> None:
    """The training gets the signal, and the mount ends with it."""
    listed, arguments = job_of_run(desk, "cancel", 'trap "echo has the signal; exit 9" TERM; sleep 300 & wait')
    job = desk.submit("--mem=300", *arguments)
    wait_until(lambda: listed.exists() and "shard-000019.tar" in listed.read_text(), "the training runs", 60)
    desk.slurm.run("scancel", job)
    desk.slurm.wait(job)
    assert "has the signal" in (desk.base / "cancel.log").read_text()
    assert_nothing_is_left(desk, "cancel")


def test_the_recipe_for_several_nodes(desk: Desk) -> None:
    """On one, with two processes: each is a rank of torchrun's, and sees the mount. Debian's PyTorch 1.13 cannot start
    torchrun with Python 3.11."""
    pythons = [CONVERT.parents[1] / name / "bin" / "python" for name in (".venv-frameworks", ".venv-streams")]
    python = next((path for path in pythons if path.exists()), None)
    if python is None:
        pytest.skip("PyTorch of today is 1.5 GB: scripts/setup.sh --frameworks installs it")
    (desk.base / "train.py").write_text(
        "import os, sys\n"
        "print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'], len(os.listdir(sys.argv[1])))\n"
    )
    text = (CONVERT.parent / "train-nodes.sbatch").read_text()
    assert "readonly PROCESSES=1 " in text
    script = desk.script(*text.replace("readonly PROCESSES=1 ", "readonly PROCESSES=2 ").splitlines()[1:])
    (desk.base / "bin").mkdir()
    (desk.base / "bin" / "python").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (desk.base / "bin" / "python").chmod(0o755)
    flags = [f"--output={desk.base}/nodes.log", "--nodes=1", "--mem=1500"]
    job = desk.submit(
        f"--export=ALL,PATH={desk.base}/bin:{desk.program.path.parent}:{os.environ['PATH']}", *flags, script
    )
    states = desk.slurm.wait(job, 120)
    log = (desk.base / "nodes.log").read_text()
    assert states == {"": "COMPLETED"}, log
    assert all(f"rank {rank} of 2 " in log for rank in range(2)), log
    wait_until(lambda: not desk.slurm.processes(desk.program.path), "all processes of the program have ended")
    assert desk.slurm.mounts() == []


def test_a_mount_of_a_job_out_of_memory(desk: Desk) -> None:
    """The kernel kills the training; `run` says so and ends the mount."""
    _, arguments = job_of_run(desk, "memory", 'exec python3 -c "x = bytes(1) * (1 << 30)"')
    states = desk.slurm.wait(desk.submit("--mem=200", *arguments))
    assert states[""] in ("OUT_OF_MEMORY", "FAILED"), states
    assert "memory" in (desk.base / "memory.log").read_text()
    assert_nothing_is_left(desk, "memory")


def test_out_of_time(desk: Desk) -> None:
    """A conversion and a mount at the time limit, which is a minute at least. The conversion waits for its storage, so
    that SIGTERM does not end it: Slurm kills it, and the next one goes on."""
    out = desk.base / "time"
    jobs: list[str] = []

    def hold() -> None:
        wait_until(lambda: len(jobs) == 1, "the job has a number")
        wait_until(lambda: desk.slurm.states(jobs[0])["3"] != "RUNNING", "its time is up", 150)

    desk.when_read("v11.npz", hold)
    jobs.append(desk.convert(out, "--array=3", "--time=1"))
    listed, arguments = job_of_run(desk, "time", "sleep 300")
    mounted = desk.submit("--mem=300", "--time=1", *arguments)
    assert desk.slurm.wait(mounted, 150)[""] in ("TIMEOUT", "FAILED")
    assert "shard-000019.tar" in listed.read_text()
    assert desk.slurm.wait(jobs[0], 60) == {"3": "TIMEOUT"}
    assert desk.slurm.wait(desk.convert(out, "--array=0-7")) == {str(task): "COMPLETED" for task in range(PARTS)}
    desk.assert_merged(out)
    assert_nothing_is_left(desk, "time")


def test_a_task_out_of_memory(desk: Desk) -> None:
    """The kernel kills the conversion for the memory that its job has filled; with more, the same task goes on."""
    out, filled = desk.base / "killed", desk.base / "fill"
    script = desk.script(
        f"(until [ -e {filled} ]; do sleep 0.1; done; exec python3 -c 'x = bytes(1) * (1 << 30)') &",
        "echo 1000 > /proc/self/oom_score_adj  # the kernel takes this one first",
        f"exec ctwds-fs materialize --output-dir {out} --partition auto/8",
    )

    def fill() -> None:
        filled.touch()
        wait_until(lambda: not desk.slurm.processes(desk.program.path), "the conversion has been killed", 60)

    desk.when_read("v11.npz", fill)
    states = desk.slurm.wait(desk.submit(f"--output={desk.base}/killed.log", "--array=3", "--mem=60", script))
    assert states == {"3": "OUT_OF_MEMORY"}
    assert not (out / "manifest-3-of-8.json").exists()
    assert desk.slurm.wait(desk.convert(out, "--array=0-7")) == {str(task): "COMPLETED" for task in range(PARTS)}
    desk.assert_merged(out)


def test_cores_and_memory_of_a_job(desk: Desk) -> None:
    """Threads and the memory for volumes follow what the job was given, not what the node has."""
    found = {}
    for cores in (1, 2):
        script = desk.script(
            "exec ctwds-fs run --at /tmp/ctwds-test-$SLURM_JOB_ID/shards -- "
            "sh -c 'ctwds-fs status --json /tmp/ctwds-test-$SLURM_JOB_ID/shards'"
        )
        output = desk.base / f"cores-{cores}.json"
        flags = [f"--output={output}", f"--error={desk.base}/cores.log", f"--cpus-per-task={cores}", "--mem=400"]
        assert desk.slurm.wait(desk.submit(*flags, script)) == {"": "COMPLETED"}
        found[cores] = json.loads(output.read_text())
    for cores, status in found.items():
        assert status["stats"]["decoder_threads"] == cores, status
        assert 50 << 20 < status["stats"]["cache_limit"] <= 100 << 20, status
