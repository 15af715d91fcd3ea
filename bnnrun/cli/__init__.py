"""The command line: verbs in front of Hydra. With config.py the only place that knows Hydra."""
