//! Pure: what the reading user may do. The engine itself forbids writes, settings inside a statement, and most table
//! functions (`readonly = 1`, set on every connection of a reader). What it lets pass is refused here. The engine reads SQL a
//! little differently than our lexer does, so a reader's statement is written anew from the lexer's tokens, without comments,
//! and whatever could be read in two ways is refused.

use std::collections::HashSet;

use super::exception::{ACCESS_DENIED, Exception, READONLY};
use super::lexer::{Lexer, Token, TokenKind};
use super::statement::Effect;

/// Table functions that make rows of nothing, or of tables that a reader may read anyway.
const HARMLESS: [&str; 18] = [
    "format",
    "fuzzjson",
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
];

/// Ordinary functions that read files, and words that write them: refused wherever they stand, since a function may also be
/// named without being called (`arrayMap(file, …)`, `APPLY file`).
const REFUSED_WORDS: [&str; 6] = ["file", "catboostevaluate", "outfile", "infile", "sleep", "sleepeachrow"];
/// Beginnings of the names of functions that reach the network or the program itself.
const REFUSED_PREFIXES: [&str; 3] = ["ai", "addressto", "demangle"];

/// Settings that a reader may choose, by the beginning of their names.
const SETTINGS: [&str; 20] = [
    "aggregate_functions_null_for_empty",
    "date_time_",
    "do_not_merge_across_partitions_select_final",
    "extremes",
    "final",
    "group_by_",
    "input_format_",
    "join_",
    "log_comment",
    "max_",
    "min_",
    "optimize_",
    "output_format_",
    "prefer_column_name_to_alias",
    "read_overflow_mode",
    "result_overflow_mode",
    "session_timezone",
    "timeout_overflow_mode",
    "totals_mode",
    "use_query_cache",
];
/// Parts of the names of those that say where to read; and of those that keep the parser from running out of its stack, or
/// from holding on to a slow statement.
const REACHING: [&str; 11] = [
    "schema",
    "template",
    "path",
    "url",
    "credential",
    "sleep",
    "depth",
    "_ast_",
    "query_size",
    "backtracks",
    "_speed",
];

/// What a statement of a reader may take; it may ask for less.
pub const LIMITS: [(&str, u64); 5] = [
    ("max_execution_time", 300),
    ("max_memory_usage", 2 << 30),
    ("max_result_rows", 10_000_000),
    ("max_result_bytes", 1 << 30),
    ("max_bytes_before_external_group_by", 1 << 30),
];

/// Settings as they are to be set.
pub type Settings = Vec<(String, String)>;

/// What a statement changes in a session.
#[derive(Debug, PartialEq, Eq)]
pub enum SessionChange {
    Database(String),
    Settings(Settings),
}

/// The functions that a reader may not call, in lower case: of the engine's table functions all but the harmless.
pub fn denied_functions(table_functions: &str) -> HashSet<String> {
    table_functions.lines().map(str::to_ascii_lowercase).filter(|name| !HARMLESS.contains(&name.as_str())).collect()
}

