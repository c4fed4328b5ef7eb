//! libchdb's C interface, and nothing else: every unsafe call of the OLAP front is here.
//!
//! What the library demands: one data path per process, one statement at a time per connection (hence `&mut self`), results
//! and streams destroyed exactly once, and every connection closed before the process ends.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

type Handle = *mut c_void;
type Text = *const c_char;
type RunStatement = unsafe extern "C" fn(
    Handle,
    Text,
    usize,
    Text,
    usize,
    *const Text,
    *const usize,
    *const Text,
    *const usize,
    usize,
) -> Handle;
type RunPlain = unsafe extern "C" fn(Handle, Text, usize, Text, usize) -> Handle;
type CountOf = unsafe extern "C" fn(Handle) -> u64;

/// A parameter of a statement, `{name:Type}`, its value in TSV-escaped form.
pub type Parameter = (String, String);

macro_rules! library_functions {
    ($($field:ident = $symbol:literal: $signature:ty;)*) => {
        struct Functions { $($field: $signature,)* }

        impl Functions {
            #[expect(unsafe_code, reason = "the signatures are those of chdb.h of the pinned version")]
            fn load(library: &libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: each symbol has the type that chdb.h declares, and the library is never unloaded.
                unsafe { Ok(Self { $($field: *library.get::<$signature>($symbol)?,)* }) }
            }
        }
    };
}

library_functions! {
    set_signal_handlers = b"chdb_set_signal_handlers_enabled\0": unsafe extern "C" fn(c_int);
    connect = b"chdb_connect\0": unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Handle;
    close = b"chdb_close_conn\0": unsafe extern "C" fn(*mut Handle);
    query = b"chdb_query_n\0": RunPlain;
    query_bound = b"chdb_query_with_params_n\0": RunStatement;
    stream = b"chdb_stream_query_n\0": RunPlain;
    stream_bound = b"chdb_stream_query_with_params_n\0": RunStatement;
    fetch = b"chdb_stream_fetch_result\0": unsafe extern "C" fn(Handle, Handle) -> Handle;
    cancel = b"chdb_stream_cancel_query\0": unsafe extern "C" fn(Handle, Handle);
    destroy_result = b"chdb_destroy_query_result\0": unsafe extern "C" fn(Handle);
    insert = b"chdb_stream_insert_n\0": RunPlain;
    insert_bound = b"chdb_stream_insert_with_params_n\0": RunStatement;
    append = b"chdb_stream_append\0": unsafe extern "C" fn(Handle, *const c_void, usize) -> c_int;
    done = b"chdb_stream_done\0": unsafe extern "C" fn(Handle) -> Handle;
    insert_error = b"chdb_stream_insert_error\0": unsafe extern "C" fn(Handle) -> Text;
    destroy_insert = b"chdb_destroy_insert_stream\0": unsafe extern "C" fn(Handle);
    buffer = b"chdb_result_buffer\0": unsafe extern "C" fn(Handle) -> *const u8;
    length = b"chdb_result_length\0": unsafe extern "C" fn(Handle) -> usize;
    error = b"chdb_result_error\0": unsafe extern "C" fn(Handle) -> Text;
    rows = b"chdb_result_rows_read\0": CountOf;
    storage_rows = b"chdb_result_storage_rows_read\0": CountOf;
    storage_bytes = b"chdb_result_storage_bytes_read\0": CountOf;
    rows_written = b"chdb_result_rows_written\0": CountOf;
    bytes_written = b"chdb_result_bytes_written\0": CountOf;
}

/// The loaded library. It stays loaded for the life of the process: its threads would outlive an unloading.
pub struct Library {
    functions: Functions,
    _library: ManuallyDrop<libloading::Library>,
}

/// What a statement read and wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub result_rows: u64,
    pub read_rows: u64,
    pub read_bytes: u64,
    pub written_rows: u64,
    pub written_bytes: u64,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.result_rows += other.result_rows;
        self.read_rows += other.read_rows;
        self.read_bytes += other.read_bytes;
        self.written_rows += other.written_rows;
        self.written_bytes += other.written_bytes;
    }
}

impl Library {
    #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
    pub fn load(path: &Path) -> Result<Arc<Self>, libloading::Error> {
        // SAFETY: the file is libchdb, checked against its hash when it was fetched.
        let library = ManuallyDrop::new(unsafe { libloading::Library::new(path)? });
        let functions = Functions::load(&library)?;
        // SAFETY: a plain setter; called before the engine starts, as it must be.
        unsafe { (functions.set_signal_handlers)(0) };
        Ok(Arc::new(Self { functions, _library: library }))
    }

