import pytest

from tests.kernels.check import mend_interpreter


@pytest.fixture(autouse=True)
def mended(monkeypatch):
    mend_interpreter(monkeypatch)