/// The statement as the engine is to see it.
///
/// # Errors
/// The statement is no read, calls what a reader may not call, or can be read in two ways.
pub fn checked_statement(
    user: &str,
    sql: &[u8],
    effect: Effect,
    denied: &HashSet<String>,
) -> Result<Vec<u8>, Exception> {
    if effect == Effect::Write {
        return Err(no_write(user));
    }
    let tokens: Vec<Token> = Lexer::new(sql).collect();
    let mut anew = Vec::with_capacity(sql.len());
    for (position, token) in tokens.iter().enumerate() {
        let text = token.text(sql);
        let before = position.checked_sub(1).map(|before| &tokens[before]);
        let after = tokens.get(position + 1);
        if is_ambiguous(text, after.filter(|after| after.start == token.end).map(|after| after.text(sql))) {
            let shown = String::from_utf8_lossy(text).chars().take(20).collect::<String>();
            return Err(denied_to(user, &format!("`{shown}`, which can be read in two ways")));
        }
        let is_name = before.is_some_and(|before| before.is_word(sql, "as") || before.text(sql) == b".");
        let is_called = after.is_some_and(|after| after.text(sql) == b"(");
        let name = String::from_utf8_lossy(text).trim_matches(['`', '"']).to_ascii_lowercase();
        let is_identifier = token.kind == TokenKind::Word || matches!(text.first(), Some(b'`' | b'"'));
        let is_word = REFUSED_WORDS.contains(&name.as_str());
        let is_function = is_called
            && (is_word || denied.contains(&name) || REFUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        if is_identifier && (is_function || is_word && !is_name) {
            return Err(denied_to(user, &name));
        }
        // What stood between two tokens was blanks or a comment.
        if before.is_some_and(|before| before.end < token.start) {
            anew.push(b' ');
        }
        anew.extend_from_slice(text);
    }
    Ok(anew)
}

/// Texts in plain quotes are read alike. Elsewhere the engine has further quotes, blanks and comments.
fn is_ambiguous(text: &[u8], directly_after: Option<&[u8]>) -> bool {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    match text {
        [b'\'', .., b'\''] => false,
        [quote @ (b'`' | b'"'), .., last] if quote == last => inner.contains(quote) || inner.contains(&b'\\'),
        b"/" => matches!(directly_after, Some(b"/" | b"*")),
        b"-" => directly_after == Some(b"-"),
        _ => {
            !text.is_ascii()
                || text.iter().any(|byte| matches!(byte, b'$' | b'#' | b'\\' | b'\'' | b'`' | b'"' | b'\0'))
        }
    }
}

/// `USE database`, or `SET name = value, …` with plain values: read here, so that no text of a reader's is run where it could
/// do more.
///
/// # Errors
/// It is none of these, or changes what a reader may not change.
pub fn session_change(user: &str, sql: &[u8]) -> Result<SessionChange, Exception> {
    let tokens: Vec<Token> = Lexer::new(sql).collect();
    let unreadable = || Exception::syntax("a reader's session takes `USE database` and `SET name = value, …`");
    let (first, rest) = tokens.split_first().ok_or_else(unreadable)?;
    if first.is_word(sql, "use") {
        return match rest {
            [name] => plain_name(name.text(sql)).map(SessionChange::Database).ok_or_else(unreadable),
            _ => Err(unreadable()),
        };
    }
    let mut settings = Settings::new();
    for assignment in rest.split(|token| token.text(sql) == b",") {
        let [name, equals, value @ ..] = assignment else { return Err(unreadable()) };
        if equals.text(sql) != b"=" || settings.len() >= MOST_SETTINGS {
            return Err(unreadable());
        }
        let name = plain_name(name.text(sql)).ok_or_else(unreadable)?;
        check_setting(user, &name)?;
        settings.push((name, literal(sql, value).ok_or_else(unreadable)?));
    }
    Ok(SessionChange::Settings(settings))
}

const MOST_SETTINGS: usize = 100;
const LONGEST_VALUE: usize = 1_000;

fn plain_name(text: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(text).ok()?.trim_matches(['`', '"']);
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (!name.is_empty() && is_plain).then(|| name.to_owned())
}

/// A number, a word or a text without escapes.
fn literal(sql: &[u8], tokens: &[Token]) -> Option<String> {
    let (first, last) = (tokens.first()?, tokens.last()?);
    let text = std::str::from_utf8(&sql[first.start..last.end]).ok()?;
    let quoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let value = match (tokens.len(), quoted) {
        (1, Some(inner)) => inner,
        _ => text,
    };
    let is_plain = match quoted {
        Some(_) => tokens.len() == 1 && !value.contains(['\'', '\\']),
        None => value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte)),
    };
    (is_plain && value.len() <= LONGEST_VALUE).then(|| value.to_owned())
}

pub fn no_write(user: &str) -> Exception {
    Exception::new(READONLY, "READONLY", format!("{user}: Cannot execute query in readonly mode"))
}

fn denied_to(user: &str, what: &str) -> Exception {
    let detail = format!("{user}: Not enough privileges. A reader may not use {what}");
    Exception::new(ACCESS_DENIED, "ACCESS_DENIED", detail)
}

/// # Errors
/// The setting is none of those that a reader may choose.
pub fn check_setting(user: &str, name: &str) -> Result<(), Exception> {
    let lower = name.to_ascii_lowercase();
    let may_choose = SETTINGS.iter().any(|allowed| lower.starts_with(allowed));
    if !may_choose || REACHING.iter().any(|part| lower.contains(part)) {
        let detail = format!("{user}: Cannot modify '{name}' setting in readonly mode");
        return Err(Exception::new(READONLY, "READONLY", detail));
    }
    Ok(())
}

