"""Proposals and observed agents in SQL."""

import json

import sqlalchemy as sa

from exeat.core.errors import Conflict, NotFound
from exeat.core.ids import AgentId, Digest, PersonId
from exeat.registry.model.canonical import canonical
from exeat.registry.model.proposal import Kind, Proposal, Standing
from exeat.storage import rows
from exeat.storage.schema_policy import observations, proposals


def proposal(connection: sa.Connection, number: int) -> Proposal:
    query = sa.select(proposals).where(proposals.c.number == number)
    found = connection.execute(query).one_or_none()
    if found is None:
        raise NotFound(f"There is no proposal {number}.", remedy="See `exeat policy proposals`.")
    return _proposal(found)


def all_proposals(connection: sa.Connection) -> tuple[Proposal, ...]:
    query = sa.select(proposals).order_by(proposals.c.number)
    return tuple(_proposal(row) for row in connection.execute(query))


def save(tx: sa.Connection, new: Proposal) -> None:
    """A new one, or the end of one that stands open.  Raises Conflict if somebody ended it meanwhile."""
    if new.standing is Standing.OPEN:
        tx.execute(
            proposals.insert().values(
                number=new.number,
                kind=new.kind.value,
                body=canonical(dict(new.body)),
                digest=new.digest,
                base=new.base,
                author=new.author,
                by=new.by,
                reason=new.reason,
                at=new.at,
                standing=new.standing.value,
                decided_by=None,
            )
        )
        return
    still = (proposals.c.number == new.number) & (proposals.c.standing == Standing.OPEN.value)
    ended = {"standing": new.standing.value, "decided_by": new.decided_by}
    if tx.execute(proposals.update().where(still).values(ended)).rowcount != 1:
        raise Conflict(f"Proposal {new.number} is no longer open.")


def observed(connection: sa.Connection) -> dict[AgentId, int]:
    """Agent → until when it is (or was) observed."""
    return {
        AgentId(row.agent): int(row.until) for row in connection.execute(sa.select(observations))
    }


def observe(tx: sa.Connection, agent: AgentId, until: int) -> None:
    tx.execute(observations.delete().where(observations.c.agent == agent))
    tx.execute(observations.insert().values(agent=agent, until=until))


def _proposal(row: rows.Row) -> Proposal:
    return Proposal(
        row.number,
        Kind(row.kind),
        json.loads(row.body),
        Digest(row.digest),
        row.base,
        PersonId(row.author),
        PersonId(row.by),
        row.reason,
        int(row.at),
        Standing(row.standing),
        None if row.decided_by is None else PersonId(row.decided_by),
    )
