//! Pure: just enough of ClickHouse's lexer to skip comments and quoted text and to see words and brackets.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    Word,
    Quoted,
    Open,
    Close,
    Semicolon,
    Other,
}

#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    pub fn text<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        &sql[self.start..self.end]
    }

    pub fn is_word(&self, sql: &[u8], word: &str) -> bool {
        self.kind == TokenKind::Word && self.text(sql).eq_ignore_ascii_case(word.as_bytes())
    }

    pub fn is_any_word(&self, sql: &[u8], words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(sql, word))
    }
}

/// Yields the significant tokens of a statement; anything unterminated reaches to the end.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        &self.sql[self.at..]
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let Some(first) = rest.first() else { return };
            let skipped = if first.is_ascii_whitespace() || matches!(first, b'\x0b' | b'\0') {
                1
            } else if rest.starts_with(b"--") || rest.starts_with(b"#!") || rest.starts_with(b"# ") {
                position_after(rest, b"\n", 1)
            } else if rest.starts_with(b"/*") {
                position_after(rest, b"*/", 2)
            } else if rest.starts_with("\u{feff}".as_bytes()) {
                3
            } else {
                return;
            };
            self.at += skipped;
        }
    }

    fn quoted_length(&self, quote: u8) -> usize {
        let rest = self.rest();
        let mut at = 1;
        while at < rest.len() {
            match rest[at] {
                b'\\' => at += 2,
                byte if byte == quote && rest.get(at + 1) == Some(&quote) => at += 2,
                byte if byte == quote => return at + 1,
                _ => at += 1,
            }
        }
        rest.len()
    }

    /// `$tag$ … $tag$`, or a plain dollar sign.
    fn heredoc_length(&self) -> Option<usize> {
        let rest = self.rest();
        let tag_end = 1 + rest[1..].iter().position(|byte| !is_word_byte(*byte))?;
        (rest[tag_end] == b'$').then(|| position_after(rest, &rest[..=tag_end], tag_end + 1))
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks_and_comments();
        let rest = self.rest();
        let first = *rest.first()?;
        let (kind, length) = match first {
            b'\'' | b'"' | b'`' => (TokenKind::Quoted, self.quoted_length(first)),
            b'(' | b'[' | b'{' => (TokenKind::Open, 1),
            b')' | b']' | b'}' => (TokenKind::Close, 1),
            b';' => (TokenKind::Semicolon, 1),
            b'$' => match self.heredoc_length() {
                Some(length) => (TokenKind::Quoted, length),
                None => (TokenKind::Other, 1),
            },
            byte if is_word_byte(byte) => {
                (TokenKind::Word, rest.iter().take_while(|byte| is_word_byte(**byte)).count())
            }
            _ => (TokenKind::Other, 1),
        };
        let start = self.at;
        self.at += length;
        Some(Token { kind, start, end: self.at })
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The position behind the next `needle` at or after `from`, or the end.
fn position_after(text: &[u8], needle: &[u8], from: usize) -> usize {
    let from = from.min(text.len());
    text[from..]
        .windows(needle.len())
        .position(|window| window == needle)
        .map_or(text.len(), |at| from + at + needle.len())
}
