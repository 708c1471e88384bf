from tests.rlvr.conftest import *  # noqa: F403 (fixtures)
