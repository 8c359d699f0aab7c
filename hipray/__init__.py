"""hipray: osteoporosis models for hip radiographs, trained, served and scored on Ray."""

from importlib.metadata import PackageNotFoundError, version

RESEARCH_NOTICE = "Research software, not a medical device. Not for diagnosis or treatment."

try:
    __version__ = version("hipray")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
