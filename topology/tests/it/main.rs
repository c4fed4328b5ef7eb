//! Scenarios on real processes, each on both backbones: the embedded stack, and Apache Kafka with Apache Cassandra.

mod client;
mod oracle;
mod poster;
mod real_stack;
mod scenarios;
mod sse_client;
mod stack;

/// Every scenario is one line here.
macro_rules! on_both_backbones {
    ($($scenario:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $scenario() { crate::scenarios::$scenario::run(crate::stack::Backbone::Embedded); })*
        }
        mod kafka {
            $(#[test] fn $scenario() { crate::scenarios::$scenario::run(crate::stack::Backbone::Kafka); })*
        }
    };
}

on_both_backbones!(
    bad_input,
    broker_down,
    clickhouse_away,
    clients,
    demo_data,
    graceful_shutdown,
    kill_nine,
    late_events,
    live_push,
    new_definition,
    retries_count_once,
    scale_out_and_in,
);
