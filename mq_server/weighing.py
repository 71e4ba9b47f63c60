"""Whether a message may be settled: its receipts and its lease decide."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from mq_server.delivery import Receipt
from mq_server.leases import Delivery
from mq_server.names import format_time
from mq_server.outcomes import DONE

_BY_LEASE = ("release", "extend")


class Order(NamedTuple):
    """What is to be done with one message, whose id is given as number and text. `token` is that of a lease, empty if
    the message was named by its id alone.
    """

    op: str
    identity: int
    id: str
    token: str = ""


def why_not(
    order: Order,
    reader: str,
    consumer: str,
    receipt: Receipt | None,
    passed: bool,
    delivery: Delivery | None,
    holder: str,
) -> str:
    """Why an order can't be carried out; empty when it can.

    Args:
        order: What is to be done.
        reader: Whose message it is.
        consumer: Who wants it done.
        receipt: What says that it was settled.
        passed: Whether the reader has sought past it.
        delivery: How far it had come on its way.
        holder: Who holds it now, if anybody does.
    """
    if order.op == "reopen":
        return "" if receipt or passed else "is unread already"
    if receipt:
        when = format_time(receipt.time_us)
        return f"{DONE[receipt.op]} already by {receipt.consumer} at {when}; reopen makes it unread again"
    if passed and order.op != "ack":
        return f"counts as read since {reader} sought past it; reopen makes it unread again"
    if delivery and delivery.settled:
        delivery = None  # of the time before it was reopened on another branch
    if delivery and order.token and order.token != delivery.token:
        return f"this lease is over: {f'{holder} holds it now' if holder else 'claim it again to go on'}"
    if delivery and holder:
        if order.token or holder == consumer:
            return ""
        return f"held by {holder} for another {ceil(delivery.deadline.left_s())} s"
    if order.token or (delivery and delivery.consumer == consumer) or order.op in _BY_LEASE:
        if delivery and delivery.consumer:
            return f"the lease of {delivery.consumer} has expired: claim it again to go on"
        return "nobody holds it: claim it first, with lease_s"
    return ""
