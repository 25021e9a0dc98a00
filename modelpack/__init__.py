"""modelpack: models to machines without a network."""

from modelpack.version import __version__

__all__ = ["__version__"]
