"""The settings of tasks, one small file a task; each is a frozen dataclass whose fields are the task's keys."""
