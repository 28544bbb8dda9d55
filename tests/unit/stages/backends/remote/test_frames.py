"""Frames: what one end sends is what the other receives, and what is no frame is never taken for one."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonsai.stages.backends.remote.frames import LENGTHS, MOST_HEADER, ConnectionLost, pack, receive, send, unpack


class Pipe(io.BytesIO):
    pass


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=5), st.binary(max_size=2000))
def test_a_frame_arrives_as_it_was_sent(header: dict[str, object], body: bytes) -> None:
    pipe = Pipe()
    send(pipe, header, body)
    send(pipe, {"next": True})
    pipe.seek(0)
    assert receive(pipe) == (header, body)
    assert receive(pipe) == ({"next": True}, b"")


@given(st.integers(min_value=0, max_value=200))
def test_a_frame_that_was_cut_off_is_a_lost_connection(length: int) -> None:
    pipe = Pipe()
    send(pipe, {"verb": "run"}, b"x" * 100)
    whole = pipe.getvalue()
    if length < len(whole):
        with pytest.raises(ConnectionLost):
            receive(Pipe(whole[:length]))


@pytest.mark.parametrize(
    "sent",
    [
        b"Welcome to this board!\n" * 3,
        LENGTHS.pack(b"bons", MOST_HEADER + 1, 0),
        LENGTHS.pack(b"bons", 2, 0) + b"[]",
        LENGTHS.pack(b"bons", 2, 0) + b"{x",
    ],
)
def test_what_is_no_frame_is_a_lost_connection(sent: bytes) -> None:
    with pytest.raises(ConnectionLost, match="no message"):
        receive(Pipe(sent))


def test_arrays_of_any_kind_arrive_in_their_order() -> None:
    arrays = [np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2], np.array([[1, 2]], dtype=np.int64), np.zeros((0, 2), np.float32)]
    arrays += [np.full((1,), number, np.float32) for number in range(12)]
    for found, expected in zip(unpack(pack(arrays)), arrays, strict=True):
        assert np.array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert unpack(pack([])) == []


def test_what_are_no_arrays_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost, match="no arrays"):
        unpack(b"pickle")


def test_a_closed_pipe_is_a_lost_connection() -> None:
    pipe = Pipe()
    pipe.close()
    with pytest.raises(ConnectionLost):
        send(pipe, {})
    with pytest.raises(ConnectionLost):
        receive(pipe)
