-- Names, keys and texts are bytea: text cannot hold every string, compares by a locale, and depends on the encoding of the
-- database. `convert_from(name, 'UTF8')` shows them. Times are microseconds since 1970-01-01 UTC.

-- All times are those of the server. The tests replace the function, to move the clock.
CREATE FUNCTION agentflow_now() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- The time after a delay, or the last one that there is.
CREATE FUNCTION agentflow_after(delay bigint) RETURNS bigint LANGUAGE sql VOLATILE STRICT AS
    $$ SELECT least(agentflow_now()::numeric + delay, 9223372036854775807)::bigint $$;

CREATE TABLE agentflow_owners (
    id uuid PRIMARY KEY,
    renewed bigint NOT NULL,
    expires bigint NOT NULL
);

CREATE FUNCTION agentflow_is_alive(owner uuid) RETURNS boolean LANGUAGE sql VOLATILE AS
    $$ SELECT EXISTS (SELECT FROM agentflow_owners o WHERE o.id = owner AND o.expires > agentflow_now()) $$;

CREATE TABLE agentflow_threads (
    id bytea PRIMARY KEY,
    graph bytea NOT NULL,
    head uuid,
    -- The newest checkpoint that there ever was; the next one has a greater id.
    newest uuid,
    -- The state without an unfinished run.
    rest text NOT NULL DEFAULT 'idle',
    metadata bytea NOT NULL,
    -- A hash of each field of the metadata.
    labels bytea[] NOT NULL,
    created bigint NOT NULL,
    updated bigint NOT NULL
);
CREATE INDEX agentflow_threads_labels ON agentflow_threads USING gin (labels);

CREATE TABLE agentflow_runs (
    id uuid PRIMARY KEY,
    thread bytea NOT NULL REFERENCES agentflow_threads ON DELETE CASCADE,
    graph bytea NOT NULL,
    accepted_by uuid NOT NULL,
    input bytea NOT NULL,
    config bytea NOT NULL,
    metadata bytea NOT NULL,
    not_before bigint,
    status text NOT NULL,
    owner uuid NOT NULL,
    epoch bigint NOT NULL DEFAULT 1,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    crashes bigint NOT NULL DEFAULT 0,
    cancel text,
    -- The run has a position: it is running, or was. A queued one that has started was released.
    started boolean NOT NULL DEFAULT false,
    head_before uuid,
    rest_before text NOT NULL DEFAULT 'idle',
    -- The checkpoint at which the run began.
    base uuid,
    last_checkpoint uuid,
    commit_number bigint NOT NULL DEFAULT 0,
    steps bigint NOT NULL DEFAULT 0,
    consumed bigint NOT NULL DEFAULT 0,
    -- The time up to which `consumed` counts.
    consumed_at bigint NOT NULL DEFAULT 0,
    failure bytea,
    created bigint NOT NULL,
    updated bigint NOT NULL
);
CREATE INDEX agentflow_runs_thread ON agentflow_runs (thread, sequence);
CREATE INDEX agentflow_runs_unfinished ON agentflow_runs (owner) WHERE status IN ('queued', 'running');
-- The last word on a rule that the transactions keep.
CREATE UNIQUE INDEX agentflow_runs_one_per_thread ON agentflow_runs (thread) WHERE status = 'running';

CREATE TABLE agentflow_checkpoints (
    thread bytea NOT NULL REFERENCES agentflow_threads ON DELETE CASCADE,
    id uuid NOT NULL,
    parent uuid,
    run uuid,
    source text NOT NULL,
    step bigint NOT NULL,
    -- The whole state, or the difference to that of the parent; neither, if the state is the parent's.
    snapshot bytea,
    delta bytea,
    delta_bytes bigint NOT NULL,
    state_version bigint NOT NULL,
    next bytea[] NOT NULL,
    position bytea NOT NULL,
    writes bytea,
    graph_hash bigint NOT NULL,
    created bigint NOT NULL,
    PRIMARY KEY (thread, id)
);
CREATE INDEX agentflow_checkpoints_run ON agentflow_checkpoints (run);

CREATE TABLE agentflow_questions (
    id uuid PRIMARY KEY,
    thread bytea NOT NULL REFERENCES agentflow_threads ON DELETE CASCADE,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    node bytea NOT NULL,
    step bytea NOT NULL,
    question bytea NOT NULL,
    asked_by uuid NOT NULL,
    status text NOT NULL DEFAULT 'open',
    answered_by uuid,
    answer bytea,
    -- The run that closed or dropped the question; its rollback reverses that.
    ended_by uuid,
    checkpoint uuid,
    created bigint NOT NULL
);
CREATE INDEX agentflow_questions_thread ON agentflow_questions (thread, sequence);