/// The reader's limits: the smaller of each and what was asked for, the later word counting.
pub fn limits(asked: &[(String, String)]) -> Settings {
    let asked_for =
        |name: &str| asked.iter().rev().find(|(asked, _)| asked == name).and_then(|(_, value)| value.parse().ok());
    let limit = |(name, most): (&str, u64)| {
        // 0 is without a limit.
        let value = asked_for(name).filter(|asked| *asked > 0).map_or(most, |asked: u64| asked.min(most));
        (name.to_owned(), value.to_string())
    };
    LIMITS.into_iter().map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::olap::statement::{Statement, split};

    fn check(sql: &str) -> Result<String, Exception> {
        let denied = denied_functions("file\nurl\nremote\ns3\nnumbers\nview\nformat\nexecutable");
        match split(sql.as_bytes()) {
            Statement::Query { end, effect: Effect::Session, .. } => {
                session_change("default", &sql.as_bytes()[..end]).map(|change| format!("{change:?}"))
            }
            Statement::Query { end, effect, .. } => {
                let anew = checked_statement("default", &sql.as_bytes()[..end], effect, &denied)?;
                Ok(String::from_utf8(anew).unwrap())
            }
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn reads_of_tables_pass() {
        for sql in [
            "SELECT count() FROM events WHERE properties.path = 'file(x)' -- url(",
            "SELECT path, format('{}', url) AS file FROM events GROUP BY path, url",
            "SELECT * FROM numbers(10)",
            "SELECT properties.file, a/b, -1 - -2 FROM t",
            "SHOW TABLES",
            "DESCRIBE TABLE events",
            "SELECT \"größe\" FROM `events` WHERE name IN ('file', 'ü''s \\' $x$ ‘')",
        ] {
            assert!(check(sql).is_ok(), "{sql}: {:?}", check(sql));
        }
        assert_eq!(check("SELECT/* x */1--y\n,2").unwrap(), "SELECT 1 ,2", "comments are left out");
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
            "SELECT arrayMap(file, ['/etc/passwd'])",
            "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
            "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
            "SELECT 1 AS a$x$, file('/etc/passwd')",
            "SELECT 1 // '\n, file('/etc/passwd')",
            "SELECT 1 AS “a'”, file('/etc/passwd') AS “b'”",
            "SELECT 1 AS file, t.file('/etc/passwd')",
            "SELECT 1 # '\n, file('/etc/passwd')",
            "SELECT 1 AS a$x$ INTO OUTFILE '/tmp/x'",
            "SELECT 1 INTO\u{a0}OUTFILE '/tmp/x'",
            "SELECT * FROM view(SELECT file('/etc/passwd'))",
            "DESCRIBE TABLE url('http://127.0.0.1/', LineAsString)",
            "EXPLAIN SELECT * FROM s3('http://127.0.0.1/x')",
            "SELECT catboostEvaluate('/etc/passwd', 1)",
            "SELECT aiGenerate('x')",
            "SELECT addressToLine(1)",
            "SELECT sleepEachRow(1) FROM numbers(20)",
        ] {
            assert_eq!(check(sql).map_err(|error| error.code), Err(ACCESS_DENIED), "{sql}");
        }
    }

    #[test]
    fn what_is_no_read_is_refused() {
        for sql in [
            "KILL QUERY WHERE 1",
            "CREATE TEMPORARY TABLE t (a Int8) ENGINE = Memory",
            "INSERT INTO events SELECT * FROM events",
            "SYSTEM FLUSH LOGS",
            "OPTIMIZE TABLE events",
            "SET format_schema = '/etc/passwd:x'",
            "SET max_threads = 1, readonly = 0",
            "SET format_template_resultset='/etc/passwd'",
            "SET additional_result_filter = 'file(1)'",
            "SET allow_introspection_functions = 1",
            "SET max_parser_depth = 100000000",
            "SET max_query_size = 100000000",
            "SET max_expanded_ast_elements = 100000000",
            "SET `format_template_row` = '/etc/passwd'",
        ] {
            assert_eq!(check(sql).map_err(|error| error.code), Err(READONLY), "{sql}");
        }
    }

    #[test]
    fn a_session_takes_databases_and_plain_settings_and_nothing_else() {
        let settings = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            format!("{:?}", SessionChange::Settings(pairs.collect()))
        };
        assert_eq!(check("USE system").unwrap(), r#"Database("system")"#);
        assert_eq!(check("USE `neonhub`").unwrap(), r#"Database("neonhub")"#);
        assert_eq!(
            check("SET max_threads = 2, session_timezone='Asia/Tokyo', max_block_size = 1e3").unwrap(),
            settings(&[("max_threads", "2"), ("session_timezone", "Asia/Tokyo"), ("max_block_size", "1e3")])
        );
        for sql in [
            "USE system PARALLEL WITH CREATE DATABASE pwned",
            "SET max_threads = 1, param_y$x$ = 2; CREATE DATABASE pwned",
            "SET log_comment = ‘a'’; CREATE DATABASE pwned2",
            "SET max_threads",
            "SET max_threads = ",
            "SET max_threads = 1 2",
            "SET max_threads = (SELECT 1)",
            "SET log_comment = 'it\\'s'",
            "SET log_comment = 'a' 'b'",
            "SET ROLE admin",
            "USE a.b",
            "USE `a``b`",
        ] {
            let outcome = match split(sql.as_bytes()) {
                Statement::Query { end, .. } => session_change("default", &sql.as_bytes()[..end]),
                _ => Err(Exception::syntax("several")),
            };
            assert!(outcome.is_err(), "{sql}: {outcome:?}");
        }
    }

    #[test]
    fn less_may_be_asked_for_and_more_is_not_given() {
        let asked = |value: &str| limits(&[("max_execution_time".to_owned(), value.to_owned())])[0].1.clone();
        assert_eq!((asked("5").as_str(), asked("9999").as_str(), asked("0").as_str()), ("5", "300", "300"));
        assert_eq!(limits(&[]).len(), LIMITS.len());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let pieces: [&[u8]; 12] =
            [b"set ", b"use ", b"a", b" = ", b",", b"'", b"`", b"\\", b"$x$", b"\xe2\x80\x98", b"/*", b"("];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    let sql = [first, second, third].concat();
                    let _either = session_change("u", &sql);
                    let _either = checked_statement("u", &sql, Effect::Select, &HashSet::new());
                }
            }
        }
    }
}
