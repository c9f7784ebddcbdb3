"""Hooks, optimizer constructors and processes of a run."""
