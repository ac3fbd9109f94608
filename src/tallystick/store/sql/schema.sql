-- What every installation needs once. The quoted name of the schema is filled in at each place in braces.

DO $do$
BEGIN
    -- IF NOT EXISTS asks for the right to create schemas even where nothing is created.
    IF to_regnamespace({schema_name}) IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
END
$do$;

CREATE TABLE {schema}.layout (
    version integer NOT NULL,
    tallystick text NOT NULL
);
COMMENT ON TABLE {schema}.layout IS 'tallystick: version of the layout of this schema, and of the package that made it';
INSERT INTO {schema}.layout (version, tallystick) VALUES (4, {package});

CREATE TABLE {schema}.aggregate (
    name text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('grouped', 'ordered')),
    definition text NOT NULL,
    fingerprint text NOT NULL,
    source regclass NOT NULL,
    mirror regclass,
    ordering text,
    index text,
    generated text,
    phase text NOT NULL CHECK (phase IN ('building', 'kept')),
    serving text NOT NULL CHECK (serving IN ('kept', 'direct')),
    rolled_back boolean NOT NULL DEFAULT false,
    version integer NOT NULL DEFAULT 1,
    replaces text,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    backfilled_at timestamptz,
    CHECK (serving = 'direct' OR (phase = 'kept' AND NOT rolled_back))
);
COMMENT ON TABLE {schema}.aggregate IS 'tallystick: one row per aggregate; serving is the switch that readers follow';
COMMENT ON COLUMN {schema}.aggregate.backfilled_at IS 'when a backfill ended last; NULL before the first';
COMMENT ON COLUMN {schema}.aggregate.rolled_back IS 'an operator keeps readers on the source, until resume';
COMMENT ON COLUMN {schema}.aggregate.version IS 'of the definition; views of another one are served by the source';
COMMENT ON COLUMN {schema}.aggregate.replaces IS 'the aggregate whose next version this is, while it is being built';
COMMENT ON COLUMN {schema}.aggregate.index IS 'name of an index of the source; restored before it, and kept by REINDEX';

CREATE TABLE {schema}.reset (
    aggregate text NOT NULL,
    epoch bigint NOT NULL,
    partition regclass,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (aggregate, epoch)
);
COMMENT ON TABLE {schema}.reset IS 'tallystick: left by TRUNCATE; state, and deltas of a lower epoch, are void';
COMMENT ON COLUMN {schema}.reset.partition IS 'only this one was truncated: the state holds more than the source';

-- Deltas of transactions before the floor have all been folded, so readers begin there. Transaction ids mean nothing in
-- another cluster: the floor counts only in a row that its folder wrote itself, which the row's xmin tells, and if that
-- folder is no transaction to come. A row that was restored has another xmin, or by chance the same; then the floor,
-- which is never above its folder, is no higher than what is written here later.
CREATE TABLE {schema}.watermark (
    aggregate text PRIMARY KEY,
    floor xid8 NOT NULL DEFAULT '0',
    folder xid8 NOT NULL DEFAULT '0',
    major integer NOT NULL DEFAULT current_setting('server_version_num')::integer / 10000,
    files oid[]
) WITH (fillfactor = 10);
COMMENT ON TABLE {schema}.watermark IS 'tallystick: how far each aggregate is folded, and by which major version';
COMMENT ON COLUMN {schema}.watermark.files IS 'of an ordered one: files of the source that its buckets stand for';

CREATE TABLE {schema}.partition (
    aggregate text NOT NULL,
    relation regclass NOT NULL,
    attached xid NOT NULL,
    PRIMARY KEY (aggregate, relation)
);
COMMENT ON TABLE {schema}.partition IS 'tallystick: partitions that are counted; xmin of their rows in pg_inherits';

-- Two passes may be under way: that of the workers, which never ends, and one that was asked for.
CREATE TABLE {schema}.audit (
    aggregate text NOT NULL,
    pass text NOT NULL CHECK (pass IN ('worker', 'asked')),
    position text[],
    groups bigint NOT NULL,
    drifted bigint NOT NULL,
    passes bigint NOT NULL,
    size bigint NOT NULL,
    verified_at timestamptz NOT NULL,
    PRIMARY KEY (aggregate, pass)
);
COMMENT ON TABLE {schema}.audit IS 'tallystick: how far each aggregate has been verified chunk by chunk';
COMMENT ON COLUMN {schema}.audit.position IS 'last group key, or level and place, of the last chunk; NULL between passes';
COMMENT ON COLUMN {schema}.audit.groups IS 'verified in this pass, or the last one; so is drifted';
COMMENT ON COLUMN {schema}.audit.size IS 'groups, or buckets, of the next chunk, about';

CREATE TABLE {schema}.event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role name NOT NULL DEFAULT session_user,
    application text NOT NULL DEFAULT current_setting('application_name'),
    what text NOT NULL,
    aggregate text,
    detail jsonb NOT NULL DEFAULT '{{}}'
);
COMMENT ON TABLE {schema}.event IS 'tallystick: who did what, and when';

-- Workers write these for each other and for whoever watches them; no reader or writer of the user's looks here.
CREATE TABLE {schema}.worker (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    doing text
) WITH (fillfactor = 50);
COMMENT ON TABLE {schema}.worker IS 'tallystick: running workers; one that ends by itself takes its row with it';

CREATE TABLE {schema}.backlog (
    aggregate text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE {schema}.backlog IS 'tallystick: what waits to be folded, and since when a worker has seen it wait';

CREATE TABLE {schema}.schedule (
    name text PRIMARY KEY,
    cron text NOT NULL,
    task text NOT NULL CHECK (task IN ('reset', 'verify')),
    aggregate text CHECK (aggregate IS NOT NULL OR task = 'verify'),
    key text CHECK (key IS NULL OR task = 'reset'),
    due_at timestamptz NOT NULL,
    done_at timestamptz
);
COMMENT ON TABLE {schema}.schedule IS 'tallystick: tasks by cron expressions in UTC; due_at moves on with the effect';

-- A delta carries the epoch at which it was written. TRUNCATE draws the next one under its ACCESS EXCLUSIVE lock, so
-- whatever was written to the table before has a lower epoch and whatever is written after has at least that one.
CREATE SEQUENCE {schema}.epoch;
SELECT nextval({epoch_name});
