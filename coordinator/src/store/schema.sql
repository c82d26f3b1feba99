CREATE TABLE sessions (
    session_id   TEXT PRIMARY KEY,
    session_type TEXT NOT NULL,
    status       TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    expires_at   TEXT NOT NULL,
    record       TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_status ON sessions (status);

CREATE TABLE accounts (
    id          TEXT PRIMARY KEY,
    username    TEXT,
    email       TEXT,
    label       TEXT,
    share_type  TEXT NOT NULL,
    public_key  TEXT NOT NULL UNIQUE,
    threshold_n INTEGER NOT NULL,
    threshold_t INTEGER NOT NULL,
    status      TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    certificate TEXT NOT NULL
) STRICT;
CREATE INDEX accounts_by_age ON accounts (created_at, id);

CREATE TABLE account_shares (
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    party_index INTEGER NOT NULL,
    party_id    TEXT NOT NULL,
    device_type TEXT NOT NULL,
    device_id   TEXT,
    platform    TEXT,
    is_active   INTEGER NOT NULL,
    PRIMARY KEY (account_id, party_index)
) STRICT;

CREATE TABLE api_keys (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       TEXT NOT NULL,
    created_at TEXT NOT NULL,
    revoked_at TEXT
) STRICT;
CREATE UNIQUE INDEX api_keys_in_use ON api_keys (name) WHERE revoked_at IS NULL;
