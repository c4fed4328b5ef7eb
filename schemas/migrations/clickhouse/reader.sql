-- The user who reads the tables, for data teams and Grafana: nothing but SELECT on one database, and at most so much of the
-- server. A request may ask for less; more is refused. Not numbered: each `neonhub migrate` that knows the password makes it so.
CREATE SETTINGS PROFILE IF NOT EXISTS neonhub_reader {on_cluster};

-- readonly 2: reads, and settings; none that the constraints forbid.
ALTER SETTINGS PROFILE neonhub_reader {on_cluster} SETTINGS
    readonly = 2 CONST,
    max_memory_usage = 2147483648 MIN 1 MAX 2147483648,
    max_execution_time = 300 MIN 1 MAX 300,
    max_result_rows = 10000000 MIN 1 MAX 10000000,
    max_result_bytes = 1073741824 MIN 1 MAX 1073741824,
    max_rows_to_read = 10000000000 MIN 1 MAX 10000000000;

CREATE USER IF NOT EXISTS neonhub_reader {on_cluster}
    IDENTIFIED WITH sha256_hash BY '{hash}' SALT '{salt}' SETTINGS PROFILE 'neonhub_reader';

ALTER USER neonhub_reader {on_cluster}
    IDENTIFIED WITH sha256_hash BY '{hash}' SALT '{salt}' SETTINGS PROFILE 'neonhub_reader';

GRANT {on_cluster} SELECT ON `{database}`.* TO neonhub_reader WITH REPLACE OPTION;
