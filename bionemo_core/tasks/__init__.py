"""The tasks, one file each: a function that takes a run specification and writes a folder or file of results.

To add a task, write its settings (`settings.py`), its function (a file of its own) and its line in `builtin.py`.
"""
