"""What other agents offer: whether this one can take it, and what it needs until then."""

from __future__ import annotations

from festina.engine.base import BLOCK_TOKENS, LoadedModel
from festina.errors import AgentLostError, OverloadedError, ProtocolError
from festina.messages import Handover, Offer, RequestState
from festina.runtime.protocol.agent_checks import (
    check_fits,
    check_generate,
    check_logprobs,
    tokenize,
)
from festina.runtime.protocol.agent_logprobs import check_moved
from festina.runtime.protocol.agent_models import Residency
from festina.runtime.protocol.agent_move_in import MoveIn
from festina.runtime.protocol.agent_transfers import Transfers
from festina.runtime.protocol.block_inbox import BlockInbox
from festina.types import Phase

WINDOW_BYTES = 32 * 1024 * 1024
WINDOW_BLOCKS_MAX = 64


def open_move(
    peer: bytes, offer: Offer, epoch: int, host: str, transfers: Transfers, now: float
) -> MoveIn:
    """Set aside what the request needs here.

    Args:
        peer: The source's connection.
        offer: What it offers.
        epoch: Of this agent.
        host: Names this agent's host; "" shares no memory.
        transfers: Puts requests into the books.
        now: Seconds.

    Raises:
        FestinaError: Why it cannot be taken.
    """
    residency, loaded = _check(offer, epoch, transfers)
    lane = transfers.scheduler.lanes[offer.generate.model]
    tokens = len(offer.generate.token_ids) + len(offer.state.output_ids)
    if lane.uncommitted_blocks() < lane.blocks_for(tokens + 1):
        raise OverloadedError("too few free KV blocks", field="model", retry_after_ms=1000)
    block_bytes = BLOCK_TOKENS * loaded.shape.kv_bytes_per_token
    window = max(1, min(WINDOW_BYTES // max(1, block_bytes), WINDOW_BLOCKS_MAX))
    move = MoveIn(
        offer=offer,
        peer=peer,
        number=transfers.serving.requests.new_number(),
        residency=residency,
        loaded=loaded,
        lane=lane,
        inbox=BlockInbox(window),
        window=window,
        shared=bool(offer.host) and offer.host == host,
        heard_at=now,
        output_ids=offer.state.output_ids,
    )
    transfers.pin(residency)
    phase = Phase.PREFILL if offer.method == "recompute" else Phase.DECODE
    transfers.open_account(move.number, offer.generate.model, phase, now)
    if offer.method == "recompute" and tokens > 1:
        move.ahead = move.sequence(now)
        move.ahead.token_ids.pop()
        move.ahead.ahead = True
        transfers.scheduler.add(move.ahead)
    return move


def check_handover(move: MoveIn, handover: Handover) -> None:
    """Whether it goes on from what was offered.

    Raises:
        ProtocolError: It does not.
    """
    output_ids, known = handover.state.output_ids, len(move.output_ids)
    if output_ids[:known] != move.output_ids:
        raise ProtocolError("another output", field="state.output_ids", expected="more of the same")
    _check_output(handover.state, move.offer.generate.max_tokens, move.loaded)


def _check(offer: Offer, epoch: int, transfers: Transfers) -> tuple[Residency, LoadedModel]:
    if offer.epoch != epoch:
        raise AgentLostError(f"this is epoch {epoch}", field="epoch", expected=str(epoch))
    generate = offer.generate
    residency = transfers.models[generate.model]
    loaded = residency.loaded
    if loaded is None or generate.model not in transfers.scheduler.lanes:
        raise OverloadedError("the model is not resident", field="model", retry_after_ms=1000)
    if not generate.token_ids:
        raise ProtocolError("no prompt", field="generate.token_ids", expected="token ids")
    check_generate(generate)
    tokenize(generate, loaded.tokenizer, loaded.shape.vocabulary)
    check_logprobs(generate, loaded)
    check_fits(generate, len(generate.token_ids), residency.deployment, loaded)
    _check_output(offer.state, generate.max_tokens, loaded)
    return residency, loaded


def _check_output(state: RequestState, max_tokens: int, loaded: LoadedModel) -> None:
    """Whether an output that goes on could be this."""
    output_ids = state.output_ids
    check_moved(state.logprobs, len(output_ids), loaded.shape.vocabulary)
    if len(output_ids) >= max_tokens:
        raise ProtocolError(
            f"{len(output_ids)} tokens", field="state.output_ids", expected=f"under {max_tokens}"
        )
    if output_ids and not 0 <= min(output_ids) <= max(output_ids) < loaded.shape.vocabulary:
        raise ProtocolError("unknown tokens", field="state.output_ids", expected="token ids")
