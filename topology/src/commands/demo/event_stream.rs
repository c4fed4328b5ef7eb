//! Pure: no I/O, no clock, no async.
//!
//! Server-sent events out of the bytes of a response (WHATWG HTML, section 9.2), as far as a client needs them.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// The last one given, here or before.
    pub id: String,
    /// `message` where none is given.
    pub name: String,
    pub data: String,
}

#[derive(Debug, Default)]
pub struct EventStream {
    /// An unfinished line.
    rest: Vec<u8>,
    last_id: String,
    name: String,
    data: Option<String>,
}

impl EventStream {
    /// Where a new connection goes on: for `Last-Event-ID`.
    #[must_use]
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// The connection broke: what was unfinished comes again.
    pub fn restart(&mut self) {
        *self = Self { last_id: std::mem::take(&mut self.last_id), ..Self::default() };
    }

    /// The events that these bytes finish.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches(['\n', '\r'])));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return Some(ServerEvent { id: self.last_id.clone(), name, data: self.data.take()? });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.last_id = value.to_owned(),
            "event" => self.name = value.to_owned(),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Comments, `retry`, and whatever comes later.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        let text =
            ": hello\n\nid: 1.0\nevent: window\ndata: {\"a\":\ndata: \"é\"}\r\n\r\nretry: 5\ndata:x\n\nid: 2.0\n\n";
        let expected = [
            ServerEvent { id: "1.0".into(), name: "window".into(), data: "{\"a\":\n\"é\"}".into() },
            ServerEvent { id: "1.0".into(), name: "message".into(), data: "x".into() },
        ];
        for size in [1, 2, 7, text.len()] {
            let mut stream = EventStream::default();
            let events: Vec<ServerEvent> = text.as_bytes().chunks(size).flat_map(|bytes| stream.push(bytes)).collect();
            assert_eq!(events, expected, "{size}");
            assert_eq!(stream.last_id(), "2.0");
        }
    }

    #[test]
    fn a_broken_connection_forgets_the_unfinished_event_but_not_its_place() {
        let mut stream = EventStream::default();
        assert!(stream.push(b"id: 5\ndata: a\n\ndata: half").len() == 1);
        stream.restart();
        assert_eq!(stream.last_id(), "5");
        assert_eq!(stream.push(b"data: b\n\n")[0].data, "b");
    }
}
