//! A TCP proxy before a server: it can cut the way off, so that nothing gets through and nobody is told, and slow it down.
//! Each end's TCP finds the proxy in good health, so nothing is ever sent again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::Way;
use crate::real_stack::scratch::ReservedPort;

struct Shared {
    way: Mutex<Way>,
    changed: Condvar,
    upstream: u16,
}

/// Its threads serve until the test process ends.
pub struct Proxy {
    shared: Arc<Shared>,
    _port: ReservedPort,
}

impl Proxy {
    pub fn start(port: ReservedPort, upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let shared = Arc::new(Shared { way: Mutex::new(Way::Open), changed: Condvar::new(), upstream });
        let of_listener = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&of_listener);
                std::thread::spawn(move || shared.connect(client));
            }
        });
        Self { shared, _port: port }
    }

    pub fn set(&self, way: Way) {
        *self.shared.way.lock().unwrap() = way;
        self.shared.changed.notify_all();
    }
}

/// Bytes, and when they came.
type Piece = (Instant, Vec<u8>);

impl Shared {
    /// A server that is away closes its clients' connections.
    fn connect(self: &Arc<Self>, client: TcpStream) {
        self.wait_for_way();
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream)) else { return };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        if let (Ok(other_client), Ok(other_server)) = (client.try_clone(), server.try_clone()) {
            self.pump(client, server);
            self.pump(other_server, other_client);
        }
    }

    /// One direction: what is read is queued, so that slowness delays but does not throttle.
    fn pump(self: &Arc<Self>, from: TcpStream, to: TcpStream) {
        let (sender, receiver) = sync_channel(64);
        std::thread::spawn(move || read_pieces(from, &sender));
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.write_pieces(to, &receiver));
    }

    fn write_pieces(&self, mut to: TcpStream, pieces: &Receiver<Piece>) {
        while let Ok((came, bytes)) = pieces.recv() {
            self.wait_until_due(came);
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        self.wait_for_way();
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Until bytes that came then may go on.
    fn wait_until_due(&self, came: Instant) {
        let mut way = self.way.lock().unwrap();
        loop {
            way = match *way {
                Way::Open | Way::Lossy => return,
                Way::Cut => self.changed.wait(way).unwrap(),
                Way::Slow(delay) => match delay.checked_sub(came.elapsed()) {
                    Some(rest) if !rest.is_zero() => self.changed.wait_timeout(way, rest).unwrap().0,
                    _ => return,
                },
            };
        }
    }

    fn wait_for_way(&self) {
        let way = self.way.lock().unwrap();
        drop(self.changed.wait_while(way, |way| *way == Way::Cut).unwrap());
    }
}

fn read_pieces(mut from: TcpStream, pieces: &SyncSender<Piece>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if pieces.send((Instant::now(), buffer[..length].to_vec())).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
}
