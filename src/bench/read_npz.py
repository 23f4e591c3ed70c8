# Reads volumes as a training script would that has only NumPy. Given a dtype and the array's name (or none) on the
# command line, and one path a line, it answers "ready", waits for a line, reads, and answers with the number of voxels.
import sys

import numpy as np

dtype, array = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
paths = [line.rstrip("\n") for line in iter(sys.stdin.readline, "\n")]
print("ready", flush=True)
sys.stdin.readline()
voxels = 0
for path in paths:
    if path.endswith(".npy"):
        voxels += np.load(path).astype(np.float16).size
        continue
    with np.load(path) as arrays:
        names = [array] if array else [name for name in ("data", "volume", "arr_0") if name in arrays] or arrays.files
        voxels += arrays[names[0]].astype(dtype).size
print(voxels, flush=True)
