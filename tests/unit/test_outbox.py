"""Sending to peers that read slowly or have gone."""

from festina.messages import Ping
from festina.runtime.outbox import LAST_WORDS_MAX, Outbox
from festina.runtime.transport import Delivery


class SlowLink:
    """Takes `room` more messages, then is full; `gone` peers are unreachable."""

    def __init__(self, room=0):
        self.room = room
        self.gone = False
        self.sent = []

    def send(self, message, peer):
        if self.gone:
            return Delivery.UNREACHABLE
        if len(self.sent) >= self.room:
            return Delivery.FULL
        self.sent.append(message)
        return Delivery.SENT


def messages(count):
    return [Ping(nonce) for nonce in range(count)]


def test_a_full_peer_is_lost_once_and_still_hears_everything_in_order():
    link = SlowLink(room=1)
    outbox = Outbox(link, patience_s=5.0)
    for message in messages(2):
        outbox.send(b"c", message, 0.0)
    outbox.retry(0.0)
    [(peer, error)] = outbox.lost()
    assert peer == b"c"
    assert error.code == "overloaded"
    assert error.retry_after_ms > 0
    for message in messages(4)[2:]:  # how its requests end
        outbox.send(b"c", message, 0.0)
    assert outbox.lost() == []
    link.room = 10
    outbox.retry(1.0)
    assert link.sent == messages(4)


def test_last_words_are_bounded_and_given_up_after_a_while():
    link = SlowLink()
    outbox = Outbox(link, patience_s=5.0)
    for message in messages(2 * LAST_WORDS_MAX):
        outbox.send(b"c", message, 0.0)
    outbox.retry(5.0)
    link.room = 2 * LAST_WORDS_MAX
    outbox.send(b"c", Ping(0), 6.0)
    assert link.sent == [Ping(0)]


def test_a_peer_that_has_gone_is_lost_without_an_error():
    link = SlowLink()
    link.gone = True
    outbox = Outbox(link, patience_s=5.0)
    outbox.send(b"c", Ping(0), 0.0)
    assert outbox.lost() == [(b"c", None)]
