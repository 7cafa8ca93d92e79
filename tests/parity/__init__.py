"""One file a system: how it lines up with its reference implementation. harness.py says what a file holds."""
