//! A small client of server-sent events that blocks: the tests see each message, each comment, and where they are.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::stack::API_KEY;

/// Longer than the server's heartbeat.
const SILENCE_LIMIT: Duration = Duration::from_secs(40);

#[derive(Clone, Debug)]
pub struct SseMessage {
    pub id: String,
    pub name: String,
    pub data: String,
}

enum Part {
    Message(SseMessage),
    /// A comment, perhaps with a new place.
    Comment,
}

/// One connection. Dropping it breaks it off.
pub struct SseClient {
    lines: BufReader<TcpStream>,
    last_id: String,
}

impl SseClient {
    /// Goes on after `last_id` unless it is empty.
    pub fn open(port: u16, path: &str, last_id: &str) -> Self {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        connection.set_read_timeout(Some(SILENCE_LIMIT)).unwrap();
        let place = if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
        // HTTP/1.0: the body comes as it is, without chunks, and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nAuthorization: Bearer {API_KEY}\r\n{place}\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let mut client = Self { lines: BufReader::new(connection), last_id: last_id.to_owned() };
        let status = client.line();
        assert!(status.contains(" 200 "), "{status}");
        while !client.line().is_empty() {}
        client
    }

    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    pub fn next_message(&mut self) -> SseMessage {
        loop {
            if let Part::Message(message) = self.next_part() {
                return message;
            }
        }
    }

    /// `None`: a heartbeat came first. The server sends one where a replay has caught up.
    pub fn next_message_before_heartbeat(&mut self) -> Option<SseMessage> {
        match self.next_part() {
            Part::Message(message) => Some(message),
            Part::Comment => None,
        }
    }

    fn next_part(&mut self) -> Part {
        let (mut name, mut data) = (String::new(), None);
        loop {
            let line = self.line();
            match line.split_once(':') {
                Some(("id", id)) => id.trim_start().clone_into(&mut self.last_id),
                Some(("event", text)) => text.trim_start().clone_into(&mut name),
                Some(("data", text)) => data = Some(text.trim_start().to_owned()),
                Some(_) => {}
                None => {
                    return match data {
                        Some(data) => Part::Message(SseMessage { id: self.last_id.clone(), name, data }),
                        None => Part::Comment,
                    };
                }
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        assert!(length > 0, "the stream ended");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }
}
