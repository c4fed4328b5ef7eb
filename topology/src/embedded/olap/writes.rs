//! A write of the engine that fails ends the process.
//!
//! libchdb takes no notice of one: where ClickHouse's `WriteBufferFromFileDescriptor` throws, its own goes on as if the bytes
//! had been written. On a full disk it then answers an INSERT with success, or puts a merged part in the place of its
//! sources, with nothing in the files. So its calls come here: an executable's own `write` goes before the C library's. The
//! part that could not be written is still a temporary one, which the next start removes; what was acknowledged stays.

use std::ffi::{c_int, c_void};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{size_t, ssize_t};

/// What the process returns with: `EX_IOERR` of sysexits.h.
const EXIT_CODE: c_int = 74;

static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// From now on a failed write to a file ends the process. False when the engine's calls would not come here: the executable
/// was linked without exporting `write`.
#[expect(unsafe_code, reason = "asks the dynamic linker")]
#[must_use]
pub fn watch() -> bool {
    // SAFETY: the name is a C string; nothing is called.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"write".as_ptr()) };
    let ours: unsafe extern "C" fn(c_int, *const c_void, size_t) -> ssize_t = write;
    IS_WATCHED.store(true, Ordering::Release);
    std::ptr::eq(found, ours as *const c_void)
}

/// `write(2)`; to a file, everything.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(not(fuzzing), unsafe(no_mangle))]
#[expect(unsafe_code, reason = "stands in for the C library's function")]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the caller answers for its buffer, as with the C library's.
    let write_from =
        |done: usize| unsafe { libc::syscall(libc::SYS_write, fd, bytes.byte_add(done), length - done) } as ssize_t;
    let first = write_from(0);
    if usize::try_from(first) == Ok(length) || !IS_WATCHED.load(Ordering::Acquire) || !is_file(fd) {
        return first;
    }
    let (mut done, mut last) = (0, first);
    loop {
        match usize::try_from(last) {
            Ok(more) if more > 0 => done += more,
            outcome => {
                let error = outcome.map_or_else(|_| std::io::Error::last_os_error(), |_| ErrorKind::WriteZero.into());
                if error.kind() != ErrorKind::Interrupted {
                    end(fd, &error, take_back(fd, done));
                }
            }
        }
        if done == length {
            return done.cast_signed();
        }
        last = write_from(done);
    }
}

/// Sockets and pipes may fail, and so may the log.
#[expect(unsafe_code, reason = "calls the C library")]
fn is_file(fd: c_int) -> bool {
    if fd <= libc::STDERR_FILENO {
        return false;
    }
    let mut about = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for the answer, which is read only when there is one.
    unsafe { libc::fstat(fd, about.as_mut_ptr()) == 0 && about.assume_init().st_mode & libc::S_IFMT == libc::S_IFREG }
}

/// A record cut short would be read as damage: what was written of it at the end of a file goes again.
#[expect(unsafe_code, reason = "calls the C library")]
fn take_back(fd: c_int, written: usize) -> std::io::Result<()> {
    let written = libc::off_t::try_from(written).map_err(std::io::Error::other)?;
    // SAFETY: plain system calls. A length below zero is refused.
    let outcome = unsafe { libc::ftruncate(fd, libc::lseek(fd, 0, libc::SEEK_CUR) - written) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[expect(unsafe_code, reason = "ends the process without running what the engine has to run at its end")]
fn end(fd: c_int, error: &std::io::Error, taken_back: std::io::Result<()>) -> ! {
    let file = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_else(|_| PathBuf::from(format!("fd {fd}")));
    tracing::error!(file = %file.display(), %error, ?taken_back, "the OLAP engine cannot write: ending the process");
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(EXIT_CODE) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn what_was_written_of_a_record_is_taken_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"whole\nha").unwrap();
        take_back(file.as_raw_fd(), 2).unwrap();
        file.rewind().unwrap();
        let mut left = String::new();
        file.read_to_string(&mut left).unwrap();
        assert_eq!(left, "whole\n");
        assert!(take_back(file.as_raw_fd(), 7).is_err(), "more than there is");
    }

    #[test]
    fn only_files_are_watched() {
        let file = tempfile::tempfile().unwrap();
        assert!(is_file(file.as_raw_fd()));
        let (reading, writing) = std::io::pipe().unwrap();
        assert!(!is_file(reading.as_raw_fd()) && !is_file(writing.as_raw_fd()));
        assert!(!is_file(libc::STDERR_FILENO));
    }
}
