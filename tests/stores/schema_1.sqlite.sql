-- The tables as exeat 0.1.0 made them.  Never edited.
CREATE TABLE people (
    id VARCHAR NOT NULL,
    live BOOLEAN NOT NULL,
    roles TEXT NOT NULL,
    revision INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX ix_people_epoch ON people (epoch);
CREATE TABLE policies (
    number INTEGER NOT NULL,
    digest VARCHAR NOT NULL,
    files TEXT NOT NULL,
    author VARCHAR NOT NULL,
    approver VARCHAR NOT NULL,
    reason TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (number),
    FOREIGN KEY(author) REFERENCES people (id),
    FOREIGN KEY(approver) REFERENCES people (id)
);
CREATE TABLE state (
    id INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    removed_epoch BIGINT NOT NULL,
    policy_number INTEGER,
    PRIMARY KEY (id),
    CONSTRAINT only_one_state CHECK (id = 1),
    FOREIGN KEY(policy_number) REFERENCES policies (number)
);
CREATE TABLE agents (
    id VARCHAR NOT NULL,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    owner VARCHAR,
    deputy VARCHAR,
    sponsor VARCHAR,
    groups TEXT NOT NULL,
    environment TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt_digest TEXT NOT NULL,
    servers TEXT NOT NULL,
    effects TEXT NOT NULL,
    actions TEXT NOT NULL,
    ends_at BIGINT,
    scope_digest VARCHAR NOT NULL,
    accepted_digest VARCHAR,
    accepted_by VARCHAR,
    accepted_at BIGINT,
    accepted_event VARCHAR,
    lifecycle VARCHAR NOT NULL,
    revision INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT owner_is_not_deputy CHECK (owner <> deputy),
    FOREIGN KEY(owner) REFERENCES people (id),
    FOREIGN KEY(deputy) REFERENCES people (id),
    FOREIGN KEY(sponsor) REFERENCES people (id),
    FOREIGN KEY(accepted_by) REFERENCES people (id)
);
CREATE INDEX ix_agents_epoch ON agents (epoch);
CREATE TABLE servers (
    id VARCHAR NOT NULL,
    spec TEXT NOT NULL,
    owner VARCHAR NOT NULL,
    trust INTEGER NOT NULL,
    active BOOLEAN NOT NULL,
    extra_methods TEXT NOT NULL,
    revision INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(owner) REFERENCES people (id)
);
CREATE INDEX ix_servers_epoch ON servers (epoch);
CREATE TABLE tools (
    action VARCHAR NOT NULL,
    server VARCHAR NOT NULL,
    name TEXT NOT NULL,
    pinned_digest VARCHAR,
    pinned_body TEXT,
    pending_digest VARCHAR,
    pending_body TEXT,
    profile TEXT,
    revision INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (action),
    CONSTRAINT one_tool_of_a_name UNIQUE (server, name),
    FOREIGN KEY(server) REFERENCES servers (id)
);
CREATE INDEX ix_tools_epoch ON tools (epoch);
CREATE INDEX ix_tools_server ON tools (server);
CREATE TABLE keys (
    id VARCHAR NOT NULL,
    agent VARCHAR NOT NULL,
    user VARCHAR,
    digest BLOB NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked BOOLEAN NOT NULL,
    revision INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(agent) REFERENCES agents (id),
    FOREIGN KEY(user) REFERENCES people (id),
    UNIQUE (digest)
);
CREATE INDEX ix_keys_agent ON keys (agent);
CREATE INDEX ix_keys_epoch ON keys (epoch);
CREATE TABLE outbox (
    n INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    body TEXT NOT NULL
);
INSERT INTO state (id, schema_version, epoch, removed_epoch) VALUES (1, 1, 1, 0);
