from tests.lm.conftest import *  # noqa: F403 (fixtures)
