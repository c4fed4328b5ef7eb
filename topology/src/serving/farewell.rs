//! Last words to a client, where no service speaks.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::security_headers;

/// For a client to say its last words, and to hear ours.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of what it still sends.
const MOST_LET_GO: usize = 256 * 1024;

/// To a request whose head did not come in time.
pub static SLOW_HEAD: LazyLock<String> =
    LazyLock::new(|| answer(408, "Request Timeout", "head_too_slow", "the request's head did not come in time", ""));

/// To a new connection when all the others are busy. The wait is short, since busy connections are done soon.
pub static TOO_MANY: LazyLock<String> = LazyLock::new(|| {
    let detail = "too many connections are open, and none of them is idle";
    answer(503, "Service Unavailable", "too_many_connections", detail, "retry-after: 1\r\n")
});

/// To a new connection of a client that has as many as it may.
pub static TOO_MANY_OF_ADDRESS: LazyLock<String> = LazyLock::new(|| {
    let detail = "too many connections of this address are open";
    answer(429, "Too Many Requests", "too_many_connections_of_address", detail, "retry-after: 1\r\n")
});

fn answer(status: u16, title: &str, code: &str, detail: &str, headers: &str) -> String {
    let problem =
        format!(r#"{{"type":"urn:neonhub:problem:{code}","title":"{title}","status":{status},"detail":"{detail}"}}"#);
    format!(
        "HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n{headers}{}connection: close\r\n\
         content-length: {}\r\n\r\n{problem}",
        security_headers::lines(),
        problem.len()
    )
}

/// Says `last_words` and closes. What the client still sends is read for a while: a socket that is closed with unread bytes
/// is reset, and the reset would overtake the words.
pub async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, last_words: &str) {
    let saying = async {
        stream.write_all(last_words.as_bytes()).await?;
        stream.shutdown().await?;
        let (mut into, mut let_go) = ([0; 1_024], 0);
        while let_go < MOST_LET_GO {
            match stream.read(&mut into).await? {
                0 => break,
                read => let_go += read,
            }
        }
        Ok::<(), std::io::Error>(())
    };
    // Gone or deaf: there is nobody to tell.
    let _said = timeout(PATIENCE, saying).await;
}

/// The same, after the client has begun to speak: some take an answer that comes before their request for a fault.
pub async fn reply(stream: TcpStream, last_words: &str) {
    if timeout(PATIENCE, stream.readable()).await.is_ok_and(|readable| readable.is_ok()) {
        say(stream, last_words).await;
    }
}
