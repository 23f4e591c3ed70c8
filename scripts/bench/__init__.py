"""The benchmark suite; scripts/bench.sh prepares the machine and starts it.

`experiments` measures and knows no targets; `rows` says which experiment's samples make which row of the table;
`render` and `plot` show them. Between the two lies a JSON file with every raw sample, which can be shown again.
The readers that are measured are processes of their own (`worker`, started together by `crew`)."""


class Failure(Exception):
    """A measurement that could not be made; the others go on."""


class Absent(Failure):
    """What is measured against is not installed; this is no fault of the run."""
