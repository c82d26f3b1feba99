-- How far a key has come, and which rotation may have gone further than is known here.
ALTER TABLE accounts ADD COLUMN epoch INTEGER NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN epoch_tried INTEGER NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN doubt TEXT REFERENCES sessions (session_id);
ALTER TABLE accounts ADD COLUMN succession TEXT;
CREATE INDEX accounts_in_doubt ON accounts (id) WHERE doubt IS NOT NULL;

-- Parties that may still hold old shares of a key: a row goes when its party has none any more and all have switched.
CREATE TABLE settling (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    party_id   TEXT NOT NULL,
    -- Its signed word that it has switched to the account's epoch.
    word       TEXT,
    done       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, party_id)
) STRICT;
