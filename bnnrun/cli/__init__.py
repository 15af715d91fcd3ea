"""The command line: verbs before Hydra. With config.py the only place that knows Hydra."""
