//! Pure: multipart forms, in which clients send long statements, parameters and external tables.

use bytes::Bytes;

use super::exception::Exception;

/// One part: a field, or with a file name an external table's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub is_file: bool,
    pub data: Bytes,
}

/// The boundary of a multipart form, if the content type is one.
pub fn boundary(content_type: &str) -> Option<String> {
    let (media_type, attributes) = content_type.split_once(';')?;
    if !media_type.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    attribute(attributes, "boundary").filter(|boundary| !boundary.is_empty())
}

fn attribute(attributes: &str, wanted: &str) -> Option<String> {
    attributes.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Splits a form; the parts share the body's memory.
pub fn parse(body: &Bytes, boundary: &str) -> Result<Vec<Part>, Exception> {
    let malformed = |reason: &str| Exception::bad_arguments(format!("the multipart form is malformed: {reason}"));
    let opening = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut at = match find(body, opening.as_bytes(), 0) {
        Some(start) => start + opening.len(),
        None => return Err(malformed("its boundary doesn't occur")),
    };
    let mut parts = Vec::new();
    loop {
        if body[at..].starts_with(b"--") {
            return Ok(parts);
        }
        if !body[at..].starts_with(b"\r\n") {
            return Err(malformed("no line end behind a boundary"));
        }
        // The blank line that ends the head may follow at once.
        let head_end = find(body, b"\r\n\r\n", at).ok_or_else(|| malformed("a part has no end of its head"))?;
        let data_start = head_end + 4;
        let data_end = find(body, between.as_bytes(), data_start.saturating_sub(2))
            .ok_or_else(|| malformed("a part has no end"))?
            .max(data_start);
        let head = String::from_utf8_lossy(&body[at..head_end]).into_owned();
        let disposition = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))
            .map(|(_, value)| value)
            .ok_or_else(|| malformed("a part has no content disposition"))?;
        let name = attribute(disposition, "name").ok_or_else(|| malformed("a part has no name"))?;
        let is_file = attribute(disposition, "filename").is_some();
        parts.push(Part { name, is_file, data: body.slice(data_start..data_end) });
        at = find(body, between.as_bytes(), data_end.saturating_sub(2)).unwrap_or(data_end) + between.len();
        if at > body.len() {
            return Err(malformed("it is cut off"));
        }
    }
}

fn find(body: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let tail = body.get(from..)?;
    tail.windows(needle.len()).position(|window| window == needle).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nselect 1\r\n--b\r\n\
        content-disposition: form-data; name=\"ext\"; filename=\"ext\"\r\nContent-Type: x/y\r\n\r\n1\r\n2\r\n--b\r\n\
        Content-Disposition: form-data; name=\"param_e\"\r\n\r\n\r\n--b--\r\n";

    #[test]
    fn fields_files_and_empty_values() {
        assert_eq!(boundary("multipart/form-data; boundary=\"b\"").as_deref(), Some("b"));
        assert_eq!(boundary("text/plain; boundary=b"), None);
        let parts = parse(&Bytes::from_static(FORM.as_bytes()), "b").unwrap();
        let seen: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.is_file, &part.data[..])).collect();
        assert_eq!(seen, [("query", false, &b"select 1"[..]), ("ext", true, b"1\r\n2"), ("param_e", false, b"")]);
    }

    #[test]
    fn every_cut_is_an_error_and_none_panics() {
        for length in 0..FORM.len() - 4 {
            assert!(parse(&Bytes::copy_from_slice(&FORM.as_bytes()[..length]), "b").is_err(), "{length}");
        }
    }
}
