import pytest

from ffaa.errors import UsageError
from ffaa.serve.settings import ServeSettings
from ffaa.settings import load_yaml


def test_yaml_fills_it_and_a_misspelt_key_is_told(tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_text("queue: 5\njobs: here\norigins: ['https://a.example']\n")
    found = load_yaml(path, ServeSettings)
    assert (found.queue, str(found.jobs), found.origins) == (5, "here", ["https://a.example"])
    path.write_text("quue: 5\n")
    with pytest.raises(UsageError, match="did you mean 'queue'"):
        load_yaml(path, ServeSettings)


def test_it_listens_to_this_machine_alone_by_default():
    found = ServeSettings()
    assert found.loopback
    assert (found.allow_urls, found.jobs, found.origins, found.keys) == (False, None, [], None)
    assert "localhost" in found.allowed_hosts


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("::1", True), ("127.3.2.1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
     ("a.b", False)],
)  # fmt: skip
def test_what_is_this_machine_alone(host, local):
    found = ServeSettings(host=host)
    assert found.loopback is local
    assert bool(found.allowed_hosts) is local
    assert ServeSettings(host=host, hosts=["Me.Example"]).allowed_hosts == {"me.example"}


def test_the_limits_of_photos():
    found = ServeSettings(max_bytes=5000, max_pixels=1000, work_pixels=500).limits
    assert (found.max_bytes, found.max_pixels, found.work_pixels) == (5000, 1000, 500)
