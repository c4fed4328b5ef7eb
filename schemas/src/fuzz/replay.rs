//! Runs targets over their committed corpora.

use std::path::Path;

/// What `make fuzz` begins with, and every input that ever broke a promise.
const CORPORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../topology/fuzz/corpus");

/// A target that panics is named with the file that makes it panic.
pub fn replay(targets: &[super::Target]) {
    for (name, check) in targets {
        check(&[]);
        let mut inputs = 0;
        for entry in std::fs::read_dir(Path::new(CORPORA).join(name)).expect(name) {
            let path = entry.expect(name).path();
            let bytes = std::fs::read(&path).expect(name);
            // Shown only when the test fails.
            println!("{}", path.display());
            check(&bytes);
            inputs += 1;
        }
        assert!(inputs > 0, "the target {name} has no corpus");
    }
}
