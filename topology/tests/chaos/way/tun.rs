//! Two TUN devices, one of them in the namespace: what the kernel sends into one, threads here read, and write into the other,
//! at once, late, or not at all. What netem does, for kernels without it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::c_int;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

use super::namespace::{Namespace, run};
use super::{LATE_BY, LOST, OVERTAKEN, Way};
use crate::plan::Dice;

/// Large, so that a packet is seldom, and no larger than what a machine's own network may have.
const MTU: &str = "9000";

pub struct TunPair {
    directions: [Arc<Direction>; 2],
    namespace: Namespace,
}

impl TunPair {
    /// # Errors
    /// There is no `/dev/net/tun`, or what the kernel says.
    pub fn join(namespace: Namespace) -> Result<Self, String> {
        let names = namespace.ends();
        let [outer, inner] = [device(&names[0])?, device(&names[1])?].map(Arc::new);
        run("ip", &["link", "set", &names[1], "netns", namespace.name()])?;
        run("ip", &["link", "set", &names[0], "mtu", MTU])?;
        run("ip", &["-n", namespace.name(), "link", "set", &names[1], "mtu", MTU])?;
        namespace.bring_up()?;
        let directions = [Direction::start(1, &outer, &inner), Direction::start(2, &inner, &outer)];
        Ok(Self { directions, namespace })
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub fn set(&self, way: Way) {
        self.directions.iter().for_each(|direction| direction.lock().way = way);
    }
}

impl Drop for TunPair {
    fn drop(&mut self) {
        // Those who read end with their devices, which the namespace takes along.
        for direction in &self.directions {
            direction.lock().is_over = true;
            direction.changed.notify_all();
        }
    }
}

/// From one device to the other.
struct Direction {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    dice: Dice,
    /// By when they are due, and in which order they came.
    late: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    came: u64,
    is_over: bool,
}

impl Direction {
    fn start(seed: u64, from: &Arc<File>, to: &Arc<File>) -> Arc<Self> {
        let state = State { way: Way::Open, dice: Dice::new(seed), late: BinaryHeap::new(), came: 0, is_over: false };
        let direction = Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() });
        let (reader, from, at_once) = (Arc::clone(&direction), Arc::clone(from), Arc::clone(to));
        std::thread::spawn(move || reader.hand_on(&from, &at_once));
        let (writer, to) = (Arc::clone(&direction), Arc::clone(to));
        std::thread::spawn(move || writer.deliver_late(&to));
        direction
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_on(&self, mut from: &File, mut to: &File) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = from.read(&mut buffer) {
            let packet = &buffer[..length];
            let fate = self.lock().fate();
            match fate {
                Some(Duration::ZERO) => drop(to.write(packet)),
                Some(delay) => {
                    let mut state = self.lock();
                    state.came += 1;
                    let place = (Instant::now() + delay, state.came, packet.to_vec());
                    state.late.push(Reverse(place));
                    self.changed.notify_all();
                }
                None => {}
            }
        }
    }

    fn deliver_late(&self, mut to: &File) {
        let mut state = self.lock();
        while !state.is_over {
            let Some(Reverse((due, ..))) = state.late.peek() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            } else if let Some(Reverse((.., packet))) = state.late.pop() {
                // A device that is down takes nothing; then the packet is lost.
                let _ = to.write(&packet);
            }
        }
    }
}

impl State {
    /// After which time the next packet goes on. `None`: it is lost.
    fn fate(&mut self) -> Option<Duration> {
        match self.way {
            Way::Open => Some(Duration::ZERO),
            Way::Cut => None,
            Way::Slow(delay) => Some(delay),
            Way::Lossy if self.dice.below(100) < usize::from(LOST) => None,
            Way::Lossy if self.dice.below(100) < usize::from(OVERTAKEN) => Some(LATE_BY),
            Way::Lossy => Some(Duration::ZERO),
        }
    }
}

/// `struct ifreq`, as far as it matters.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// A new device, there as long as the file is open.
#[expect(unsafe_code, reason = "the request is laid out as in linux/if_tun.h")]
fn device(name: &str) -> Result<File, String> {
    const SET_INTERFACE: Opcode = opcode::write::<c_int>(b'T', 202);
    const IS_TUN: i16 = 1;
    const WITHOUT_PACKET_INFORMATION: i16 = 0x1000;
    let failed = |error: std::io::Error| format!("/dev/net/tun: {error}");
    let file = File::options().read(true).write(true).open("/dev/net/tun").map_err(failed)?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IS_TUN | WITHOUT_PACKET_INFORMATION, rest: [0; 22] };
    // The last byte stays zero.
    request.name[..15].iter_mut().zip(name.bytes()).for_each(|(slot, byte)| *slot = byte);
    unsafe { ioctl(&file, Setter::<SET_INTERFACE, _>::new(request)) }.map_err(|error| failed(error.into()))?;
    Ok(file)
}
