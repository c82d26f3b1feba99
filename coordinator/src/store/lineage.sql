-- The epochs that a key has left: what leads those on who missed more than one rotation, and whose word on its next step counts.
CREATE TABLE past_epochs (
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    epoch       INTEGER NOT NULL,
    certificate TEXT NOT NULL,
    -- What led to it; NULL for the key's first.
    succession  TEXT,
    PRIMARY KEY (account_id, epoch)
) STRICT;

-- Who took part in rotations whose end was not seen: shares of those may lie there until the key has come to a later epoch.
CREATE TABLE tried (
    account_id TEXT NOT NULL REFERENCES accounts (id),
    session_id TEXT NOT NULL REFERENCES sessions (session_id),
    party_id   TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    PRIMARY KEY (account_id, session_id, party_id)
) STRICT;
