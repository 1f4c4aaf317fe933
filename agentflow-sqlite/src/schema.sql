CREATE TABLE owners (
    id BLOB PRIMARY KEY,
    lease INTEGER NOT NULL,
    renewed_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE threads (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    graph TEXT NOT NULL,
    head BLOB,
    rest TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

CREATE TABLE runs (
    -- The order of acceptance. The number of a deleted run is not given again.
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    thread INTEGER NOT NULL,
    graph TEXT NOT NULL,
    accepted_by BLOB NOT NULL,
    owner BLOB NOT NULL,
    status TEXT NOT NULL,
    is_released INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    cancel TEXT,
    not_before INTEGER,
    base BLOB,
    head_before BLOB,
    rest_before TEXT NOT NULL,
    last_checkpoint BLOB,
    last_commit INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    consumed INTEGER NOT NULL,
    charged_at INTEGER NOT NULL,
    failure TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX runs_of_thread ON runs (thread, sequence);
CREATE INDEX runs_unfinished ON runs (thread, sequence) WHERE status IN ('queued', 'running');
CREATE INDEX runs_owned ON runs (owner, graph, sequence) WHERE status IN ('queued', 'running');
CREATE INDEX runs_released ON runs (graph, sequence) WHERE is_released = 1;
CREATE INDEX runs_crashed ON runs (crashes, owner) WHERE crashes > 0;

-- What was accepted does not change. A table of its own keeps it out of the pages that each step writes.
CREATE TABLE run_inputs (
    run INTEGER PRIMARY KEY,
    input BLOB NOT NULL,
    config BLOB NOT NULL,
    metadata TEXT NOT NULL
);

CREATE TABLE checkpoints (
    key INTEGER PRIMARY KEY,
    thread INTEGER NOT NULL,
    id BLOB NOT NULL,
    parent BLOB,
    run BLOB,
    source TEXT NOT NULL,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    delta_bytes INTEGER NOT NULL,
    state_version INTEGER NOT NULL,
    graph_hash INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    next TEXT NOT NULL,
    position BLOB NOT NULL,
    writes BLOB,
    value BLOB,
    UNIQUE (thread, id)
);

CREATE TABLE questions (
    key INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    thread INTEGER NOT NULL,
    node TEXT NOT NULL,
    step TEXT NOT NULL,
    question BLOB NOT NULL,
    asked_by BLOB NOT NULL,
    status TEXT NOT NULL,
    answered_by BLOB,
    answer BLOB,
    ended_by BLOB,
    checkpoint BLOB,
    created_at INTEGER NOT NULL
);
CREATE INDEX questions_of_thread ON questions (thread, status);

CREATE TABLE progress (
    thread INTEGER NOT NULL,
    step TEXT NOT NULL,
    path TEXT NOT NULL,
    run BLOB NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (thread, step, path)
);

CREATE TABLE tasks (
    sequence INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    -- Set if the key or another task has to end first. It is kept up to date by each change of a task with a key.
    is_blocked INTEGER NOT NULL,
    waits_for BLOB,
    owner BLOB,
    epoch INTEGER NOT NULL,
    failed_attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    due INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    cancel INTEGER NOT NULL,
    scope TEXT,
    key TEXT,
    key_policy TEXT,
    run BLOB,
    node TEXT,
    schedule TEXT,
    delay INTEGER NOT NULL,
    given_due INTEGER,
    error TEXT,
    first_claimed_at INTEGER,
    charged_at INTEGER,
    consumed INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    args BLOB NOT NULL,
    policy BLOB NOT NULL
);
CREATE INDEX tasks_due ON tasks (name, priority, due, sequence) WHERE status = 'pending' AND is_blocked = 0;
CREATE INDEX tasks_owned ON tasks (owner, sequence) WHERE status = 'running';
CREATE INDEX tasks_of_key ON tasks (name, scope, key, is_blocked, sequence)
    WHERE key IS NOT NULL AND status IN ('pending', 'running');
CREATE INDEX tasks_of_run ON tasks (run) WHERE run IS NOT NULL;
CREATE INDEX tasks_waiting ON tasks (waits_for) WHERE waits_for IS NOT NULL AND status = 'pending';
CREATE INDEX tasks_crashed ON tasks (crashes, owner) WHERE crashes > 0;

CREATE TABLE schedules (
    name TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    definition BLOB NOT NULL,
    next_due INTEGER NOT NULL,
    last_task BLOB
);

CREATE TABLE items (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (namespace, key)
);
CREATE INDEX items_expiring ON items (expires_at) WHERE expires_at IS NOT NULL;
