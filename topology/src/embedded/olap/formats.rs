//! Pure: what the front has to know about output formats: their content types, and how their pieces join to one body.

/// How the pieces of a streamed SELECT, each written by the engine as a whole document, join to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// Pieces simply follow each other.
    Plain,
    /// Each piece begins with the same header of so many text lines; quoted ones may hold newlines.
    TextHeader { lines: usize, quoted: bool },
    /// Each piece begins with the column count, names and, if true, types in RowBinary.
    BinaryHeader { with_types: bool },
    /// The pieces cannot be joined (footers, offsets): the engine has to write the result in one go.
    Whole,
}

pub fn joining(format: &str) -> Joining {
    match format.to_ascii_lowercase().as_str() {
        "tabseparated"
        | "tsv"
        | "tabseparatedraw"
        | "tsvraw"
        | "raw"
        | "csv"
        | "jsoneachrow"
        | "jsonlines"
        | "ndjson"
        | "jsonstringseachrow"
        | "jsoncompacteachrow"
        | "jsoncompactstringseachrow"
        | "rowbinary"
        | "native"
        | "tskv"
        | "lineasstring"
        | "null" => Joining::Plain,
        "tabseparatedwithnames"
        | "tsvwithnames"
        | "tabseparatedrawwithnames"
        | "tsvrawwithnames"
        | "rawwithnames"
        | "jsoncompacteachrowwithnames"
        | "jsoncompactstringseachrowwithnames" => Joining::TextHeader { lines: 1, quoted: false },
        "csvwithnames" => Joining::TextHeader { lines: 1, quoted: true },
        "csvwithnamesandtypes" => Joining::TextHeader { lines: 2, quoted: true },
        "tabseparatedwithnamesandtypes"
        | "tsvwithnamesandtypes"
        | "tabseparatedrawwithnamesandtypes"
        | "tsvrawwithnamesandtypes"
        | "rawwithnamesandtypes"
        | "jsoncompacteachrowwithnamesandtypes"
        | "jsoncompactstringseachrowwithnamesandtypes" => Joining::TextHeader { lines: 2, quoted: false },
        "rowbinarywithnames" => Joining::BinaryHeader { with_types: false },
        "rowbinarywithnamesandtypes" => Joining::BinaryHeader { with_types: true },
        _ => Joining::Whole,
    }
}

/// Totals, extremes and arrays of rows put something between or around the pieces, whatever the format.
pub fn needs_whole_result(sql: &[u8], settings: &[(String, String)]) -> bool {
    let lowered = sql.to_ascii_lowercase();
    let mentions = |word: &[u8]| lowered.windows(word.len()).any(|window| window == word);
    mentions(b"totals")
        || mentions(b"extremes")
        || mentions(b"array_of_rows")
        || settings.iter().any(|(name, _)| name == "extremes" || name == "output_format_json_array_of_rows")
}

/// The length of the header that a piece begins with; 0 when there is none that makes sense.
pub fn header_length(joining: Joining, piece: &[u8]) -> usize {
    match joining {
        Joining::Plain | Joining::Whole => 0,
        Joining::TextHeader { lines, quoted } => text_header_length(piece, lines, quoted).unwrap_or(0),
        Joining::BinaryHeader { with_types } => binary_header_length(piece, with_types).unwrap_or(0),
    }
}

fn text_header_length(piece: &[u8], lines: usize, quotes: bool) -> Option<usize> {
    let mut remaining = lines;
    let mut inside = false;
    for (position, byte) in piece.iter().enumerate() {
        match byte {
            b'"' if quotes => inside = !inside,
            b'\n' if !inside => {
                remaining -= 1;
                if remaining == 0 {
                    return Some(position + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn binary_header_length(piece: &[u8], with_types: bool) -> Option<usize> {
    let (columns, mut at) = read_length(piece, 0)?;
    let texts = if with_types { columns.checked_mul(2)? } else { columns };
    for _ in 0..texts {
        let (length, start) = read_length(piece, at)?;
        at = start.checked_add(length)?;
        if at > piece.len() {
            return None;
        }
    }
    Some(at)
}

/// LEB128, as ClickHouse's VarUInt.
fn read_length(piece: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = *piece.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, at));
        }
    }
    None
}

pub fn content_type(format: &str) -> &'static str {
    let lowered = format.to_ascii_lowercase();
    match lowered.as_str() {
        "jsoneachrow" | "jsonlines" | "ndjson" | "jsonstringseachrow" | "jsoncompacteachrow" => {
            "application/x-ndjson; charset=UTF-8"
        }
        "xml" => "application/xml; charset=UTF-8",
        "markdown" => "text/markdown; charset=UTF-8",
        "native" | "parquet" | "orc" | "avro" | "arrow" | "arrowstream" | "msgpack" | "npy" => {
            "application/octet-stream"
        }
        "raw" | "tskv" | "values" | "lineasstring" | "null" => "text/plain; charset=UTF-8",
        "sqlinsert" | "vertical" => "text/plain; charset=UTF-8",
        "prometheus" => "text/plain; version=0.0.4; charset=UTF-8",
        _ if lowered.starts_with("json") => "application/json; charset=UTF-8",
        _ if lowered.starts_with("csv") => "text/csv; charset=UTF-8; header=absent",
        _ if lowered.starts_with("tabseparated") || lowered.starts_with("tsv") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        _ if lowered.starts_with("rowbinary")
            || lowered.starts_with("protobuf")
            || lowered.starts_with("capnproto") =>
        {
            "application/octet-stream"
        }
        _ => "text/plain; charset=UTF-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_measured() {
        let binary = b"\x01\x06number\x06UInt64\x00\x00";
        assert_eq!(header_length(Joining::BinaryHeader { with_types: true }, binary), 15);
        assert_eq!(header_length(Joining::BinaryHeader { with_types: false }, binary), 8);
        assert_eq!(
            header_length(Joining::BinaryHeader { with_types: true }, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            0
        );
        assert_eq!(header_length(Joining::TextHeader { lines: 1, quoted: true }, b"\"a\nb\",\"c\"\"d\"\n1,2\n"), 13);
        assert_eq!(header_length(Joining::TextHeader { lines: 2, quoted: false }, b"a\tb\nUInt8\tUInt8\n1\t2\n"), 16);
        assert_eq!(header_length(Joining::Plain, b"a\n"), 0);
    }

    #[test]
    fn formats_with_a_footer_are_not_joined() {
        for format in ["JSON", "JSONCompact", "Parquet", "Values", "PrettyCompact", "Arrow", "whatever"] {
            assert_eq!(joining(format), Joining::Whole, "{format}");
        }
        assert_eq!(joining("TSVWithNamesAndTypes"), Joining::TextHeader { lines: 2, quoted: false });
        assert!(needs_whole_result(b"select 1 WITH ToTals", &[]));
        assert!(!needs_whole_result(b"select 1", &[("max_threads".into(), "1".into())]));
    }
}
