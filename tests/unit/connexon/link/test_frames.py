import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.errors import Incompatible
from connexon.identity.roster import Protocol
from connexon.link import frames
from connexon.link.frames import CHUNK_SIZE, Assembler, Parcel, ParcelRefused, agree, pieces
from connexon.v1 import link_pb2

QUERY, ANSWER = link_pb2.PARCEL_KIND_QUERY, link_pb2.PARCEL_KIND_ANSWER


def _chunk(**fields: object) -> link_pb2.Chunk:
    return link_pb2.Chunk(**{"query_id": "q", "kind": QUERY, "total_size": 4, "data": b"ab", **fields})  # type: ignore[arg-type]


class TestParcels:
    @given(st.data())
    def test_interleaved_parcels_arrive_whole(self, data: st.DataObject) -> None:
        sizes = data.draw(st.lists(st.integers(0, 3 * CHUNK_SIZE), min_size=1, max_size=5))
        sent = [
            Parcel(f"query-{number}", ANSWER if number % 2 else QUERY, bytes([number]) * size, f"trace-{number}")
            for number, size in enumerate(sizes)
        ]
        waiting = [list(pieces(p.query_id, p.kind, p.body, traceparent=p.traceparent)) for p in sent]
        assembler, arrived = Assembler(), []
        while any(waiting):
            queue = data.draw(st.sampled_from([queue for queue in waiting if queue]))
            parcel = assembler.add(queue.pop(0))
            assert (parcel is None) == bool(queue)
            if parcel is not None:
                arrived.append(parcel)
        assert sorted(arrived, key=lambda parcel: parcel.query_id) == sent

    def test_no_frame_is_larger_than_the_link_allows(self) -> None:
        body = bytes(3 * CHUNK_SIZE + 1)
        cut = list(pieces("x" * 64, ANSWER, body, traceparent="t" * 55))
        assert [len(chunk.data) for chunk in cut] == [CHUNK_SIZE, CHUNK_SIZE, CHUNK_SIZE, 1]
        assert all(link_pb2.AttachRequest(chunk=c).ByteSize() < frames.MAXIMUM_FRAME for c in cut)
        assert [bool(chunk.traceparent) for chunk in cut] == [True, False, False, False]

    def test_an_empty_body_is_one_piece(self) -> None:
        (only,) = pieces("q", QUERY, b"")
        assert Assembler().add(only) == Parcel("q", QUERY, b"", "")

    def test_a_query_and_its_answer_do_not_mix(self) -> None:
        assembler = Assembler()
        assert assembler.add(_chunk()) is None
        assert assembler.add(_chunk(kind=ANSWER)) is None
        assert assembler.add(_chunk(offset=2, data=b"cd")) == Parcel("q", QUERY, b"abcd", "")

    def test_a_parcel_begun_again_starts_anew(self) -> None:
        assembler = Assembler()
        assert assembler.add(_chunk()) is None
        assert assembler.add(_chunk(data=b"xy")) is None
        assert assembler.add(_chunk(offset=2, data=b"z!")) == Parcel("q", QUERY, b"xyz!", "")

    @pytest.mark.parametrize(
        "second",
        [
            _chunk(offset=1, data=b"bc"),
            _chunk(offset=3, data=b"d"),
            _chunk(offset=2, data=b"cd", total_size=5),
            _chunk(offset=2, data=b"cde"),
            _chunk(offset=2, data=b""),
            _chunk(offset=2, data=b"cd", query_id="other"),
            _chunk(offset=2, data=b"cd", kind=ANSWER),
            _chunk(offset=2**64 - 1, data=b"cd"),
        ],
        ids=["overlap", "gap", "other size", "too much", "empty", "other query", "other kind", "far away"],
    )
    def test_a_second_piece_that_does_not_fit_is_refused(self, second: link_pb2.Chunk) -> None:
        assembler = Assembler()
        assembler.add(_chunk())
        with pytest.raises(ParcelRefused) as caught:
            assembler.add(second)
        assert caught.value.code == "link.bad_parcel"

    @pytest.mark.parametrize(
        "first",
        [
            link_pb2.Chunk(),
            _chunk(kind=0),
            _chunk(kind=7),
            _chunk(kind=-1),
            _chunk(query_id=""),
            _chunk(query_id="x" * 65),
            _chunk(traceparent="t" * 129),
            _chunk(total_size=1),
            _chunk(total_size=0),
            _chunk(data=b""),
            _chunk(total_size=frames.MAXIMUM_BODY + 1),
            _chunk(total_size=2**64 - 1),
            _chunk(total_size=CHUNK_SIZE + 1, data=bytes(CHUNK_SIZE + 1)),
            _chunk(offset=2),
        ],
        ids=str,
    )
    def test_a_first_piece_that_makes_no_sense_is_refused(self, first: link_pb2.Chunk) -> None:
        with pytest.raises(ParcelRefused):
            Assembler().add(first)

    def test_a_peer_cannot_open_parcels_without_end(self) -> None:
        assembler = Assembler()
        for number in range(frames.MAXIMUM_OPEN_PARCELS):
            assembler.add(_chunk(query_id=f"query-{number}"))
        with pytest.raises(ParcelRefused, match="Too many"):
            assembler.add(_chunk(query_id="one-more"))
        assert assembler.add(_chunk(query_id="query-0", offset=2, data=b"cd")) is not None
        assert assembler.add(_chunk(query_id="one-more")) is None

    def test_a_peer_cannot_fill_the_memory_with_parcels_of_the_largest_size(self) -> None:
        assembler = Assembler()
        allowed = frames.MAXIMUM_OPEN_BYTES // frames.MAXIMUM_BODY
        for number in range(allowed):
            assembler.add(_chunk(query_id=f"query-{number}", total_size=frames.MAXIMUM_BODY))
        with pytest.raises(ParcelRefused, match="Too many"):
            assembler.add(_chunk(query_id="one-more"))
        # The same parcel begun again is not counted twice.
        assert assembler.add(_chunk(query_id="query-0", total_size=frames.MAXIMUM_BODY)) is None

    def test_the_limit_of_a_body_can_be_set_lower(self) -> None:
        with pytest.raises(ParcelRefused, match="at most 3"):
            Assembler(maximum_body=3).add(_chunk())


