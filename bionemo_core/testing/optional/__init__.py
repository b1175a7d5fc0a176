"""Checks of the components of optional hooks: schedules, loggers, oracles, file formats."""
