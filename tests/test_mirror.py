"""Tests are where their module is: `tests/view/test_table.py` tests `view/table.py`."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "tsfc"
ELSEWHERE = {
    "core/clock.py": "core/watchdog/test_clock.py",
    "core/faults.py": "core/metrics/test_families.py",
    "core/report.py": "core/test_golden.py",
    "core/metrics/lint.py": "core/metrics/test_exposition.py",
    "core/tailscale/ping.py": "core/test_keepalive.py",
    "core/watchdog/decision.py": "core/watchdog/test_table.py",
    "core/watchdog/effects.py": "core/watchdog/test_table.py",
    "core/watchdog/events.py": "core/watchdog/test_table.py",
    "core/watchdog/lines.py": "core/watchdog/test_table.py",
    "core/watchdog/policy.py": "core/watchdog/test_table.py",
    "core/watchdog/remedy.py": "core/watchdog/test_table.py",
    "core/watchdog/run.py": "shell/test_watchdog.py",
    "core/watchdog/state.py": "core/watchdog/test_table.py",
    "core/watchdog/step.py": "core/watchdog/test_table.py",
    "core/watchdog/threshold.py": "core/watchdog/test_table.py",
    "core/watchdog/track.py": "core/watchdog/test_table.py",
}
"Modules without their own test file, each with the file that tests it."


def test_each_module_of_core_and_view_has_a_test_file() -> None:
    modules = [path.relative_to(SOURCE) for path in SOURCE.rglob("[a-z]*.py")]
    tests = {str(path): TESTS / path.with_name(f"test_{path.name}") for path in modules}
    missing = {module for module, test in tests.items() if not test.exists()}
    assert {module for module in missing if module.startswith(("core", "view"))} == set(ELSEWHERE)
    assert all((TESTS / test).exists() for test in ELSEWHERE.values())
