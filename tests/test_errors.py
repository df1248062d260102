"""Error messages are short and printable, whatever a file contains."""

from dpmesh.errors import LONGEST, InputError


def test_a_message_is_readable() -> None:
    short = InputError("is no number: 'é 人'", where="a.json", fix="Give one.")
    assert str(short) == "a.json: is no number: 'é 人'. Give one."
    hostile = InputError("asks for \x1b[31m\0\udc80", where="a.pkl")
    assert str(hostile) == "a.pkl: asks for \ufffd[31m\ufffd\ufffd"
    long = InputError("x" * 10**6, where="a.json", fix="Give another.")
    assert (
        len(str(long)) <= LONGEST and str(long).startswith("a.json: ") and str(long).endswith("Give another.")
    )
