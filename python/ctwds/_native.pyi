"""The extension module: the program's own decoders, in this process."""

__version__: str
