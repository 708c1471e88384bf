"""One whole run that all tests of the audit share. Those that change it copy it first."""

from __future__ import annotations

import pytest

from tests.rlvr.conftest import *  # noqa: F403 (fixtures)


@pytest.fixture(scope="session")
def whole(talker, tokenizer, tmp_path_factory):
    from tests.audit.test_audit import make_run, settings  # it imports this module's fixtures by name

    return make_run(talker, tokenizer, tmp_path_factory.mktemp("audited"), settings())
