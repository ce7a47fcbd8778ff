"""What a check of the contract found: breaches in words, a report of all checks, and the error that carries it."""

from __future__ import annotations

from dataclasses import dataclass

from bayeswm.base.errors import BayeswmError


@dataclass(frozen=True)
class Breach:
    """One broken promise of the contract.

    Attributes
    ----------
    promise : str
        What every model promises.
    expected, got : str
        What that means here, and what came.
    cause : str
        The usual reason, and what to do about it.
    """

    promise: str
    expected: str
    got: str
    cause: str

    def __str__(self) -> str:
        return f"{self.promise}: expected {self.expected}, got {self.got}. Likely cause: {self.cause}."


@dataclass(frozen=True)
class CheckResult:
    """How one check went.

    Attributes
    ----------
    name : str
        Name of the check; what ``skip=`` takes.
    seconds : float
        How long it took.
    breaches : tuple of Breach
        What it found; nothing if the model keeps the promise.
    skipped : str
        Why it does not apply to this model, or nothing.
    """

    name: str
    seconds: float
    breaches: tuple[Breach, ...] = ()
    skipped: str = ""

    @property
    def status(self) -> str:
        """Either "passed", "failed" or "skipped"."""
        if self.breaches:
            return "failed"
        return "skipped" if self.skipped else "passed"


@dataclass(frozen=True)
class Report:
    """All checks of one model.

    Examples
    --------
    >>> print(Report("MyModel", (CheckResult("shapes", 0.1), CheckResult("saving", 0.0, skipped="cannot be saved"))))
    MyModel: 1 passed, 1 skipped, 0 failed in 0.1 s
      passed  shapes  0.10 s
      skipped saving  0.00 s  (cannot be saved)
    """

    model: str
    checks: tuple[CheckResult, ...]

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that found a breach."""
        return tuple(c for c in self.checks if c.status == "failed")

    @property
    def skipped(self) -> dict[str, str]:
        """Reasons of the checks that do not apply, by name."""
        return {c.name: c.skipped for c in self.checks if c.status == "skipped"}

    @property
    def seconds(self) -> float:
        """How long all checks took."""
        return sum(c.seconds for c in self.checks)

    def __str__(self) -> str:
        count = {s: sum(c.status == s for c in self.checks) for s in ("passed", "skipped", "failed")}
        lines = [f"{self.model}: " + ", ".join(f"{n} {s}" for s, n in count.items()) + f" in {self.seconds:.1f} s"]
        width = max((len(c.name) for c in self.checks), default=0)
        for c in self.checks:
            reason = f"  ({c.skipped})" if c.status == "skipped" else ""
            lines.append(f"  {c.status:<7} {c.name:<{width}}  {c.seconds:.2f} s{reason}")
        return "\n".join(lines)


class ContractError(BayeswmError, AssertionError):
    """A model breaks promises of the contract; the message lists all of them, ``report`` has every check."""

    def __init__(self, report: Report) -> None:
        self.report = report
        lines = [f"  [{c.name}] {breach}" for c in report.failed for breach in c.breaches]
        super().__init__(
            f"{report.model} breaks the contract of a model in {len(report.failed)} of {len(report.checks)} checks:\n"
            + "\n".join(lines)
        )


class NotApplicable(Exception):
    """Raised inside a check that makes no sense for this model, with the reason."""
