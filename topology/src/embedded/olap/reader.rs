//! Pure: what the reading user may do. The engine itself forbids writes, settings inside a statement, and most table
//! functions (`readonly = 1`, set on every connection of a reader); what it lets pass is refused here: functions that reach
//! files or the network, settings that name files or addresses, and statements that are no reads.

use std::collections::HashSet;

use super::exception::{ACCESS_DENIED, Exception, READONLY};
use super::lexer::{Lexer, Token, TokenKind};
use super::statement::Effect;

/// Table functions that make rows of nothing, or of tables that a reader may read anyway.
const HARMLESS: [&str; 18] = [
    "format",
    "generaterandom",
    "generateseries",
    "generate_series",
    "merge",
    "mergetreeindex",
    "null",
    "numbers",
    "numbers_mt",
    "primes",
    "sqlstandardvalues",
    "values",
    "view",
    "viewexplain",
    "viewifpermitted",
    "zeros",
    "zeros_mt",
    "fuzzjson",
];

/// Ordinary functions that read files.
const READ_FILES: [&str; 2] = ["file", "catboostevaluate"];

/// Parts of the names of settings that say where to read or write.
const REACHING_SETTINGS: [&str; 9] =
    ["schema", "template", "path", "url", "credential", "storage", "backup", "directory", "readonly"];

/// What a statement of a reader may take; it may ask for less.
pub const LIMITS: [(&str, u64); 4] = [
    ("max_execution_time", 300),
    ("max_memory_usage", 2 << 30),
    ("max_result_rows", 10_000_000),
    ("max_bytes_before_external_group_by", 1 << 30),
];

/// The functions that a reader may not call, in lower case: of the engine's table functions all but the harmless.
pub fn denied_functions(table_functions: &str) -> HashSet<String> {
    let names = table_functions.lines().map(str::to_ascii_lowercase);
    names.filter(|name| !HARMLESS.contains(&name.as_str())).chain(READ_FILES.map(str::to_owned)).collect()
}

/// # Errors
/// The statement is no read, or calls what a reader may not call.
pub fn check_statement(user: &str, sql: &[u8], effect: Effect, denied: &HashSet<String>) -> Result<(), Exception> {
    if effect == Effect::Write {
        return Err(no_write(user));
    }
    let tokens: Vec<Token> = Lexer::new(sql).collect();
    for (position, token) in tokens.iter().enumerate() {
        if effect == Effect::Session && is_assigned(sql, &tokens[position..]) {
            check_setting(user, &String::from_utf8_lossy(token.text(sql)))?;
        }
        if !is_called(sql, &tokens[position + 1..]) {
            continue;
        }
        let text = token.text(sql);
        let is_refused = match token.kind {
            TokenKind::Word => denied.contains(&String::from_utf8_lossy(text).to_ascii_lowercase()),
            // An escape may spell anything.
            TokenKind::Quoted if text.first() != Some(&b'\'') => {
                let name = String::from_utf8_lossy(text).trim_matches(['`', '"']).to_ascii_lowercase();
                name.contains('\\') || denied.contains(&name)
            }
            _ => false,
        };
        if is_refused {
            let name = String::from_utf8_lossy(text).into_owned();
            let detail =
                format!("{user}: Not enough privileges. {name} reaches beyond the tables, which a reader may not");
            return Err(Exception::new(ACCESS_DENIED, "ACCESS_DENIED", detail));
        }
    }
    Ok(())
}

pub fn no_write(user: &str) -> Exception {
    Exception::new(READONLY, "READONLY", format!("{user}: Cannot execute query in readonly mode"))
}

/// # Errors
/// The setting says where to read or write, or what a reader may do.
pub fn check_setting(user: &str, name: &str) -> Result<(), Exception> {
    let lower = name.to_ascii_lowercase();
    if REACHING_SETTINGS.iter().any(|part| lower.contains(part)) {
        let detail = format!("{user}: Cannot modify '{name}' setting in readonly mode");
        return Err(Exception::new(READONLY, "READONLY", detail));
    }
    Ok(())
}

