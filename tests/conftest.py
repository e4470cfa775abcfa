"""Puts this folder on the path: tests import their fakes as `fakes.engine` and so on."""
