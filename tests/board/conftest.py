"""Tests that go on from each other end with the first that fails."""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and report.when != "teardown":
        item.session.stash.setdefault(FAILED, set()).add(item.path)
    return report


FAILED = pytest.StashKey[set]()


def pytest_runtest_setup(item):
    if item.path in item.session.stash.get(FAILED, ()):
        pytest.fail("a test before this one failed", pytrace=False)