CREATE TABLE agentflow_progress (
    thread bytea NOT NULL REFERENCES agentflow_threads ON DELETE CASCADE,
    step bytea NOT NULL,
    path bytea NOT NULL,
    -- The run that wrote it.
    run uuid NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (thread, step, path)
);

CREATE TABLE agentflow_tasks (
    id uuid PRIMARY KEY,
    name bytea NOT NULL,
    args bytea NOT NULL,
    policy bytea NOT NULL,
    delay bigint NOT NULL,
    asked_due bigint,
    priority integer NOT NULL,
    key_scope bytea,
    key bytea,
    key_policy text,
    run uuid,
    node bytea,
    schedule bytea,
    -- The task of the schedule's firing before, which has to end first.
    waits_for uuid,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    status text NOT NULL DEFAULT 'pending',
    owner uuid,
    epoch bigint NOT NULL DEFAULT 0,
    failed_attempts bigint NOT NULL DEFAULT 0,
    crashes bigint NOT NULL DEFAULT 0,
    due bigint NOT NULL,
    cancel boolean NOT NULL DEFAULT false,
    error bytea,
    first_claimed bigint,
    consumed bigint NOT NULL DEFAULT 0,
    -- The time up to which `consumed` counts, of a running task.
    consumed_at bigint NOT NULL DEFAULT 0,
    created bigint NOT NULL,
    updated bigint NOT NULL
);
CREATE INDEX agentflow_tasks_by_priority ON agentflow_tasks (name, priority DESC, due, sequence) WHERE status = 'pending';
CREATE INDEX agentflow_tasks_by_due ON agentflow_tasks (name, due, sequence) WHERE status = 'pending';
CREATE INDEX agentflow_tasks_running ON agentflow_tasks (name, owner) WHERE status = 'running';
CREATE INDEX agentflow_tasks_unfinished_key ON agentflow_tasks (key, key_scope, name, sequence)
    WHERE key IS NOT NULL AND status IN ('pending', 'running');
-- The last word on a rule that the transactions keep.
CREATE UNIQUE INDEX agentflow_tasks_one_per_key ON agentflow_tasks (key, key_scope, name)
    WHERE key IS NOT NULL AND status = 'running';
CREATE INDEX agentflow_tasks_run ON agentflow_tasks (run) WHERE run IS NOT NULL;
CREATE INDEX agentflow_tasks_ended ON agentflow_tasks (name, updated) WHERE status IN ('done', 'failed', 'cancelled');

CREATE TABLE agentflow_schedules (
    name bytea PRIMARY KEY,
    task bytea NOT NULL,
    definition bytea NOT NULL,
    next_due bigint NOT NULL,
    last_task uuid
);

CREATE TABLE agentflow_items (
    -- The names, one after the other, so that those with a common prefix are neighbours.
    namespace bytea NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    -- A hash of each field of the value.
    labels bytea[] NOT NULL,
    version bigint NOT NULL,
    created bigint NOT NULL,
    updated bigint NOT NULL,
    sequence bigint NOT NULL,
    expires bigint,
    PRIMARY KEY (namespace, key)
);
CREATE INDEX agentflow_items_labels ON agentflow_items USING gin (labels);
CREATE INDEX agentflow_items_expires ON agentflow_items (expires) WHERE expires IS NOT NULL;
CREATE SEQUENCE agentflow_item_writes;

-- Hashes of the fields of metadata and of values.
CREATE FUNCTION agentflow_labels(fields bytea[]) RETURNS bytea[] LANGUAGE sql IMMUTABLE AS
    $$ SELECT coalesce(array_agg(sha256(field)), '{}') FROM unnest(fields) AS field $$;

-- Tells the listeners that something changed. The name of the channel is that of this schema alone.
CREATE FUNCTION agentflow_channel() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT 'agentflow_' || 'agentflow_tasks'::regclass::oid $$;
CREATE FUNCTION agentflow_notify() RETURNS void LANGUAGE sql VOLATILE AS
    $$ SELECT pg_notify(agentflow_channel(), '') $$;

-- Makes the transaction wait for others that hold the lock of the same name, to its end.
CREATE FUNCTION agentflow_lock(name bytea) RETURNS void LANGUAGE sql VOLATILE AS
    $$ SELECT pg_advisory_xact_lock(hashtextextended(encode(name, 'hex'), 'agentflow_tasks'::regclass::oid::bigint)) $$;
