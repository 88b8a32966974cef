"""A gateway's ledger under load, to be killed: says each receipt on stdout before its "call"."""

import asyncio
import sys
from pathlib import Path

from ledger_world import World

from exeat.evidence.model import OutcomeFacts, Receipt
from exeat.evidence.quota import LedgerLimits

CALLERS = 16


async def main(path: Path) -> None:
    world = World(path, LedgerLimits(heartbeat_s=0.02)).start()

    async def caller() -> None:
        while True:
            receipt = await world.decide()
            assert isinstance(receipt, Receipt)
            sys.stdout.write(f"{receipt.index} {receipt.leaf_hash.hex()}\n")  # the effect
            sys.stdout.flush()
            world.ledger.record_outcome(OutcomeFacts(receipt, "ok"))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
