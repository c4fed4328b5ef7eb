//! Bodies as clients encode them.

use std::io::Write as _;

use axum::body::Body;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::house::{Answer, BASIC, House, request};

const TRACK: &[u8] = br#"{"event":"e","userId":"u"}"#;

async fn post_encoded(house: &House, encoding: &str, bytes: Vec<u8>) -> Answer {
    let head = request("POST", "/v1/track").header("authorization", BASIC).header("content-encoding", encoding);
    house.send(head.body(Body::from(bytes)).unwrap()).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_encoding_is_read() {
    let house = House::new();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(TRACK).unwrap();
    let mut brotli_bytes = Vec::new();
    brotli::CompressorWriter::new(&mut brotli_bytes, 4_096, 5, 20).write_all(TRACK).unwrap();
    let zstd_bytes = zstd::encode_all(TRACK, 3).unwrap();
    let cases = [
        ("gzip", gzip(TRACK)),
        ("deflate", zlib.finish().unwrap()),
        ("br", brotli_bytes),
        ("zstd, gzip", gzip(&zstd_bytes)),
        ("zstd", zstd_bytes),
        ("identity", TRACK.to_vec()),
    ];
    for (encoding, bytes) in cases {
        assert_eq!(post_encoded(&house, encoding, bytes).await.status.as_u16(), 200, "{encoding}");
    }
}

#[tokio::test]
async fn bombs_and_broken_bodies_are_refused() {
    let house = House::new();
    let answer = post_encoded(&house, "gzip", gzip(&vec![b' '; 100_000_000])).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (413, "body_too_large"));
    let twice = gzip(&gzip(&vec![b' '; 100_000_000]));
    assert_eq!(post_encoded(&house, "gzip, gzip", twice).await.status.as_u16(), 413);
    let mut broken = gzip(TRACK);
    broken.truncate(20);
    let answer = post_encoded(&house, "gzip", broken).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "invalid_encoding"));
    let answer = post_encoded(&house, "zstd", TRACK.to_vec()).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "invalid_encoding"));
    let answer = post_encoded(&house, "lzma", TRACK.to_vec()).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (415, "unsupported_encoding"));
    let reasons: Vec<String> = house.dead_letters().into_iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, ["body_too_large", "body_too_large", "invalid_encoding", "invalid_encoding"]);
    assert_eq!(post_encoded(&house, "gzip", gzip(TRACK)).await.status.as_u16(), 200);
}

#[tokio::test]
async fn any_content_type_is_json() {
    let house = House::new();
    for content_type in ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "nonsense"] {
        let head = request("POST", "/v1/t").header("content-type", content_type);
        let body = r#"{"event":"e","userId":"u","writeKey":"test-key"}"#;
        assert_eq!(house.send(head.body(Body::from(body)).unwrap()).await.status.as_u16(), 200, "{content_type}");
    }
}
