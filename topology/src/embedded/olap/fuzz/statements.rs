//! Pure: no I/O, no clock, no async.
//!
//! Statements: tokens stand in their order, pieces lie within the text, and nothing that was quoted gets out of its quotes.

use crate::embedded::olap::formats::{header_length, joining, needs_whole_result};
use crate::embedded::olap::lexer::{Lexer, TokenKind};
use crate::embedded::olap::parameters::{quoted, quoted_identifier, set_statement};
use crate::embedded::olap::statement::{Effect, Statement, is_terminal_command, split};

pub fn check(sql: &[u8]) {
    let mut last_end = 0;
    for token in Lexer::new(sql) {
        assert!(token.start >= last_end && token.end > token.start && token.end <= sql.len(), "{token:?}");
        last_end = token.end;
    }
    match split(sql) {
        Statement::InsertData { statement_end, data_start, .. } => {
            assert!(statement_end <= data_start && data_start <= sql.len());
            // Its text alone is an INSERT as well, and still no second statement.
            assert!(matches!(split(&sql[..statement_end]), Statement::InsertData { .. }));
        }
        Statement::Query { end, effect, format, .. } => {
            assert!(end <= sql.len());
            let alone = split(&sql[..end]);
            let is_same = matches!(&alone, Statement::Query { effect: again, format: named, .. }
                if *again == effect && *named == format);
            assert!(is_same, "without its end the statement is {alone:?}");
        }
        Statement::Nonsense(at) | Statement::Multiple(at) => assert!(at < sql.len()),
        Statement::Empty => assert!(Lexer::new(sql).all(|token| token.kind == TokenKind::Semicolon)),
    }
    let _is_one = is_terminal_command(sql);
    let _needs = needs_whole_result(sql, &[]);
    if let Ok(text) = std::str::from_utf8(sql) {
        check_quoting(text);
        let length = header_length(joining(text.lines().next().unwrap_or_default()), sql);
        assert!(length <= sql.len());
    }
}

fn check_quoting(text: &str) {
    for literal in [quoted(text), quoted_identifier(text)] {
        let tokens: Vec<_> = Lexer::new(literal.as_bytes()).collect();
        let is_one =
            matches!(tokens.as_slice(), [token] if token.kind == TokenKind::Quoted && token.end == literal.len());
        assert!(is_one, "{literal:?} is {tokens:?}");
    }
    let settings = [("a".to_owned(), text.to_owned()), ("b".to_owned(), text.to_owned())];
    let set = set_statement(&settings).unwrap_or_default();
    let is_set = matches!(split(set.as_bytes()), Statement::Query { effect: Effect::Session, .. });
    assert!(is_set, "{set:?} is {:?}", split(set.as_bytes()));
}