/// `SET` with the reader's limits: the smaller of each and what was asked for.
pub fn limits(asked: &[(String, String)]) -> Vec<(String, String)> {
    let asked_for =
        |name: &str| asked.iter().rev().find(|(asked, _)| asked == name).and_then(|(_, value)| value.parse().ok());
    let limit = |(name, most): (&str, u64)| {
        // 0 is without a limit.
        let value = asked_for(name).filter(|asked| *asked > 0).map_or(most, |asked: u64| asked.min(most));
        (name.to_owned(), value.to_string())
    };
    LIMITS.into_iter().map(limit).collect()
}

/// Whether a bracket comes next. Blanks outside of ASCII are blanks to the engine and not to the lexer.
fn is_called(sql: &[u8], after: &[Token]) -> bool {
    let mut after = after.iter().filter(|token| token.text(sql).is_ascii());
    after.next().is_some_and(|token| token.kind == TokenKind::Open && token.text(sql) == b"(")
}

fn is_assigned(sql: &[u8], from: &[Token]) -> bool {
    matches!(from, [name, equals, ..] if name.kind != TokenKind::Other && equals.text(sql) == b"=")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::olap::statement::{Statement, split};

    fn check(sql: &str) -> Result<(), Exception> {
        let denied = denied_functions("file\nurl\nremote\ns3\nnumbers\nview\nformat\nexecutable");
        match split(sql.as_bytes()) {
            Statement::Query { end, effect, .. } => check_statement("default", &sql.as_bytes()[..end], effect, &denied),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn reads_of_tables_pass() {
        for sql in [
            "SELECT count() FROM events WHERE properties.path = 'file(x)' -- url(",
            "SELECT path, format('{}', url) AS file FROM events GROUP BY path, url, file",
            "SELECT * FROM numbers(10)",
            "WITH (SELECT 1) AS file SELECT file",
            "SHOW TABLES",
            "DESCRIBE TABLE events",
            "SET max_threads = 2",
            "USE system",
            "SELECT \"name\" FROM `events` WHERE name IN ('file')",
        ] {
            assert_eq!(check(sql), Ok(()), "{sql}");
        }
    }

    #[test]
    fn what_reaches_files_or_the_network_is_refused() {
        for sql in [
            "SELECT file('/etc/passwd')",
            "SELECT FILE ('/etc/passwd')",
            "SELECT file/**/('/etc/passwd')",
            "SELECT file\u{a0}('/etc/passwd')",
            "SELECT `file`('/etc/passwd')",
            "SELECT \"file\"('/etc/passwd')",
            "SELECT `\\x66ile`('/etc/passwd')",
            "SELECT * FROM view(SELECT file('/etc/passwd'))",
            "SELECT 1 IN file('/etc/passwd')",
            "DESCRIBE TABLE url('http://127.0.0.1/', LineAsString)",
            "EXPLAIN SELECT * FROM s3('http://127.0.0.1/x')",
            "SELECT catboostEvaluate('/etc/passwd', 1)",
        ] {
            assert_eq!(check(sql).map_err(|error| error.code), Err(ACCESS_DENIED), "{sql}");
        }
        for sql in [
            "KILL QUERY WHERE 1",
            "CREATE TEMPORARY TABLE t (a Int8) ENGINE = Memory",
            "INSERT INTO events SELECT * FROM events",
            "SYSTEM FLUSH LOGS",
            "OPTIMIZE TABLE events",
            "SET format_schema = '/etc/passwd:x'",
            "SET max_threads = 1, readonly = 0",
            "SET format_template_resultset='/etc/passwd'",
            "SET `format_template_row` = '/etc/passwd'",
        ] {
            assert_eq!(check(sql).map_err(|error| error.code), Err(READONLY), "{sql}");
        }
    }

    #[test]
    fn less_may_be_asked_for_and_more_is_not_given() {
        let asked = |value: &str| limits(&[("max_execution_time".to_owned(), value.to_owned())])[0].1.clone();
        assert_eq!((asked("5").as_str(), asked("9999").as_str(), asked("0").as_str()), ("5", "300", "300"));
        assert_eq!(limits(&[]).len(), LIMITS.len());
    }
}
