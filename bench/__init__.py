"""bench: a benchmark harness for multimodal sentiment analysis."""

__version__ = "0.2.0.dev0"
