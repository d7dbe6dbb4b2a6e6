import pytest

from tests.helpers.launch.results import small_result


@pytest.fixture
def result():
    return small_result()
