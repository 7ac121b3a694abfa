"""Every bound of the file service and of its client."""

from __future__ import annotations

# --- the volume -------------------------------------------------------------------------------------------------------
NAME_MAX_BYTES = 255
"""Longest name of one file (NAME_MAX of every Linux file system of ours)."""
PATH_MAX_BYTES = 3072
"""Longest path below the root, decoded; well below PATH_MAX (4096), so that it can be used with any root."""
RESERVED_SPACE_BYTES = 1 << 20
"""Kept free when an upload of known size is accepted: directories and the journal need room too."""
WORKERS = 24
"""Threads that may be inside a system call on the volume at the same time."""
QUEUE_MAX = 512
"""Operations that may wait for a thread."""
QUEUE_WAIT_S = 5.0
"""How long an operation waits for a thread before its request is answered 503."""
STUCK_S = 3.0
"""A full pool from which no operation has come back for this long counts as a volume that does not answer."""
SYNC_EVERY_BYTES = 8 << 20
"""A resumable upload is brought to stable storage each time this much has arrived."""
PUT_SYNC_EVERY_BYTES = 64 << 20
"""The same for a PUT: what a hand-over, or the last flush of many uploads at once, has to wait for stays bounded."""
DIGEST_SLICE_BYTES = 8 << 20
"""A thread adds at most this much to a checksum before others get their turn."""
CLEAN_INTERVAL_S = 600.0
"""Pause between two searches for expired uploads."""
UPLOADS_MAX = 10_000
"""Unfinished resumable uploads that are kept at the same time."""

# --- requests ---------------------------------------------------------------------------------------------------------
CONNECTIONS_MAX = 1024
"""With one more, the oldest that has no whole request under way is closed; when all have one, the new one is."""
REQUESTS_MAX = 512
"""Requests that may be under way at the same time; one more is answered 503."""
CHANGES_MAX = 256
"""Of these, such as send something: half-open uploads leave room for whoever reads."""
REQUEST_LINE_MAX_BYTES = 16_384
HEADER_FIELD_MAX_BYTES = 8190
HEADERS_MAX = 64
HANDSHAKE_S = 10.0
"""A TLS handshake that takes longer is given up."""
IDLE_CONNECTION_S = 30.0
"""A connection without a whole request for this long is closed."""
IDLE_BODY_S = 30.0
"""An upload from which less than `TRICKLE_BYTES` arrive in this time of waiting is given up."""
TRICKLE_BYTES = 4096
IDLE_SEND_S = 60.0
"""A download of which nothing is taken for this long is given up."""
LINGER_S = 2.0
"""After a refusal, how long the rest of a request is read and thrown away before the connection is closed."""
FORM_MAX_BYTES = 1 << 20
"""A form without a file; it may name many things."""
CHUNK_BYTES = 1 << 20
"""Uploads are written in pieces of at least this size (but for the last one)."""
READ_BUFFER_BYTES = 256 << 10
"""Of a body twice this much waits in memory, beside the piece that is being written."""
SMALL_FILE_BYTES = 64 << 10
"""Files up to this size are read and sent in one go; larger ones by sendfile."""
SENDFILE_SLICE_BYTES = 8 << 20
"""A thread sends at most this much before others get their turn."""
SENDFILE_SLICE_MS = 50
"""Nor for longer than this: a hand-over has to wait for it."""
SENDFILE_PATIENCE_MS = 20
"""A thread waits this long for a slow client before it leaves the waiting to the event loop."""
LISTED_MAX = 200
"""Entries on one page of a listing for people; programs get all."""

ORDERS_MIN_NAMES = 1000
"""The order of a folder with fewer names is not worth remembering."""
ORDERS_MAX_NAMES = 500_000
"""Names whose order is remembered, over all folders."""
ORDERS_MAX_NEW = 2000
"""With more names that were not there before, all are sorted again."""
SETTLED_NS = 100_000_000
"""A folder that was changed more recently may change again without its modification time telling (a kernel's tick)."""
COPY_SLICE_BYTES = 32 << 20
"""A thread copies at most this much of a file before others get their turn."""
SAME_NAME_MAX = 100
"""`name (2)`, `name (3)` … up to this number are tried for what is restored or kept beside another one."""
ITEMS_MAX = 2000
"""Things that one form may name."""
ZIP_FILES_MAX = 100_000
"""Files and folders in one ZIP file: its table of contents is kept in memory until the end."""
SEARCH_S = 10.0
"""A search ends after this time, with what it has found."""
SEARCH_FOUND_MAX = 500
SEARCH_SLICE_S = 0.05
"""A thread searches this long before others get their turn."""
PREVIEW_TEXT_BYTES = 256 << 10
"""So much of a text file is shown as a preview."""

# --- WebDAV -----------------------------------------------------------------------------------------------------------
DAV_XML_MAX_BYTES = 256 << 10
"""The body of a request that is XML."""
DAV_XML_DEPTH_MAX = 64
DAV_XML_ELEMENTS_MAX = 2000
DAV_IF_MAX_CONDITIONS = 256
"""Conditions in one If field."""
DAV_SLICE = 200
"""Things that one turn of a thread describes; an answer about more is sent while it is made."""
LOCKS_MAX = 5000
LOCK_OWNER_MAX_BYTES = 4096
LOCK_DEFAULT_S = 600
"""How long a lock holds when its client does not say."""
LOCK_MAX_S = 3600
"""Longer ones are refreshed by their clients."""
LOCK_GRACE_S = 120
"""A lock that ended while the servers changed holds for this long more, so that its client can refresh it."""
PROPERTIES_MAX_BYTES = 32 << 10
"""What may be said about one thing, where the file system keeps so much."""

# --- answers ----------------------------------------------------------------------------------------------------------
RETRY_AFTER_S = 1
COPIES_TIMEOUT_S = 2.0
"""The mirror's answer is waited for this long; after that only one copy is vouched for."""
HEALTH_TIMEOUT_S = 0.25
CLAIM_WAIT_S = 5.0
"""How long a continued upload waits for its broken-off predecessor to let go."""

# --- orderly hand-over ------------------------------------------------------------------------------------------------
QUIESCE_S = 0.1
"""Requests that can be answered within this time still are."""
CLOSE_S = 10.0
"""After this `close` gives up and says what still hangs."""

# --- client -----------------------------------------------------------------------------------------------------------
SMALL_PUT_BYTES = 1 << 20
"""Files up to this size are stored by one PUT; larger ones by a resumable upload."""
PATCH_BYTES = 256 << 20
"""One request of a resumable upload carries at most this much."""
CONNECT_S = 1.0
DEAD_PEER_MS = 2000
"""Data that is not acknowledged for this long means that the server is gone (TCP_USER_TIMEOUT)."""
PROBE_IDLE_S = 1
PROBE_INTERVAL_S = 1
PROBES = 2
"""While the client waits for an answer the connection is probed; the new server resets what it does not know."""
STALL_S = 5.0
"""No byte sent or received for this long: the connection is given up and a new one is tried."""
ANSWER_S = 15.0
"""After the last byte of a request: how long the answer may take (both disks are flushed meanwhile)."""
DIGEST_S = 300.0
"""How long the server may compute the checksum of a large file."""
RETRY_FIRST_S = 0.1
RETRY_LAST_S = 1.0
"""Pause before a new attempt: doubled from the first to the last."""
GIVE_UP_S = 120.0
"""Without any progress for this long the client gives up."""
PARALLEL = 4
"""Files of a tree that are under way at the same time."""
