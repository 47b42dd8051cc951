from projector.domain.messages import Message


def test_the_type_of_a_message_is_what_follows_endpoint_in_its_subject() -> None:
    message = Message(1, 1, "kaa.v1.events.kpc.endpoint.connectivity.connected", b"")
    assert message.type == "connectivity.connected"
    assert message._replace(subject="kaa.v1.events.a.endpoint.b.endpoint.c").type == "b.endpoint.c"
