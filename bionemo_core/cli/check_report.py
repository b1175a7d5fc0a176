"""The table of the kit's checks, as `bionemo-run check-plugin` prints it: a pytest plugin."""

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from bionemo_core.errors import Stopped

CAPABILITY_OF = {
    "test_packed_equals_unpacked": "packing",
    "test_two_ranks_equal_one": "tensor_parallel",
    "test_two_stages_equal_one": "pipeline_parallel",
    "test_decoding_is_exact": "decoding",
    "test_states_are_of_one_sequence": "embedding",
    "test_model_resumes": "exact_resume",
}
"""The capability that a test checks; a model that doesn't declare it may do without."""

TOO_LARGE = "too many for a quick test"
NO_COMPONENT = "got empty parameter set"


class KitReport:
    """Prints a line for each check as soon as it is done, and keeps what failed.

    Args:
        write: prints a text.
    """

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        self.num_checks = 0
        self.failed: list[str] = []
        self._skipped: set[str] = set()
        self._removable: dict[str, set[str]] = {}
        self._stopped: Stopped | None = None

    def pytest_runtest_makereport(self, item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
        """Stop at a signal, which pytest would report as a failure of the test."""
        if call.excinfo is not None and isinstance(call.excinfo.value, Stopped):
            self._stopped = call.excinfo.value
            item.session.shouldstop = "a signal"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the outcome of a check."""
        if report.when != "call" and report.passed:
            return
        test, _, component = report.location[2].partition(".")[2].partition("[")
        words, component = test.removeprefix("test_").replace("_", " "), component.removesuffix("]")
        message = _message_of(report)
        if NO_COMPONENT in message:
            return  # the plugin has no component of this kind
        if report.skipped or TOO_LARGE in message:
            self._skip(words, component, message)
            return
        self.num_checks += 1
        self._line("FAILED" if report.failed else "ok", words, component, message)
        if report.failed:
            self.failed.append(words)
            if capability := _removable(test, message):
                self._removable.setdefault(capability, set()).add(component)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print why the checks cannot be collected."""
        if report.failed:
            self.num_checks += 1
            self.failed.append("collecting")
            self._line("FAILED", "the checks are collected", "", str(report.longrepr))

    def _skip(self, words: str, component: str, message: str) -> None:
        if message not in self._skipped:  # one line for all checks of a model that is too large
            reason = "it starts two processes; give --slow to run it" if "slow" in message else message
            self._line("skipped", words, component, reason.removeprefix("Skipped: "))
        self._skipped.add(message)

    def _line(self, outcome: str, words: str, component: str, message: str) -> None:
        self._write(f"{outcome:<8} {words:<36} {component}".rstrip() + "\n")
        if outcome != "ok":
            self._write(textwrap.indent(textwrap.fill(message, 110, break_long_words=False), "         ") + "\n")

    def summary(self) -> str:
        """Return how many checks passed, failed and were skipped."""
        passed = self.num_checks - len(self.failed)
        return f"{passed} checks passed, {len(self.failed)} failed, {len(self._skipped)} skipped\n"

    def advice(self) -> str:
        """Return what to remove from the declared capabilities, or how to go on."""
        removals = [
            f"Remove {capability!r} from the capabilities of {', '.join(sorted(models))}, or correct the model."
            for capability, models in self._removable.items()
        ]
        return " ".join(removals) or "The text below each FAILED line says what to change."

    def raise_if_stopped(self) -> None:
        """Raise the signal that stopped the checks.

        Raises:
            Stopped: a signal did.
        """
        if self._stopped is not None:
            raise self._stopped


def _message_of(report: pytest.TestReport) -> str:
    """Return the message of a check's failure, or the reason why it was skipped."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(getattr(crash, "message", report.longrepr or ""))
    return message.partition("ConformanceError: ")[2] or message


def _removable(test: str, message: str) -> str:
    """Return the capability that a model may stop declaring, for a failed test with this message."""
    if test == "test_model_resumes" and "declares 'exact_resume'" not in message:
        return ""
    if test == "test_states_are_of_one_sequence" and ": packed" in message:
        return "packing"
    return CAPABILITY_OF.get(test, "")
