//! Chaos: a steady load from senders that retry, one fault after the other, and at the end a count of what landed against
//! what was acknowledged, and `neonhub audit`. On both backbones: the embedded stack, and Apache Kafka with Apache
//! Cassandra. `make chaos` runs it for ten minutes each; `make test` for one.
//! (`cfg(test)` always holds here; by it clippy knows that these modules may panic.)

#[cfg(test)]
#[path = "../it/client.rs"]
#[allow(dead_code, reason = "shared with tests/it, which uses more of it")]
mod client;
#[cfg(test)]
mod damaged_files;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod plan;
#[cfg(test)]
#[path = "../it/real_stack/mod.rs"]
#[allow(dead_code, reason = "shared with tests/it, which uses more of it")]
mod real_stack;
#[cfg(test)]
mod run;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod senders;
#[cfg(test)]
#[path = "../it/stack.rs"]
#[allow(dead_code, reason = "shared with tests/it, which uses more of it")]
mod stack;
#[cfg(test)]
mod way;

#[test]
fn embedded() {
    run::run(stack::Backbone::Embedded);
}

#[test]
fn kafka() {
    run::run(stack::Backbone::Kafka);
}

#[test]
fn damaged_files() {
    damaged_files::run();
}

#[test]
fn disk_full() {
    disk_full::run();
}
