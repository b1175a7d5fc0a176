"""What `task=` can be: one file a task, which takes a specification and leaves a folder or file of results.

To add a task, write its settings (`settings.py`), its function (a file of its own) and its line in `builtin.py`.
"""
