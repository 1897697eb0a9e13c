"""The language, the plan and the solving of builds: what pybuild does with a Dockerfile."""

__version__ = "0.1.0"
