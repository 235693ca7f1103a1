"""Every limit of the gateway that is not a setting, with its reasoning."""

from __future__ import annotations

from typing import Final

# A request body. The longest contexts in use (128 k tokens, about four characters each, escaped JSON) fit four times.
MAX_BODY_BYTES: Final = 2 * 1024 * 1024
# A client that takes longer to send its body holds a connection for nothing.
BODY_WAIT_S: Final = 30.0
# Characters of one prompt, templates included; bounds the time of tokenisation to about two seconds.
MAX_PROMPT_CHARS: Final = 1_000_000
# Prompts up to this length are tokenised on the event loop (about a millisecond), longer ones in a thread.
INLINE_PROMPT_CHARS: Final = 4_000
# Threads for long prompts, templates and files: more would only take cores from replicas on the same machine.
TEXT_THREADS: Final = 2
# OpenAI's own limit.
MAX_STOPS: Final = 4
# A stop text holds back this much text at most; longer ones are surely a mistake.
MAX_STOP_CHARS: Final = 256
# Of a cache salt; in bytes of UTF-8 no more than the contract's 256.
MAX_SALT_CHARS: Final = 64
# Messages of one conversation.
MAX_MESSAGES: Final = 2_048
# Prompts × n of one request: each is a generation of its own.
MAX_CHOICES: Final = 16
# OpenAI's own limit for chat; the contract's too.
MAX_TOP_LOGPROBS: Final = 20
# Completions without max_tokens give this many, as OpenAI's do.
DEFAULT_COMPLETION_TOKENS: Final = 16
# Requests that may wait for each place of a batch; more are told to come later, since waiting longer than 32 whole
# generations helps nobody.
QUEUED_PER_PLACE: Final = 32
# A request waits so long by default while no ready replica takes it; loading a small model takes about as long.
WAIT_READY_S: Final = 15.0
# Requests that may wait while a deployment has no ready replica.
MAX_WAITING: Final = 256
# A request for a sleeping deployment waits this long for its cold start: loading, warming and some room for a queue.
WAIT_ASLEEP_S: Final = 180.0
# Tried again this soon when every replica refused and the routing table did not change.
RETRY_PAUSE_S: Final = 0.25
# A node that is there connects in milliseconds; one that swallows packets must not hold a request for longer.
CONNECT_WAIT_S: Final = 2.0
# Replicas tried for one request before its last error is told.
MAX_ATTEMPTS: Final = 64
# HTTP requests open at once; each costs a few tens of kilobytes.
MAX_OPEN_REQUESTS: Final = 2_000
# The routing table is read this often; a swap is seen within it.
POLL_S: Final = 0.2
# Channels kept although no replica of theirs is in the table any more.
IDLE_CHANNELS: Final = 64
# Tokenizers held in memory; a large one takes about 50 MB.
MAX_MODELS_IN_MEMORY: Final = 8
# A tokenizer.json or template larger than this is refused; the largest known is 35 MB.
MAX_MODEL_FILE_BYTES: Final = 128 * 1024 * 1024
# Model files kept on disk, oldest use thrown out first.
MAX_DISK_BYTES: Final = 1024 * 1024 * 1024
# A call to compiler or orchestrator for a small answer, and for a file.
CALL_WAIT_S: Final = 5.0
FETCH_WAIT_S: Final = 60.0
# What clients are told to wait before they try again.
RETRY_AFTER_S: Final = 1
# Deployments that get a label of their own in metrics; the rest share one.
MAX_METRIC_DEPLOYMENTS: Final = 200
# Finished requests remembered for the status page, for each deployment, and for how long.
RECENT_REQUESTS: Final = 512
RECENT_S: Final = 60.0
# The status page's picture is made at most this often, however many look at it.
STATUS_AGE_S: Final = 1.0
