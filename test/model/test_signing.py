"""Key files: what is none is told, whatever OpenSSL makes of it."""

import pytest

from ssql_ros.model.signing import read_private_key

# An Ed25519 key of which one bit says X448, whose keys are longer.
X448 = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VvBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""


def test_a_key_of_another_algorithm_that_is_too_short_for_it_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_text(X448)
    with pytest.raises(ValueError, match="expected an Ed25519 private key in PEM without a password"):
        read_private_key(path)
