"""Drawings of the papers' figures: one module per kind, one style (bench.mplstyle, style.py).

A kind's module has `plot(view: View) -> Drawing`. It reads the artefact's table and what is stored beside its jobs,
never a paper's image, and leaves a visible "not run" panel where something is missing.
"""
