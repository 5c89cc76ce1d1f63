"""The bytes of answers, compared with what the generated messages read and write."""

from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from extproc.envoy.server import answers
from extproc.wire.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.actions import Continue, LocalReply

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-:", min_size=1, max_size=300)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=6)
REMOVED = st.lists(NAMES, max_size=4).map(tuple)
BODIES = st.binary(max_size=20_000)


def expected_mutation(common, action):
    common.SetInParent()
    for name, value in action.set_headers.items():
        option = common.header_mutation.set_headers.add(append_action="OVERWRITE_IF_EXISTS_OR_ADD")
        option.header.key, option.header.raw_value = name, value.encode()
    if action.remove_headers:
        common.header_mutation.remove_headers.extend(action.remove_headers)
    if action.body is not None:
        common.body_mutation.body = action.body
        option = common.header_mutation.set_headers.add(append_action="OVERWRITE_IF_EXISTS_OR_ADD")
        option.header.key, option.header.raw_value = "content-length", str(len(action.body)).encode()
    common.clear_route_cache = action.reroute


def clusters_of(message):
    """The order of clusters, which is taken out of the message."""
    metadata = MessageToDict(message.dynamic_metadata)
    message.ClearField("dynamic_metadata")
    groups = metadata[contract.ORDER_NAMESPACE][contract.ORDER_KEY] if metadata else []
    return [cluster["cluster_name"] for group in groups for cluster in group["clusters"]]


@given(
    phase=st.sampled_from(["request_headers", "response_headers"]),
    headers=HEADERS,
    removed=REMOVED,
    read=st.booleans(),
    reroute=st.booleans(),
    order=st.lists(st.text("abc-", min_size=1), max_size=3).map(tuple),
)
def test_an_answer_to_headers_is_the_generated_message(phase, headers, removed, read, reroute, order):  # noqa: PLR0917
    action = Continue(headers, removed, None, reroute, order, read_answer=read)
    found = pb.ProcessingResponse.FromString(answers.headers(phase, action))
    assert clusters_of(found) == list(order)
    expected = pb.ProcessingResponse()
    expected_mutation(getattr(expected, phase).response, action)
    if read:
        mode = expected.mode_override
        mode.request_header_mode = mode.response_header_mode = mode.response_trailer_mode = mode.SEND
        mode.request_trailer_mode = mode.SKIP
        mode.request_body_mode, mode.response_body_mode = mode.BUFFERED, mode.FULL_DUPLEX_STREAMED
    assert found == expected


@given(
    headers=HEADERS,
    removed=REMOVED,
    body=st.none() | BODIES,
    reroute=st.booleans(),
    order=st.lists(st.text("abc-", min_size=1), max_size=3).map(tuple),
)
def test_an_answer_to_a_body_is_the_generated_message(headers, removed, body, reroute, order):
    action = Continue(headers, removed, body, reroute, order)
    found = pb.ProcessingResponse.FromString(answers.body(action))
    clusters = clusters_of(found)
    expected = pb.ProcessingResponse()
    expected_mutation(expected.request_body.response, action)
    assert clusters == list(order)
    assert found == expected


@given(data=BODIES, end=st.booleans())
def test_a_piece_of_an_answer_is_the_generated_message(data, end):
    expected = pb.ProcessingResponse()
    streamed = expected.response_body.response.body_mutation.streamed_response
    streamed.SetInParent()
    streamed.body, streamed.end_of_stream = data, end
    assert pb.ProcessingResponse.FromString(answers.piece(data, end)) == expected
    assert answers.piece(data, end) == expected.SerializeToString()


@given(headers=HEADERS, body=BODIES, status=st.integers(200, 599))
def test_an_answer_of_the_gateway_is_the_generated_message(headers, body, status):
    expected = pb.ProcessingResponse()
    immediate = expected.immediate_response
    immediate.status.code, immediate.body, immediate.details = status, body, "extproc_refused"
    for name, value in headers.items():
        option = immediate.headers.set_headers.add(append_action="OVERWRITE_IF_EXISTS_OR_ADD")
        option.header.key, option.header.raw_value = name, value.encode()
    immediate.headers.SetInParent()
    assert pb.ProcessingResponse.FromString(answers.immediate(LocalReply(status, body, headers, "refused"))) == expected


def test_a_word_of_more_time():
    message = pb.ProcessingResponse.FromString(answers.more_time(120.0))
    assert message.override_message_timeout.ToTimedelta().total_seconds() == 130
    assert message.WhichOneof("response") is None
