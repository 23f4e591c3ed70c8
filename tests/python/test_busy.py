"""What must answer at once answers while every decoder is stuck in a source that does not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from faulty import faulty_folder
from harness import Program, needs_root, require_fuse
from small_datasets import noise_dataset

# Asks for everything that needs no voxel; a hang is the deadline's failure, in a process that can be killed.
ASK = """
import json, os, sys
point = sys.argv[1]
names = sorted(os.listdir(point))
sizes = [os.stat(os.path.join(point, name)).st_size for name in names]
for name in names:
    if name.endswith(".tar"):
        os.close(os.open(os.path.join(point, name), os.O_RDONLY))
manifest = json.load(open(os.path.join(point, "manifest.json")))
stats = json.load(open(os.path.join(point, ".ctwds", "stats.json")))
print(json.dumps([names, sizes, manifest["num_shards"], stats["volumes_decoded"]]))
"""
DEADLINE = 20  # seconds; milliseconds are usual, but a hang is what this test is about


@needs_root
def test_metadata_while_every_decoder_is_stuck(program: Program, tmp_path: Path) -> None:
    """`stat`, `open`, `ls` and the status files; and once the source answers again, every reader gets its bytes."""
    require_fuse()
    dataset = noise_dataset(tmp_path, 6)
    right = program.materialize(dataset, tmp_path / "right", "--samples-per-shard", 1)
    files = {path.name: path.read_bytes() for path in dataset.folder.glob("*.npz")}
    gate, stuck = threading.Event(), threading.Event()

    def wait_at_the_gate(_name: str) -> None:
        stuck.set()
        assert gate.wait(120)

    with faulty_folder(files) as folder:
        flags = ("--samples-per-shard", 1, "--threads", 2)
        with program.mounted(replace(dataset, folder=folder.point), *flags) as point:
            folder.on_read = wait_at_the_gate
            shards = sorted(point.glob("*.tar"))
            readers = [subprocess.Popen(["cat", shard], stdout=subprocess.PIPE) for shard in shards]
            try:
                assert stuck.wait(DEADLINE), "no decoder came to the gate"
                command = [sys.executable, "-c", ASK, str(point)]
                asked = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
                names, sizes, count, _ = json.loads(asked.stdout)
                assert count == len(shards) == 6
                for shard in shards:
                    assert sizes[names.index(shard.name)] == (right / shard.name).stat().st_size
            except subprocess.TimeoutExpired:
                pytest.fail("the mount does not answer while its decoders are stuck")
            finally:
                gate.set()
                read = [reader.communicate(timeout=60)[0] for reader in readers]
            assert read == [(right / shard.name).read_bytes() for shard in shards]
