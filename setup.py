"""Where the packages lie; all else is in setup.cfg. experiments/ stands beside bench/ in a checkout and is installed as
bench.experiments, so that no `experiments` of a user's own hides it, nor it theirs."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["bench", "bench.*"]), "bench.experiments"], package_dir={"bench.experiments": "experiments"})
