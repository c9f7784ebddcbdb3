"""Helpers without a model: environment, files, configs, command lines."""
