import pytest

from ffaa.data.faces import detector
from ffaa.data.forge.base import find_points


@pytest.fixture(scope="session")
def faces(hopper, astronaut):
    """The two portraits' faces: Hopper, then the astronaut."""
    return [find_points(photo, max(detector()(photo), key=lambda d: d.score).box) for photo in (hopper, astronaut)]
