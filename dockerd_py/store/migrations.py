"""The database's schema as numbered steps.  A step that was ever released is never edited: add another.

``PRAGMA user_version`` counts the steps that a database has been through.  Times are nanoseconds since the epoch,
sizes bytes.  A layer's ``diff_id`` and ``chain_id`` are spelt as in OCI image configs ("sha256:<hex>"), an image's id
is bare hex.  Whatever a storage driver holds carries the driver's name: another driver's rows are invisible while
it is not in use, and untouched.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (
        key   TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;

    -- chain_id and diff_id are known once the layer is unpacked: '' until it is ready.
    CREATE TABLE layers (
        cache_id     TEXT PRIMARY KEY,
        driver       TEXT NOT NULL,
        chain_id     TEXT NOT NULL DEFAULT '',
        diff_id      TEXT NOT NULL DEFAULT '',
        parent_chain TEXT,
        size         INTEGER NOT NULL DEFAULT 0,
        state        TEXT NOT NULL CHECK (state IN ('intended', 'ready', 'removing')),
        CHECK (state <> 'ready' OR chain_id <> '')
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX ready_layers ON layers (driver, chain_id) WHERE state = 'ready';
    CREATE INDEX layers_on_chain ON layers (driver, parent_chain);

    CREATE TABLE images (
        driver    TEXT NOT NULL,
        id        TEXT NOT NULL,
        config    BLOB NOT NULL,
        created   INTEGER NOT NULL,
        parent_id TEXT,
        chain_id  TEXT,
        size      INTEGER NOT NULL,
        PRIMARY KEY (driver, id)
    ) WITHOUT ROWID;
    CREATE INDEX images_on_chain ON images (driver, chain_id);

    CREATE TABLE tags (
        driver   TEXT NOT NULL,
        repo     TEXT NOT NULL,
        tag      TEXT NOT NULL,
        image_id TEXT NOT NULL,
        PRIMARY KEY (driver, repo, tag),
        FOREIGN KEY (driver, image_id) REFERENCES images (driver, id)
    ) WITHOUT ROWID;
    CREATE INDEX tags_of_image ON tags (driver, image_id);

    -- image_id refers to no row on purpose: an image may be removed by force under a stopped container.
    CREATE TABLE containers (
        id       TEXT PRIMARY KEY,
        driver   TEXT NOT NULL,
        name     TEXT NOT NULL,
        image_id TEXT NOT NULL,
        created  INTEGER NOT NULL,
        settings TEXT NOT NULL,
        state    TEXT NOT NULL,
        phase    TEXT NOT NULL CHECK (phase IN ('creating', 'ready', 'removing')),
        UNIQUE (driver, name)
    ) WITHOUT ROWID;

    CREATE TABLE rw_layers (
        container_id TEXT PRIMARY KEY REFERENCES containers (id),
        driver       TEXT NOT NULL,
        cache_id     TEXT NOT NULL UNIQUE,
        parent_chain TEXT,
        state        TEXT NOT NULL CHECK (state IN ('intended', 'ready', 'removing'))
    ) WITHOUT ROWID;
    CREATE INDEX rw_layers_on_chain ON rw_layers (driver, parent_chain);
    """,
    """
    -- Volumes belong to no storage driver.  labels and options are JSON objects of strings.
    CREATE TABLE volumes (
        name    TEXT PRIMARY KEY,
        labels  TEXT NOT NULL,
        options TEXT NOT NULL,
        created INTEGER NOT NULL,
        state   TEXT NOT NULL CHECK (state IN ('intended', 'ready', 'removing'))
    ) WITHOUT ROWID;

    CREATE TABLE volume_users (
        container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
        volume       TEXT NOT NULL REFERENCES volumes (name),
        PRIMARY KEY (container_id, volume)
    ) WITHOUT ROWID;
    CREATE INDEX users_of_volume ON volume_users (volume);
    """,
    """
    -- Networks belong to no storage driver.  What containers have on them is in the containers' rows.
    CREATE TABLE networks (
        id       TEXT PRIMARY KEY,
        name     TEXT NOT NULL UNIQUE,
        created  INTEGER NOT NULL,
        settings TEXT NOT NULL,
        state    TEXT NOT NULL CHECK (state IN ('intended', 'ready', 'removing'))
    ) WITHOUT ROWID;
    """,
)
