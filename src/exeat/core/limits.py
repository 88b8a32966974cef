"""Expected sizes and times, with their units in their names.  Settings may change the defaults."""

from typing import Final

REQUEST_BODY_MAX_BYTES: Final = 4 * 1024 * 1024
HEADER_BLOCK_MAX_BYTES: Final = 32 * 1024
HEADER_LINES_MAX: Final = 100
JSON_DEPTH_MAX: Final = 64
RESULT_BUFFER_BYTES: Final = 256 * 1024
LIST_RESULT_MAX_BYTES: Final = 16 * 1024 * 1024
POLICY_STRING_MAX_BYTES: Final = 8 * 1024
HEAD_TIME_MAX_S: Final = 10.0
BODY_TIME_MAX_S: Final = 30.0
IDLE_TIME_MAX_S: Final = 75.0
UPSTREAM_CONNECT_MAX_S: Final = 5.0
UPSTREAM_ANSWER_MAX_S: Final = 300.0
SNAPSHOT_POLL_S: Final = 0.2
SNAPSHOT_AGE_MAX_S: Final = 5.0
SNAPSHOT_AGE_SHARED_MAX_S: Final = 0.8
"""Where several gateways share a database (APP-10): a poll of it that *began* longer ago confirms nothing."""
REQUEST_STATE_LIFE_S: Final = 600
HOLD_WAIT_S: Final = 25.0
"""Below half of the shortest time limit of common clients (60 s, TypeScript SDK)."""
OBSERVE_MAX_S: Final = 7 * 86_400
"""The longest that an agent may be observed instead of bound by policy (POL-10)."""
