//! Pure: the engine's error texts as ClickHouse's exceptions: code, HTTP status, and the block that ends a broken stream.

use axum::http::StatusCode;

pub const BAD_ARGUMENTS: u32 = 36;
pub const SYNTAX_ERROR: u32 = 62;
pub const UNKNOWN_SETTING: u32 = 115;
pub const READONLY: u32 = 164;
pub const TOO_MANY_SIMULTANEOUS_QUERIES: u32 = 202;
pub const MEMORY_LIMIT_EXCEEDED: u32 = 241;
pub const CANNOT_DECOMPRESS: u32 = 271;
pub const INTO_OUTFILE_NOT_ALLOWED: u32 = 358;
pub const SESSION_NOT_FOUND: u32 = 372;
pub const SESSION_IS_LOCKED: u32 = 373;
pub const INVALID_SESSION_TIMEOUT: u32 = 374;
pub const ACCESS_DENIED: u32 = 497;
pub const AUTHENTICATION_FAILED: u32 = 516;
pub const REQUEST_TOO_LARGE: u32 = 307;
const UNKNOWN_EXCEPTION: u32 = 1002;

/// An error as ClickHouse reports it. `text` is `Code: N. DB::Exception: … (NAME)`, without the version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Exception {
    pub code: u32,
    pub text: String,
}

impl Exception {
    pub fn new(code: u32, name: &str, message: impl AsRef<str>) -> Self {
        Self { code, text: format!("Code: {code}. DB::Exception: {}. ({name})", message.as_ref()) }
    }

    pub fn bad_arguments(message: impl AsRef<str>) -> Self {
        Self::new(BAD_ARGUMENTS, "BAD_ARGUMENTS", message)
    }

    pub fn syntax(message: impl AsRef<str>) -> Self {
        Self::new(SYNTAX_ERROR, "SYNTAX_ERROR", message)
    }

    /// Takes the engine's text, which has the version at its end in some places and not in others.
    pub fn from_engine(engine_text: &str) -> Self {
        let trimmed = engine_text.trim_end();
        let text = match trimmed.rfind(" (version ") {
            Some(start) if trimmed.ends_with(')') => &trimmed[..start],
            _ => trimmed,
        };
        match code_of(text) {
            Some(code) => Self { code, text: text.to_owned() },
            None => Self::new(UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", text),
        }
    }

    /// The body of an error response.
    pub fn body(&self, version: &str) -> String {
        format!("{} (version {version} (official build))\n", self.text)
    }

    /// What ClickHouse (25.11 and later) writes into a stream that breaks after its head was sent; clients find it by the
    /// tag that they were given in `X-ClickHouse-Exception-Tag`.
    pub fn tagged_block(&self, version: &str, tag: &str) -> String {
        let message = self.body(version);
        format!("\r\n__exception__\r\n{tag}\r\n{message}{} {tag}\r\n__exception__\r\n", message.len())
    }

    pub fn status(&self) -> StatusCode {
        status_of(self.code)
    }
}

fn code_of(text: &str) -> Option<u32> {
    let after = text.split_once("Code: ")?.1;
    let digits = after.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// ClickHouse's `exceptionCodeToHTTPStatus`; READONLY is 403 here, where ClickHouse says 500.
fn status_of(code: u32) -> StatusCode {
    match code {
        // CANNOT_PARSE_*, DUPLICATE_COLUMN, ILLEGAL_COLUMN, *_AST, SYNTAX_ERROR, TYPE_MISMATCH, INCORRECT_DATA, …
        6 | 15 | 25 | 26 | 27 | 36 | 38 | 41 | 44 | 53 | 56 | 62 | 69 | 72 | 117 | 167 | 168 | 271 | 374 | 376
        | 427 | 441 | 456 | 457 | 675 | 676 => StatusCode::BAD_REQUEST,
        // UNKNOWN_TABLE, _FUNCTION, _IDENTIFIER, _TYPE, _STORAGE, _DATABASE, _SETTING, _AGGREGATE_FUNCTION, _FORMAT, …
        46 | 47 | 50 | 60 | 63 | 73 | 81 | 115 | 141 | 186 | 336 | 372 => StatusCode::NOT_FOUND,
        192..=194 | READONLY | AUTHENTICATION_FAILED => StatusCode::FORBIDDEN,
        159 => StatusCode::REQUEST_TIMEOUT,
        REQUEST_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
        48 => StatusCode::NOT_IMPLEMENTED,
        76 | 209 | TOO_MANY_SIMULTANEOUS_QUERIES | MEMORY_LIMIT_EXCEEDED => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_and_the_text_come_from_the_engine_without_the_version() {
        let plain = Exception::from_engine("Code: 60. DB::Exception: Table default.x does not exist. (UNKNOWN_TABLE)");
        assert_eq!((plain.code, plain.status()), (60, StatusCode::NOT_FOUND));
        let versioned = Exception::from_engine("Code: 27. DB::Exception: no. (CANNOT_PARSE) (version 26.7.2.1)\n");
        assert_eq!(versioned.text, "Code: 27. DB::Exception: no. (CANNOT_PARSE)");
        assert_eq!(versioned.status(), StatusCode::BAD_REQUEST);
        assert!(versioned.body("26.7.2.1").ends_with("(version 26.7.2.1 (official build))\n"));
        assert_eq!(Exception::from_engine("something else").code, UNKNOWN_EXCEPTION);
    }

    #[test]
    fn the_tagged_block_names_the_length_of_its_message() {
        let block = Exception::syntax("x").tagged_block("1", "abcdefghijklmnop");
        let message = Exception::syntax("x").body("1");
        assert!(block.ends_with(&format!("{message}{} abcdefghijklmnop\r\n__exception__\r\n", message.len())));
    }
}
