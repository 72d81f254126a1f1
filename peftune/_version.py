"""The version of peftune."""

__version__ = "0.1.0"
