"""Mutated files for every reader (mutate.py), and what must hold of whatever is read (invariants.py)."""
