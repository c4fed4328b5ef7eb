//! Pure: no I/O, no clock, no async.
//!
//! Requests: the query string, three headers (a line each), then the body, which may be a form.

use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use crate::embedded::olap::access::Access;
use crate::embedded::olap::http::take_form;
use crate::embedded::olap::multipart;
use crate::embedded::olap::parameters::RequestParameters;

const NAMES: [HeaderName; 3] = [CONTENT_TYPE, AUTHORIZATION, ACCEPT_ENCODING];

pub fn check(bytes: &[u8]) {
    let mut lines = bytes.splitn(5, |byte| *byte == b'\n');
    let query = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in NAMES.into_iter().zip(&mut lines) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let body = Bytes::copy_from_slice(lines.next().unwrap_or_default());
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query).into_owned().collect();
    let Ok(request) = RequestParameters::parse(pairs.clone(), &headers) else { return };
    check_parameters(&request);
    if let Ok(user) = Access::default().check(&headers, request.user.as_deref(), request.password.as_deref()) {
        assert_eq!(user.name, "default");
        assert!(!user.may_write);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(boundary) = content_type.and_then(multipart::boundary) else { return };
    let Ok(form) = multipart::parse(&body, &boundary) else { return };
    let parts = form.len();
    assert!(form.iter().map(|part| part.data.len()).sum::<usize>() <= body.len(), "parts overlap");
    if let Ok(tables) = take_form(form, &mut pairs) {
        assert!(tables.len() <= parts);
        if let Ok(request) = RequestParameters::parse(pairs, &headers) {
            check_parameters(&request);
        }
    }
}

/// Names of settings go into SQL as they are.
fn check_parameters(request: &RequestParameters) {
    for (name, _) in &request.settings {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        assert!(!name.is_empty() && name.bytes().all(is_plain), "{name:?} is no setting's name");
    }
    assert!(request.database.as_deref() != Some(""));
}
