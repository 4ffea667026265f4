"""The command line: one file per verb, `main.py` puts them together.

Modules here import nothing heavy at their top, so that `ffaa --help` answers at once.
"""
