"""The one place that knows modelpack's version."""

__version__ = "0.1.0"
