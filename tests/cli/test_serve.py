"""`sam2-edge serve`: errors before the loop starts."""

from __future__ import annotations

import socket

import pytest

from sam2_edge import PromptError, Sam2EdgeError
from tests.helpers.cli import call


def test_an_address_in_use_is_an_error() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        message = rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use; choose another"
        with pytest.raises(Sam2EdgeError, match=message):
            call("serve", "synth", "--bundle", "nano", "--port", port)


def test_an_object_id_too_large_for_a_mask_is_rejected() -> None:
    with pytest.raises(PromptError, match="object id 300"):
        call("serve", "synth", "--bundle", "nano", "--object", 300, "--point", "5,5")
