//! Pure: no I/O, no clock, no async.
//!
//! Numbered migrations for ClickHouse and for CQL. A file is applied once, in order, and never changed after that: its
//! hash is kept beside its number. The reading user of a ClickHouse server has a file without a number: its password may change.

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128;

/// One numbered file.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    pub number: u32,
    pub name: &'static str,
    /// As it stands in the file, placeholders included.
    pub text: &'static str,
}

macro_rules! files {
    ($folder:literal: $($number:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            number: $number,
            name: $name,
            text: include_str!(concat!("../migrations/", $folder, "/", $name)),
        }),*]
    };
}

pub const CLICKHOUSE: &[Migration] = files!["clickhouse":
    1 "0001_events.sql",
    2 "0002_metric_windows.sql",
    3 "0003_metric_activations.sql",
    4 "0004_dead_letters.sql",
    5 "0005_audit_log.sql",
];

pub const CQL: &[Migration] = files!["cql":
    1 "0001_metric_definitions.cql",
    2 "0002_access_keys.cql",
];

impl Migration {
    /// Of the file's text, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{:032x}", xxh3_128(self.text.as_bytes()))
    }

    /// The statements, with placeholders filled in.
    #[must_use]
    pub fn statements(&self, target: &ClickHouseTarget<'_>) -> Vec<String> {
        target.statements(self.text)
    }
}

/// The user of a ClickHouse server who reads the tables of `target`'s database and nothing else: made, or made so again.
/// `salt` is anything that is new each time.
#[must_use]
pub fn reading_user(target: &ClickHouseTarget<'_>, password: &str, salt: u128) -> Vec<String> {
    let salt = format!("{salt:032x}");
    // As ClickHouse checks it: https://clickhouse.com/docs/sql-reference/statements/create/user
    let hash =
        Sha256::digest(format!("{password}{salt}")).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let text = include_str!("../migrations/clickhouse/reader.sql");
    target.statements(&text.replace("{hash}", &hash).replace("{salt}", &salt))
}

/// Where migrations go: which database, and, with a cluster, replicated engines on all of it.
#[derive(Clone, Copy, Debug)]
pub struct ClickHouseTarget<'a> {
    pub database: &'a str,
    pub cluster: Option<&'a str>,
}

impl ClickHouseTarget<'_> {
    /// Files end each statement with `;` at a line's end.
    fn statements(&self, text: &str) -> Vec<String> {
        text.split(";\n")
            .map(|statement| {
                let lines = statement.lines().filter(|line| !line.trim_start().starts_with("--"));
                self.fill(&lines.collect::<Vec<_>>().join("\n")).trim().to_owned()
            })
            .filter(|statement| !statement.is_empty())
            .collect()
    }

    fn fill(&self, statement: &str) -> String {
        let on_cluster = self.cluster.map_or_else(String::new, |cluster| format!("ON CLUSTER `{cluster}`"));
        let replicated = if self.cluster.is_some() { "Replicated" } else { "" };
        statement
            .replace("{database}", self.database)
            .replace("{on_cluster}", &on_cluster)
            .replace("{replicated}", replicated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_consecutive_and_open_their_file_names() {
        for migrations in [CLICKHOUSE, CQL] {
            for (index, migration) in migrations.iter().enumerate() {
                assert_eq!(migration.number as usize, index + 1);
                assert!(migration.name.starts_with(&format!("{:04}_", migration.number)));
            }
        }
    }

    #[test]
    fn no_placeholder_is_left_and_clusters_replicate() {
        for migration in CLICKHOUSE {
            let alone = ClickHouseTarget { database: "neonhub", cluster: None };
            let cluster = ClickHouseTarget { database: "neonhub", cluster: Some("main") };
            for statement in migration.statements(&alone).iter().chain(&migration.statements(&cluster)) {
                assert!(!statement.contains(['{', '}', ';']), "{}: {statement}", migration.name);
            }
            assert!(migration.statements(&cluster).iter().any(|statement| statement.contains("Replicated")));
        }
    }

    #[test]
    fn the_reading_user_is_named_by_a_salted_hash_and_never_by_its_password() {
        let cluster = ClickHouseTarget { database: "neonhub", cluster: Some("main") };
        let statements = reading_user(&cluster, "secret", 1);
        assert_eq!(statements.len(), 5);
        assert!(statements.iter().all(|statement| statement.contains("ON CLUSTER `main`")), "{statements:?}");
        assert!(!statements.concat().contains(['{', '}', ';', '?']) && !statements.concat().contains("secret"));
        // printf 'secret00000000000000000000000000000001' | sha256sum
        let identified = "sha256_hash BY '39183cf5d51e09bbdee0e3d0e9f109cf31299d99b2865c7974f9f1ddd742e93d' SALT '00000000000000000000000000000001'";
        assert!(statements[2].contains(identified) && statements[3].contains(identified), "{statements:?}");
    }
}
