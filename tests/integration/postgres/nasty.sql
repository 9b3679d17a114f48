-- One of everything that copies of PostgreSQL get wrong, for the owner of an empty database; no superuser is needed.
-- Each block, up to the next line `-- and then`, is run at once.

CREATE SCHEMA "Odd Schema";
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'glad');
ALTER TYPE mood ADD VALUE 'neutral' BEFORE 'glad';
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN "Odd Schema".nested AS positive DEFAULT 7;
CREATE DOMAIN words AS text[] CHECK (cardinality(VALUE) < 10);
CREATE TYPE address AS (street text, "house no" positive, moods mood[]);
CREATE TYPE spread AS RANGE (subtype = numeric);
CREATE COLLATION simple (provider = builtin, locale = 'C.UTF-8');
COMMENT ON TYPE mood IS 'how it feels; "quoted", ''too''';
CREATE FUNCTION squared(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * $1';
CREATE FUNCTION "Odd Schema".is_short(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $body$ BEGIN RETURN length($1) < 100; END $body$;
CREATE PROCEDURE nothing() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE AGGREGATE product(int) (sfunc = int4mul, stype = int, initcond = '1');
CREATE OPERATOR <~> (leftarg = int, rightarg = int, function = int4mi);
CREATE CAST (address AS text) WITH INOUT AS ASSIGNMENT;

-- and then
CREATE TABLE "Odd Schema"."We.ird ""T"" %s" ("a b" int PRIMARY KEY, "C""D" text DEFAULT 'x''y', "select" int, gone int);
INSERT INTO "Odd Schema"."We.ird ""T"" %s" SELECT g, 'v' || g, g, g FROM generate_series(1, 50) g;
ALTER TABLE "Odd Schema"."We.ird ""T"" %s" DROP COLUMN gone;
ALTER TABLE "Odd Schema"."We.ird ""T"" %s" ADD COLUMN later int DEFAULT 5;
COMMENT ON COLUMN "Odd Schema"."We.ird ""T"" %s"."a b" IS 'a
comment of -- two lines';
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE never_filled (id bigserial PRIMARY KEY, at timestamptz DEFAULT now());
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
INSERT INTO unlogged SELECT generate_series(1, 20);
CREATE TABLE generated (b int GENERATED ALWAYS AS (a + 1) STORED, a int, c int GENERATED ALWAYS AS (a * 2) VIRTUAL);
INSERT INTO generated (a) SELECT generate_series(1, 30);
CREATE TABLE parent (id int, t text);
CREATE TABLE child (more int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'in the parent');
INSERT INTO child VALUES (2, 'in the child', 3);
CREATE TABLE events (id int NOT NULL, at date NOT NULL, kind text NOT NULL, PRIMARY KEY (id, at, kind))
    PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (kind);
CREATE TABLE events_2024_a PARTITION OF events_2024 FOR VALUES IN ('a');
CREATE TABLE events_2024_rest PARTITION OF events_2024 DEFAULT;
CREATE TABLE events_rest (kind text NOT NULL, at date NOT NULL, id int NOT NULL);
ALTER TABLE events ATTACH PARTITION events_rest DEFAULT;
INSERT INTO events SELECT g, '2023-12-01'::date + g, chr(97 + g % 3) FROM generate_series(1, 500) g;
CREATE TABLE about (event int, at date, kind text, FOREIGN KEY (event, at, kind) REFERENCES events ON DELETE CASCADE);
INSERT INTO about SELECT id, at, kind FROM events WHERE id < 50;
CREATE TABLE hashed (k int, v text) PARTITION BY HASH (k);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed SELECT g, md5(g::text) FROM generate_series(1, 300) g;
CREATE TABLE hens (id int PRIMARY KEY, egg int);
CREATE TABLE eggs (id int PRIMARY KEY, hen int REFERENCES hens DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hens ADD FOREIGN KEY (egg) REFERENCES eggs DEFERRABLE;
BEGIN; INSERT INTO eggs SELECT g, g FROM generate_series(1, 40) g; INSERT INTO hens SELECT g, g FROM generate_series(1, 40) g; COMMIT;
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree);
INSERT INTO tree SELECT g, nullif(g + 1, 101) FROM generate_series(1, 100) g;
CREATE TABLE rooms (during tsrange, room int, EXCLUDE USING gist (during WITH &&));
INSERT INTO rooms VALUES ('[2024-01-01,2024-01-02)', 1), ('[2024-01-02,2024-01-03)', 1);
CREATE TABLE half_checked (n int, maybe int UNIQUE NULLS NOT DISTINCT);
INSERT INTO half_checked VALUES (-1, 1), (2, NULL);
ALTER TABLE half_checked ADD CONSTRAINT above CHECK (n > 0) NOT VALID;
CREATE TABLE wide (id int, body text);
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL, ALTER body SET STATISTICS 500, SET (fillfactor = 70);
INSERT INTO wide SELECT g, repeat(md5(g::text), 2000) FROM generate_series(1, 60) g;
ALTER TABLE wide REPLICA IDENTITY FULL;

-- and then
CREATE TABLE kinds (
    id int GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 10) PRIMARY KEY,
    t text, v varchar(40) COLLATE simple, c char(5), n name, q "char", by bytea,
    f4 real, f8 double precision, nu numeric, nus numeric(12, 4), mo money, b boolean,
    d date, ti time, tz timetz, ts timestamp, tt timestamptz, iv interval,
    bi bit(3), vb varbit, ip inet, ci cidr, ma macaddr, ma8 macaddr8, u uuid, l pg_lsn, o oid, x8 xid8,
    js json, jb jsonb, tv tsvector, tq tsquery, jp jsonpath,
    po point, li line, ls lseg, bo box, pa path, pg polygon, ci2 circle,
    ir int4range, im int4multirange, tr tstzrange, sp spread, spm spread_multirange[],
    m mood, ms mood[][], p positive, ne "Odd Schema".nested, w words, a address, aa address[],
    rc regclass, rt regtype, rcs regclass[],
    twice int GENERATED ALWAYS AS (squared(3)) STORED
);
INSERT INTO kinds (t) VALUES (NULL), (''), ('\N'), ('\.'), (E'tab\tnew\nline\rback\\slash'), (repeat('wide ', 300000)),
    ('Zürich 東京 😀'), ('"''$$%s%%{}');
INSERT INTO kinds (v, c, n, q, by) SELECT 'item ' || g, 'ab', 'name ' || g, chr(65 + g % 26)::"char",
    decode(string_agg(lpad(to_hex(b), 2, '0'), ''), 'hex') FROM generate_series(1, 5) g, generate_series(0, 255) b
    GROUP BY g ORDER BY g;
INSERT INTO kinds (f4, f8, nu, nus, mo, b) VALUES
    ('NaN', '-Infinity', 'NaN', 1.5, '12.34', true), ('-0', '4.9e-324', 'Infinity', -99999999.9999, '-1', false),
    (1.1, 0.1::float8 + 0.2, 1e200, 0, '0', NULL),
    ('1e-45', 1.7976931348623157e308, 0.00000000000000000000000000001, NULL, NULL, NULL);
INSERT INTO kinds (d, ti, tz, ts, tt, iv) VALUES
    ('infinity', '24:00', '23:59:59.999999-12:30', '-infinity', 'infinity', '-1 year 2 mons -3 days 04:05:06.789'),
    ('4713-01-01 BC', '00:00', '00:00+14', '0044-03-15 12:00 BC', '294276-12-31 23:59:59.999999+00', 'infinity');
INSERT INTO kinds (bi, vb, ip, ci, ma, ma8, u, l, o, x8) VALUES
    (B'101', B'1', '10.1.2.3/8', '::/0', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '16/B374D848', 4294967295, '18446744073709551615');
INSERT INTO kinds (js, jb, tv, tq, jp) VALUES
    ('{"b" : 1,  "b":2}', '{"b":1,"a":[1e2,null,"\u00e9"]}', 'fat:1A cat:2,3B', 'fat & !rat:AB*', '$.a[*] ? (@ > 1)');
INSERT INTO kinds (po, li, ls, bo, pa, pg, ci2) VALUES
    ('(1.1,-2)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),5>');
INSERT INTO kinds (ir, im, tr, sp, spm) VALUES
    ('empty', '{[1,3),[5,8)}', '[2020-01-01,)', '[1.5,2.5]', ARRAY['{[1,2)}'::spread_multirange]), ('(,)', '{}', NULL, '(,1)', '{}');
INSERT INTO kinds (m, ms, p, w, a, aa) VALUES
    ('it''s "ok"', ARRAY[['sad', 'glad'], ['neutral', NULL]]::mood[][], 1, ARRAY['', 'NULL', NULL, 'a,b"'],
     ROW('Main "St", 1', 5, ARRAY['sad']::mood[])::address, ARRAY[ROW(NULL, 1, NULL)::address, NULL]);
INSERT INTO kinds (rc, rt, rcs) VALUES
    ('"Odd Schema"."We.ird ""T"" %s"', 'address', ARRAY['kinds', 'pg_class']::regclass[]);

-- and then
CREATE INDEX ON kinds (lower(t)) WHERE "Odd Schema".is_short(t);
CREATE UNIQUE INDEX covering ON hashed_0 (k) INCLUDE (v);
CREATE INDEX ON kinds USING gin (jb jsonb_path_ops);
CREATE INDEX ON kinds USING hash (u);
CREATE INDEX ON kinds (v COLLATE "C" DESC NULLS LAST);
CREATE STATISTICS together (dependencies) ON at, kind FROM events_rest;
CREATE SEQUENCE rounds AS smallint MINVALUE -5 MAXVALUE 5 START 3 INCREMENT -2 CYCLE CACHE 3;
SELECT nextval('rounds'), nextval('rounds');
CREATE SEQUENCE "Odd Schema"."Se.q""";
SELECT setval('"Odd Schema"."Se.q"""', 77, false);
CREATE VIEW "Odd Schema".seen AS SELECT k.id, k.m, e.at FROM kinds k LEFT JOIN events e ON e.id = k.id;
CREATE VIEW checked WITH (security_barrier) AS SELECT * FROM tree WHERE id > 5 WITH LOCAL CHECK OPTION;
CREATE MATERIALIZED VIEW "A view of another" AS SELECT kind, count(*) AS n FROM events GROUP BY kind;
CREATE MATERIALIZED VIEW a_first AS SELECT sum(n) AS n FROM "A view of another";
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE UNIQUE INDEX ON "A view of another" (kind);
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.t := 'meddled with'; RETURN NEW; END $$;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not here'; END $$;
CREATE TRIGGER meddling BEFORE INSERT ON kinds FOR EACH ROW EXECUTE FUNCTION meddle();
CREATE TRIGGER refusing BEFORE INSERT OR TRUNCATE ON tree FOR EACH STATEMENT EXECUTE FUNCTION refuse();
ALTER TABLE tree ENABLE ALWAYS TRIGGER refusing;
CREATE TRIGGER sleeping AFTER UPDATE ON hens FOR EACH ROW EXECUTE FUNCTION refuse();
ALTER TABLE hens DISABLE TRIGGER sleeping;
CREATE RULE nowhere AS ON INSERT TO never_filled DO INSTEAD NOTHING;
CREATE TABLE secrets (owner name DEFAULT current_user, secret text);
INSERT INTO secrets VALUES ('somebody', 'hidden'), ('another', 'hidden too');
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE secrets FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON secrets USING (owner = current_user) WITH CHECK (false);
CREATE PUBLICATION several FOR TABLE hens, eggs (id) WHERE (id > 3) WITH (publish = 'insert');
SELECT lo_from_bytea(4711, '\xdeadbeef00'::bytea), lo_from_bytea(4712, decode(repeat('00ff', 50000), 'hex'));
COMMENT ON LARGE OBJECT 4711 IS 'large';
COMMENT ON TRIGGER meddling ON kinds IS 'meddles';
COMMENT ON CONSTRAINT above ON half_checked IS 'not of all';
