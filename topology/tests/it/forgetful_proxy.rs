//! A proxy before a broker that answers for it as a broker does which knows of no broker, itself included: for a moment at its
//! start, when its topics are there already. (librdkafka takes that for the end of all brokers, and may never ask again:
//! [librdkafka#5301](https://github.com/confluentinc/librdkafka/issues/5301).)

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::real_stack::scratch::ReservedPort;

const METADATA: i16 = 3;
/// The answer's form since version 12; version 13 has an error code more.
const VERSIONS: std::ops::RangeInclusive<i16> = 12..=13;
const LEADER_NOT_AVAILABLE: i16 = 5;

#[derive(Default)]
struct Shared {
    upstream: u16,
    is_forgetful: AtomicBool,
    answered: AtomicUsize,
    clients: Mutex<Vec<TcpStream>>,
}

/// Its threads serve until the test process ends.
pub struct ForgetfulProxy {
    shared: Arc<Shared>,
    _port: ReservedPort,
}

impl ForgetfulProxy {
    pub fn start(port: ReservedPort, upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let shared = Arc::new(Shared { upstream, ..Shared::default() });
        let of_listener = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&of_listener);
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { shared, _port: port }
    }

    /// From now on it forgets; clients have to connect anew.
    pub fn forget(&self) {
        self.shared.is_forgetful.store(true, Ordering::SeqCst);
        for client in self.shared.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    pub fn remember(&self) {
        self.shared.is_forgetful.store(false, Ordering::SeqCst);
    }

    /// Questions that were answered in the broker's place.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream)) else { return };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let (Ok(to_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
        let to_client = Arc::new(Mutex::new(to_client));
        self.clients.lock().unwrap().extend(client.try_clone());
        let answers = Arc::clone(&to_client);
        std::thread::spawn(move || {
            let mut from_server = from_server;
            while let Some(frame) = read_frame(&mut from_server) {
                if answers.lock().unwrap().write_all(&frame).is_err() {
                    break;
                }
            }
            let _ = answers.lock().unwrap().shutdown(Shutdown::Both);
        });
        self.pass_requests(client, server, &to_client);
    }

    fn pass_requests(&self, mut client: TcpStream, mut server: TcpStream, to_client: &Mutex<TcpStream>) {
        while let Some(frame) = read_frame(&mut client) {
            let is_written = match self.answer(&frame) {
                Some(answer) => to_client.lock().unwrap().write_all(&answer),
                None => server.write_all(&frame),
            };
            if is_written.is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    }

    /// The request's header: API key, version, correlation id.
    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let number = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
        let (api_key, version, correlation_id) = (number(4), number(6), &frame[8..12]);
        if api_key != METADATA || !self.is_forgetful.load(Ordering::SeqCst) {
            return None;
        }
        assert!(VERSIONS.contains(&version), "metadata version {version}");
        self.answered.fetch_add(1, Ordering::SeqCst);
        let mut answer = correlation_id.to_vec();
        // No tagged fields, no throttling, no brokers, no cluster id, no controller.
        answer.extend([0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff]);
        // One topic: its error, name, id, not internal, no partitions, no operations, no tagged fields.
        answer.push(2);
        answer.extend(LEADER_NOT_AVAILABLE.to_be_bytes());
        answer.extend([2, b't']);
        answer.extend([0; 16]);
        answer.extend([0, 1, 0, 0, 0, 0, 0]);
        if version > 12 {
            answer.extend([0, 0]);
        }
        answer.push(0);
        let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
        Some([&length[..], &answer].concat())
    }
}

/// With its length in front.
fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(4 + length, 0);
    stream.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}
