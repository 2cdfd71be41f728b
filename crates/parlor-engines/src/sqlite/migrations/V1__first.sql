-- The first schema. Times are milliseconds since the Unix epoch, ids are positive 64-bit integers.

-- What belongs to the data set as a whole: `epoch` (text), `probe` (a counter).
CREATE TABLE data_set (
    key TEXT NOT NULL PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    user_id INTEGER NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    -- Look-alike skeleton; a deleted account keeps it.
    username_key TEXT NOT NULL UNIQUE,
    email TEXT,
    email_key TEXT,
    display_name TEXT NOT NULL,
    password_hash TEXT,
    admin INTEGER NOT NULL,
    -- JSON.
    privacy TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_seen INTEGER,
    deleted_at INTEGER
) STRICT;

CREATE UNIQUE INDEX users_email ON users (email_key) WHERE email_key IS NOT NULL;

CREATE TABLE user_events (
    user_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    -- JSON.
    body TEXT NOT NULL,
    PRIMARY KEY (user_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    device_id INTEGER NOT NULL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    token_hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX devices_user ON devices (user_id);

CREATE TABLE chats (
    chat_id INTEGER NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    title TEXT,
    topic TEXT,
    created_at INTEGER NOT NULL,
    -- JSON.
    settings TEXT NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0,
    -- One pair has one chat.
    direct_key TEXT,
    membership_epoch INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX chats_direct ON chats (direct_key) WHERE direct_key IS NOT NULL;

-- Former members too; those who are present have no `left_seq`.
CREATE TABLE chat_participants (
    chat_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    role TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    joined_seq INTEGER NOT NULL,
    visible_seq INTEGER NOT NULL,
    left_seq INTEGER,
    cleared_seq INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX chat_participants_user ON chat_participants (user_id, chat_id) WHERE left_seq IS NULL;

-- The cursors of present members: apart from the participants, since they move far more often.
CREATE TABLE cursors (
    chat_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    delivered_seq INTEGER NOT NULL,
    read_seq INTEGER NOT NULL,
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;

-- When the cursors moved; kind 1 is delivered, 2 is read.
CREATE TABLE receipt_moves (
    chat_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    to_seq INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (chat_id, user_id, kind, to_seq)
) STRICT, WITHOUT ROWID;

-- The log of all chats, in the order of writing: a row goes to the end of the table and into narrow
-- indexes, so that a short message does not rewrite a page of its chat. The text stands last, so
-- that everything before it is read without it. Kinds and types: see `rows.rs`.
CREATE TABLE messages (
    message_id INTEGER NOT NULL PRIMARY KEY,
    chat_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    sender_id INTEGER NOT NULL,
    -- Number of message events of the chat up to here.
    n INTEGER NOT NULL,
    -- The message that an edit, a deletion or a reaction is about.
    target_id INTEGER,
    -- Idempotency key: the 16 bytes of a UUIDv7, or two zero bytes and the text.
    client_id BLOB,
    type INTEGER NOT NULL,
    reply_to INTEGER,
    -- Reserved.
    thread_id INTEGER,
    -- Keyed digest of the request, for repeats of the key.
    body_mac INTEGER,
    -- Over everything that does not change.
    checksum INTEGER NOT NULL,
    -- What the erased parts digested to; only where they were erased.
    body_digest BLOB,
    attachments BLOB,
    body BLOB,
    created_at INTEGER GENERATED ALWAYS AS (message_id >> 22) VIRTUAL
) STRICT;

CREATE UNIQUE INDEX messages_seq ON messages (chat_id, seq);
-- The key first: keys rise with time, so that the index grows at its end.
CREATE UNIQUE INDEX messages_key ON messages (client_id, sender_id) WHERE client_id IS NOT NULL;
CREATE INDEX messages_target ON messages (target_id) WHERE target_id IS NOT NULL;

-- Only for messages that changed.
CREATE TABLE message_state (
    message_id INTEGER NOT NULL PRIMARY KEY,
    -- The last event folded into the state.
    state_seq INTEGER NOT NULL,
    -- The edit whose text is in force.
    edit_id INTEGER,
    edited_at INTEGER,
    deleted INTEGER NOT NULL DEFAULT 0,
    n_reactions INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Those that are there now; `seq` is the event that added them.
CREATE TABLE reactions (
    message_id INTEGER NOT NULL,
    emoji TEXT NOT NULL,
    user_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (message_id, emoji, user_id)
) STRICT, WITHOUT ROWID;

-- The ends of the logs: derived from the index of the log, since a stored head would be one more
-- page to write for every chat of every batch.
CREATE VIEW chat_heads (chat_id, head_seq, head_message_id, updated_at, membership_epoch) AS
SELECT c.chat_id, m.seq, m.message_id, m.created_at, c.membership_epoch
FROM chats c
JOIN messages m ON m.message_id =
    (SELECT l.message_id FROM messages l WHERE l.chat_id = c.chat_id ORDER BY l.seq DESC LIMIT 1);

-- The state of each message for each present member who may see it, less its sender.
CREATE VIEW message_status (message_id, user_id, status, updated_at) AS
SELECT m.message_id, p.user_id,
    CASE WHEN c.read_seq >= m.seq THEN 'read'
         WHEN c.delivered_seq >= m.seq THEN 'delivered'
         ELSE 'sent' END,
    CASE WHEN c.delivered_seq < m.seq THEN m.created_at
         WHEN m.seq <= p.joined_seq THEN p.joined_at
         ELSE (SELECT r.at FROM receipt_moves r
               WHERE r.chat_id = m.chat_id AND r.user_id = p.user_id
                 AND r.kind = CASE WHEN c.read_seq >= m.seq THEN 2 ELSE 1 END
                 AND r.to_seq >= m.seq
               ORDER BY r.to_seq LIMIT 1) END
FROM messages m
JOIN chat_participants p
    ON p.chat_id = m.chat_id AND p.left_seq IS NULL AND p.visible_seq <= m.seq
   AND p.user_id <> m.sender_id
JOIN cursors c ON c.chat_id = p.chat_id AND c.user_id = p.user_id
WHERE m.kind = 1;
