//! Pure: splits a statement as ClickHouse's HTTP interface does: where an INSERT's data begins, which format is asked for,
//! whether the statement only reads, and whether there is more than one. Never fails on any bytes: what it cannot make
//! sense of goes to the engine, whose error is the better one.

use super::lexer::{Lexer, Token, TokenKind};

/// What the first keyword allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// `SELECT` and its like: the engine can stream the result.
    Select,
    /// `SHOW`, `DESCRIBE`, `EXPLAIN`, `EXISTS`: reads, small results.
    Inspect,
    /// `SET` and `USE`: changes the session only.
    Session,
    /// Everything else.
    Write,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Empty,
    /// Begins with something that begins no statement, at this byte. The engine would take it for nothing at all.
    Nonsense(usize),
    /// More than one statement, at this byte.
    Multiple(usize),
    /// An INSERT whose rows come as data: `sql[..statement_end]` is the statement without FORMAT or VALUES, the rows
    /// begin at `data_start`.
    InsertData {
        statement_end: usize,
        format: Option<String>,
        data_start: usize,
    },
    /// Everything else: `sql[..end]` without a trailing semicolon.
    Query {
        end: usize,
        effect: Effect,
        format: Option<String>,
        /// `INTO OUTFILE` or `FROM INFILE`: files of the server's machine.
        touches_files: bool,
    },
}

/// Splits `sql`, which for an INSERT may go on with any bytes as data.
pub fn split(sql: &[u8]) -> Statement {
    let mut lexer = Lexer::new(sql);
    let Some(first) = lexer.next() else { return Statement::Empty };
    if first.is_word(sql, "insert")
        && let Some(insert) = split_insert(sql, lexer.clone())
    {
        return insert;
    }
    split_query(sql)
}

/// `None` when the INSERT takes its rows from a query or a file.
fn split_insert(sql: &[u8], mut lexer: Lexer<'_>) -> Option<Statement> {
    let mut token = lexer.next()?;
    if token.is_word(sql, "into") {
        token = lexer.next()?;
    }
    if token.is_word(sql, "table") || token.is_word(sql, "function") {
        token = lexer.next()?;
    }
    // `token` is the table's name now, whatever word it is.
    let mut previous_end = token.end;
    let mut depth = 0_usize;
    let mut after_dot = false;
    while let Some(next) = lexer.next() {
        match next.kind {
            TokenKind::Open => {
                let opens_query = lexer.clone().next().is_some_and(|inner| inner.is_any_word(sql, &["select", "with"]));
                if depth == 0 && opens_query {
                    return None;
                }
                depth += 1;
            }
            TokenKind::Close => depth = depth.saturating_sub(1),
            TokenKind::Semicolon if depth == 0 => {
                return Some(Statement::InsertData { statement_end: previous_end, format: None, data_start: next.end });
            }
            TokenKind::Word if depth == 0 && !after_dot => {
                if next.is_any_word(sql, &["select", "with", "watch", "from"]) {
                    return None;
                }
                if next.is_word(sql, "values") {
                    let format = Some("Values".to_owned());
                    return Some(Statement::InsertData { statement_end: previous_end, format, data_start: next.end });
                }
                if next.is_word(sql, "format")
                    && let Some(name) = lexer.clone().next()
                    && name.kind == TokenKind::Word
                {
                    let format = Some(String::from_utf8_lossy(name.text(sql)).into_owned());
                    if format.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("values")) {
                        return Some(Statement::InsertData {
                            statement_end: previous_end,
                            format,
                            data_start: name.end,
                        });
                    }
                    let data_start = skip_to_data(sql, name.end);
                    return Some(Statement::InsertData { statement_end: previous_end, format, data_start });
                }
            }
            _ => {}
        }
        after_dot = next.kind == TokenKind::Other && next.text(sql) == b".";
        previous_end = next.end;
    }
    Some(Statement::InsertData { statement_end: previous_end, format: None, data_start: sql.len() })
}