class TestVersions:
    @pytest.mark.parametrize(
        ("theirs", "ours", "agreed"),
        [
            ((1, 0), (1, 0), (1, 0)),
            ((1, 1), (1, 0), (1, 0)),
            ((1, 0), (1, 1), (1, 0)),
            ((1, 5), (1, 4), (1, 4)),
            ((2, 3), (2, 3), (2, 3)),
        ],
    )
    def test_neighbours_work_together_at_the_older_version(
        self, theirs: tuple[int, int], ours: tuple[int, int], agreed: tuple[int, int]
    ) -> None:
        assert agree(Protocol(*theirs), ours=Protocol(*ours)) == Protocol(*agreed)

    @pytest.mark.parametrize(
        ("theirs", "ours", "upgrade"),
        [
            ((1, 0), (1, 2), "The node must be upgraded"),
            ((1, 3), (1, 1), "The hub must be upgraded"),
            ((1, 9), (2, 0), "The node must be upgraded"),
            ((2, 0), (1, 0), "The hub must be upgraded"),
            ((0, 0), (1, 0), "The node must be upgraded"),
            ((2**32 - 1, 2**32 - 1), (1, 0), "The hub must be upgraded"),
        ],
    )
    def test_strangers_are_told_who_must_upgrade(
        self, theirs: tuple[int, int], ours: tuple[int, int], upgrade: str
    ) -> None:
        with pytest.raises(Incompatible, match=upgrade) as caught:
            agree(Protocol(*theirs), ours=Protocol(*ours))
        assert caught.value.code == "link.version_unsupported"

    def test_the_federation_may_retire_a_version(self) -> None:
        with pytest.raises(Incompatible, match=r"no longer speaks version 1\.1; upgrade to 1\.2"):
            agree(Protocol(1, 1), ours=Protocol(1, 2), lowest=Protocol(1, 2))

    def test_this_software_agrees_with_itself(self) -> None:
        assert agree(frames.PROTOCOL) == frames.PROTOCOL
