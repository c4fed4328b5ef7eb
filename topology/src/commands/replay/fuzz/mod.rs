//! What must hold for whatever files `neonhub replay` is given.

pub(crate) mod cells;
pub(crate) mod lines;
pub(crate) mod tables;

use std::io::{Cursor, Read};
use std::ops::ControlFlow;
use std::path::Path;

use super::mapping::Mapping;
use super::outgoing::Origin;
use super::source::{Item, Source};

impl Item {
    fn origin(&self) -> &Origin {
        match self {
            Self::Event(event) => &event.origin,
            Self::Bad(rejection) => &rejection.origin,
        }
    }
}

/// What a file of this name would give. `None`: it cannot be read to its end, and that is said.
fn read(name: &str, bytes: &[u8], mapping: Option<Mapping>, as_import: bool) -> Option<Vec<Item>> {
    let source = Source { files: Vec::new(), mapping, as_import };
    let mut items = Vec::new();
    let stream: Box<dyn Read> = Box::new(Cursor::new(bytes.to_vec()));
    let outcome = source.read_stream(Path::new(name), stream, &mut |item| {
        if let Item::Bad(rejection) = &item {
            assert!(!rejection.detail.is_empty(), "nothing is said");
        }
        items.push(item);
        ControlFlow::Continue(())
    });
    match outcome {
        Ok(flow) => {
            assert!(flow.is_continue(), "nobody told it to stop");
            Some(items)
        }
        Err(error) => {
            assert!(format!("{error:#}").starts_with(name), "{error:#} does not say where");
            None
        }
    }
}