/// Data begins after the first newline behind the format's name, if only blanks come before it; else after the blanks.
fn skip_to_data(sql: &[u8], name_end: usize) -> usize {
    let mut at = name_end;
    while matches!(sql.get(at), Some(b' ' | b'\t' | b'\x0c')) {
        at += 1;
    }
    if sql.get(at) == Some(&b'\r') {
        at += 1;
    }
    if sql.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

fn split_query(sql: &[u8]) -> Statement {
    let mut tokens: Vec<Token> = Vec::new();
    let mut depth = 0_usize;
    let mut end = None;
    let mut last_end = 0;
    for token in Lexer::new(sql) {
        if end.is_some() {
            match token.kind {
                TokenKind::Semicolon => continue,
                _ => return Statement::Multiple(token.start),
            }
        }
        match token.kind {
            TokenKind::Open => depth += 1,
            TokenKind::Close => depth = depth.saturating_sub(1),
            TokenKind::Semicolon => {
                end = Some(last_end);
                continue;
            }
            _ => {}
        }
        last_end = token.end;
        if depth == 0 || tokens.is_empty() {
            tokens.push(token);
        }
    }
    let Some(first) = tokens.first() else { return Statement::Empty };
    if !matches!(first.kind, TokenKind::Word | TokenKind::Open) {
        return Statement::Nonsense(first.start);
    }
    let words = |position: usize, names: &[&str]| tokens.get(position).is_some_and(|it| it.is_any_word(sql, names));
    let any_at = |word: &str| (0..tokens.len()).any(|position| words(position, &[word]));
    let effect = if first.kind == TokenKind::Open || words(0, &["select", "with", "from"]) {
        if any_at("insert") { Effect::Write } else { Effect::Select }
    } else if words(0, &["show", "describe", "desc", "explain", "exists"]) {
        Effect::Inspect
    } else if words(0, &["set", "use"]) {
        Effect::Session
    } else {
        Effect::Write
    };
    let touches_files = (0..tokens.len().saturating_sub(1)).any(|position| {
        (words(position, &["into"]) && words(position + 1, &["outfile"]))
            || (words(position, &["from"]) && words(position + 1, &["infile"]))
    });
    let format = (1..tokens.len()).rev().find_map(|position| {
        let name = tokens.get(position + 1).filter(|name| name.kind == TokenKind::Word)?;
        let closes = position + 2 == tokens.len() || words(position + 2, &["settings"]);
        (words(position, &["format"]) && closes).then(|| String::from_utf8_lossy(name.text(sql)).into_owned())
    });
    Statement::Query { end: end.unwrap_or(last_end), effect, format, touches_files }
}

/// Words that end a terminal session in the engine's command line and must never reach it.
pub fn is_terminal_command(sql: &[u8]) -> bool {
    let trimmed = sql.trim_ascii();
    let text = trimmed.strip_suffix(b";").unwrap_or(trimmed).trim_ascii();
    if text.first().is_some_and(|byte| matches!(byte, b'\\' | b'?')) {
        return true;
    }
    ["exit", "quit", "logout", "q"].iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
        || ["учше", "йгше", "дщпщге", "й"].iter().any(|word| text == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(sql: &[u8]) -> (String, Option<String>, Vec<u8>) {
        match split(sql) {
            Statement::InsertData { statement_end, format, data_start } => {
                (String::from_utf8_lossy(&sql[..statement_end]).into_owned(), format, sql[data_start..].to_vec())
            }
            other => panic!("not an insert with data: {other:?}"),
        }
    }

    #[test]
    fn insert_data_begins_after_the_format_and_one_newline() {
        let (sql, format, data) = insert(b"INSERT INTO t FORMAT RowBinary\n\n\x00;'\xff");
        assert_eq!((sql.as_str(), format.as_deref()), ("INSERT INTO t", Some("RowBinary")));
        assert_eq!(data, b"\n\x00;'\xff");
        assert_eq!(insert(b"insert into t format CSV 1,2").2, b"1,2");
        assert_eq!(insert(b"insert into t format CSV\r\n1").2, b"1");
        assert_eq!(insert(b"insert into t FORMAT JSONEachRow{\"a\":1}").2, b"{\"a\":1}");
    }

    #[test]
    fn values_columns_settings_and_odd_names() {
        let (sql, format, data) =
            insert(b"INSERT INTO a.values (`format`, values) SETTINGS x='format y' VALUES (1,';')");
        assert_eq!(sql, "INSERT INTO a.values (`format`, values) SETTINGS x='format y'");
        assert_eq!((format.as_deref(), data.as_slice()), (Some("Values"), &b" (1,';')"[..]));
        assert_eq!(
            insert(b"INSERT INTO FUNCTION file('format', CSV) FORMAT TSV\n1").0,
            "INSERT INTO FUNCTION file('format', CSV)"
        );
        assert_eq!(insert(b"-- c;\n/* ; */ insert into values").1, None);
        assert_eq!(insert(b"INSERT INTO t (a) FORMAT Native").2, b"");
    }

    #[test]
    fn inserts_from_queries_are_queries() {
        for sql in ["insert into t select 1", "insert into t (select 1)", "insert into t (a) with 1 as x select x"] {
            assert!(matches!(split(sql.as_bytes()), Statement::Query { effect: Effect::Write, .. }), "{sql}");
        }
        let infile = split(b"insert into t from infile 'x' format CSV");
        assert!(matches!(infile, Statement::Query { touches_files: true, .. }));
    }

    #[test]
    fn effects_formats_and_ends() {
        let query = |sql: &str| match split(sql.as_bytes()) {
            Statement::Query { end, effect, format, .. } => (sql[..end].to_owned(), effect, format),
            other => panic!("{sql}: {other:?}"),
        };
        assert_eq!(query("select 1 ; ;"), ("select 1".into(), Effect::Select, None));
        assert_eq!(query("select format from t FORMAT CSV settings a=1").2.as_deref(), Some("CSV"));
        assert_eq!(query("select format from t").2, None);
        assert_eq!(query("(select 1 format x) format JSON").2.as_deref(), Some("JSON"));
        assert_eq!(query("with 1 as x insert into t select x").1, Effect::Write);
        assert_eq!(query("SHOW TABLES").1, Effect::Inspect);
        assert_eq!(query("use x").1, Effect::Session);
        assert_eq!(query("create table x (a Int8) engine=Memory").1, Effect::Write);
        assert_eq!(query("select ';' -- ;").0, "select ';'");
    }

    #[test]
    fn several_statements_and_none() {
        assert_eq!(split(b"select 1; select 2"), Statement::Multiple(10));
        assert_eq!(split(b" -- nothing\n"), Statement::Empty);
        assert_eq!(split(b" \xff\xfe"), Statement::Nonsense(1));
        assert!(matches!(split(b"select 1 into outfile 'x'"), Statement::Query { touches_files: true, .. }));
        assert!(
            is_terminal_command(b" exit; ") && is_terminal_command(b"\\q") && !is_terminal_command(b"exists table t")
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let pieces: [&[u8]; 12] =
            [b"insert", b" into ", b"t", b"(", b")", b"format ", b"values", b"'", b"\\", b"/*", b"$a$", b"\xff;--"];
        for seed in 0..20_000_usize {
            let mut state = seed;
            let mut sql = Vec::new();
            for _ in 0..8 {
                sql.extend_from_slice(pieces[state % pieces.len()]);
                state = state / pieces.len() + seed.rotate_left(7) % 31;
            }
            match split(&sql) {
                Statement::InsertData { statement_end, data_start, .. } => {
                    assert!(statement_end <= data_start && data_start <= sql.len());
                }
                Statement::Query { end, .. } => assert!(end <= sql.len()),
                Statement::Empty | Statement::Nonsense(_) | Statement::Multiple(_) => {}
            }
        }
    }
}