    /// The first connection boots the engine with its `arguments`; `None` when the engine refuses.
    #[expect(unsafe_code, reason = "calls the C library")]
    pub fn connect(self: &Arc<Self>, arguments: &[CString]) -> Option<Connection> {
        let mut pointers: Vec<*mut c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: `count` valid C strings that outlive the call; the library copies them.
        let raw = unsafe { (self.functions.connect)(count, pointers.as_mut_ptr()) };
        NonNull::new(raw).map(|raw| Connection { library: Arc::clone(self), raw })
    }
}

/// One connection: its own settings, current database and temporary tables. Closed on drop.
pub struct Connection {
    library: Arc<Library>,
    raw: NonNull<Handle>,
}

#[expect(unsafe_code, reason = "a connection may be used from any thread, by one at a time")]
// SAFETY: the library takes its own lock per connection and keeps nothing in thread-local storage between calls.
unsafe impl Send for Connection {}

impl Drop for Connection {
    #[expect(unsafe_code, reason = "calls the C library")]
    fn drop(&mut self) {
        // SAFETY: the pointer came from `connect` and is closed once.
        unsafe { (self.library.functions.close)(self.raw.as_ptr()) };
    }
}

impl Connection {
    /// Runs a statement to its end and returns the whole result.
    pub fn query(&mut self, sql: &[u8], format: &str, parameters: &[Parameter]) -> Result<Output, String> {
        let functions = &self.library.functions;
        let result = self.run(functions.query, functions.query_bound, sql, format, parameters);
        self.output(result)
    }

    /// Starts a SELECT whose result is fetched piece by piece.
    pub fn stream(&mut self, sql: &[u8], format: &str, parameters: &[Parameter]) -> Result<SelectStream<'_>, String> {
        let functions = &self.library.functions;
        let result = self.run(functions.stream, functions.stream_bound, sql, format, parameters);
        let handle = self.output(result)?;
        Ok(SelectStream { connection: self, handle, finished: false })
    }

    /// Starts an INSERT; `sql` ends before `FORMAT`, `format` is that of the data to come.
    #[expect(unsafe_code, reason = "calls the C library")]
    pub fn insert(&mut self, sql: &[u8], format: &str, parameters: &[Parameter]) -> Result<InsertStream<'_>, String> {
        let functions = &self.library.functions;
        let handle = self.run(functions.insert, functions.insert_bound, sql, format, parameters);
        let stream = InsertStream { library: Arc::clone(&self.library), handle, connection: PhantomData };
        // SAFETY: the handle is live until `stream` drops.
        match unsafe { owned_text((self.library.functions.insert_error)(handle)) } {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    #[expect(unsafe_code, reason = "calls the C library")]
    fn run(&self, plain: RunPlain, bound: RunStatement, sql: &[u8], format: &str, parameters: &[Parameter]) -> Handle {
        let (sql_text, format_text): (Text, Text) = (sql.as_ptr().cast(), format.as_ptr().cast());
        if parameters.is_empty() {
            // The bound variants would clear what the session set with `SET param_x`.
            // SAFETY: the connection is open (it is closed only on drop); every pointer has its length beside it.
            return unsafe { plain(*self.raw.as_ptr(), sql_text, sql.len(), format_text, format.len()) };
        }
        let names: Vec<Text> = parameters.iter().map(|(name, _)| name.as_ptr().cast()).collect();
        let name_lengths: Vec<usize> = parameters.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<Text> = parameters.iter().map(|(_, value)| value.as_ptr().cast()).collect();
        let value_lengths: Vec<usize> = parameters.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: as above; everything outlives the call, and the library copies what it keeps.
        unsafe {
            bound(
                *self.raw.as_ptr(),
                sql_text,
                sql.len(),
                format_text,
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        }
    }

    /// Takes a result over, or its error.
    #[expect(unsafe_code, reason = "calls the C library")]
    fn output(&self, result: Handle) -> Result<Output, String> {
        take_output(&self.library, result).and_then(|output| {
            // SAFETY: `output` owns the live result.
            match unsafe { owned_text((self.library.functions.error)(output.result.as_ptr())) } {
                Some(error) => Err(error),
                None => Ok(output),
            }
        })
    }
}

fn take_output(library: &Arc<Library>, result: Handle) -> Result<Output, String> {
    let result = NonNull::new(result).ok_or_else(|| "the engine returned no result".to_owned())?;
    Ok(Output { library: Arc::clone(library), result })
}

/// # Safety
/// `text` is null or a live, terminated string.
#[expect(unsafe_code, reason = "reads a C string")]
unsafe fn owned_text(text: Text) -> Option<String> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The engine's own buffer, handed on without a copy.
pub struct Output {
    library: Arc<Library>,
    result: NonNull<c_void>,
}

#[expect(unsafe_code, reason = "a result belongs to no thread and no connection")]
// SAFETY: a result is plain memory of its own, read-only until it is destroyed.
unsafe impl Send for Output {}
#[expect(unsafe_code, reason = "a result is read-only")]
// SAFETY: all methods only read.
unsafe impl Sync for Output {}

impl Output {
    #[expect(unsafe_code, reason = "calls the C library")]
    pub fn counts(&self) -> Counts {
        let functions = &self.library.functions;
        let result = self.result.as_ptr();
        // SAFETY: the result is live.
        unsafe {
            Counts {
                result_rows: (functions.rows)(result),
                read_rows: (functions.storage_rows)(result),
                read_bytes: (functions.storage_bytes)(result),
                written_rows: (functions.rows_written)(result),
                written_bytes: (functions.bytes_written)(result),
            }
        }
    }
}

impl AsRef<[u8]> for Output {
    #[expect(unsafe_code, reason = "calls the C library")]
    fn as_ref(&self) -> &[u8] {
        let functions = &self.library.functions;
        // SAFETY: the result is live and its buffer does not move.
        unsafe {
            let length = (functions.length)(self.result.as_ptr());
            let buffer = (functions.buffer)(self.result.as_ptr());
            if length == 0 || buffer.is_null() { &[] } else { std::slice::from_raw_parts(buffer, length) }
        }
    }
}

impl Drop for Output {
    #[expect(unsafe_code, reason = "calls the C library")]
    fn drop(&mut self) {
        // SAFETY: destroyed once, by its owner.
        unsafe { (self.library.functions.destroy_result)(self.result.as_ptr()) };
    }
}

/// A running SELECT; dropping it before its end cancels it.
pub struct SelectStream<'a> {
    connection: &'a mut Connection,
    handle: Output,
    finished: bool,
}

