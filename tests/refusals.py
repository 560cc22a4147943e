"""What a refusal of a user's value must say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from poolproof.errors import InputError


def assert_refused(call: Callable[[], object], name: str) -> str:
    """Checks that the call raises one line with the argument's name, what is allowed and a remedy; gives it."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{name}: got "), message
    assert "\n" not in message, message
    assert "allowed" in message, message
    assert ";" in message, message
    return message
