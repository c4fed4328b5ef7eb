//! Scenarios on real processes, on both backbones wherever that makes a difference: the embedded stack, and Apache Kafka with
//! Apache Cassandra.
//! (`cfg(test)` always holds here; by it clippy knows that these modules may panic.)

#[cfg(test)]
mod clickhouse_crate;
#[cfg(test)]
mod clickhouse_curl;
#[cfg(test)]
mod client;
#[cfg(test)]
mod collector;
#[cfg(test)]
mod forgetful_proxy;
#[cfg(test)]
mod kafka_adapter;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod poster;
#[cfg(test)]
mod real_stack;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sse_client;
#[cfg(test)]
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
    access_keys,
    bad_input,
    broker_down,
    browser_client,
    clickhouse_away,
    clients,
    demo_data,
    graceful_shutdown,
    kill_nine,
    late_events,
    live_push,
    new_definition,
    operator_commands,
    retries_count_once,
    scale_out_and_in,
    sdk_clients,
    tracing,
);

/// What has nothing to do with the backbone.
#[test]
fn hostile_connections() {
    scenarios::hostile_connections::run();
}

#[test]
fn openapi_contract() {
    scenarios::openapi_contract::run();
}

#[test]
fn benches() {
    scenarios::benches::run();
}

#[test]
fn backup_and_restore() {
    scenarios::backup_and_restore::run();
}

#[test]
fn clickhouse_users() {
    scenarios::clickhouse_users::run();
}

#[test]
fn failed_writes() {
    scenarios::failed_writes::run();
}

/// What only a log in another process can be.
#[test]
fn forgetful_broker() {
    scenarios::forgetful_broker::run();
}

#[test]
fn over_tls() {
    scenarios::over_tls::run();
}

#[test]
fn rolling_restart() {
    scenarios::rolling_restart::run();
}

#[test]
fn shared_cache() {
    scenarios::shared_cache::run();
}

#[test]
fn watching() {
    scenarios::watching::run();
}

#[test]
fn kafka_clients() {
    scenarios::kafka_clients::run();
}
