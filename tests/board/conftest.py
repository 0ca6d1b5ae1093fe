"""What the boards' tests share; those of one file go on from each other."""

import pytest

from tools.programs import release_program

from board import models, package

FAILED = pytest.StashKey[set]()


@pytest.fixture(scope="session")
def deb():
    """The package under test."""
    return package.find()


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """The model that is there first."""
    return _make("llama-a", 6, tmp_path_factory)


@pytest.fixture(scope="session")
def better(tmp_path_factory):
    """Another one."""
    return _make("llama-b", 2, tmp_path_factory)


def _make(name, layers, tmp_path_factory):
    programs = release_program("chaski-quantize"), release_program("chaski")
    return models.make(tmp_path_factory.mktemp("models"), name, layers, *programs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and report.when != "teardown":
        item.session.stash.setdefault(FAILED, set()).add(item.path)
    return report


def pytest_runtest_setup(item):
    if item.path in item.session.stash.get(FAILED, ()):
        pytest.fail("a test before this one failed", pytrace=False)