impl SelectStream<'_> {
    /// The next piece of the result, or `None` at its end.
    #[expect(unsafe_code, reason = "calls the C library")]
    pub fn fetch(&mut self) -> Result<Option<Output>, String> {
        if self.finished {
            return Ok(None);
        }
        // SAFETY: connection and handle are live, and `&mut` keeps other statements away.
        let fetched = unsafe {
            (self.connection.library.functions.fetch)(*self.connection.raw.as_ptr(), self.handle.result.as_ptr())
        };
        let piece = self.connection.output(fetched).inspect_err(|_| self.finished = true)?;
        if piece.as_ref().is_empty() {
            self.finished = true;
            return Ok(None);
        }
        Ok(Some(piece))
    }
}

impl Drop for SelectStream<'_> {
    #[expect(unsafe_code, reason = "calls the C library")]
    fn drop(&mut self) {
        if !self.finished {
            // SAFETY: as in `fetch`; the handle is destroyed by its own drop afterwards.
            unsafe {
                (self.connection.library.functions.cancel)(*self.connection.raw.as_ptr(), self.handle.result.as_ptr());
            }
        }
    }
}

/// A running INSERT. Dropping it unfinished cancels it, and a cancelled insert keeps the blocks that it had written.
pub struct InsertStream<'a> {
    library: Arc<Library>,
    handle: Handle,
    connection: PhantomData<&'a mut Connection>,
}

impl InsertStream<'_> {
    /// False when the insert has failed already: `finish` then says why.
    #[expect(unsafe_code, reason = "calls the C library")]
    pub fn append(&mut self, data: &[u8]) -> bool {
        // SAFETY: the handle is live; the library copies the data.
        unsafe { (self.library.functions.append)(self.handle, data.as_ptr().cast(), data.len()) == 0 }
    }

    #[expect(unsafe_code, reason = "calls the C library")]
    pub fn finish(self) -> Result<Counts, String> {
        // SAFETY: the handle is live; it is destroyed when `self` drops.
        let result = unsafe { (self.library.functions.done)(self.handle) };
        let output = take_output(&self.library, result)?;
        // SAFETY: `output` owns the live result.
        match unsafe { owned_text((self.library.functions.error)(output.result.as_ptr())) } {
            Some(error) => Err(error),
            None => Ok(output.counts()),
        }
    }
}

impl Drop for InsertStream<'_> {
    #[expect(unsafe_code, reason = "calls the C library")]
    fn drop(&mut self) {
        // SAFETY: destroyed once, by its owner.
        unsafe { (self.library.functions.destroy_insert)(self.handle) };
    }
}
